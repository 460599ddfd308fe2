"""``docker events``: what has happened, and what happens from now on."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from wherry.engine.api.parameters import filter_parameter
from wherry.engine.api.routing import Route
from wherry.engine.container.units import parse_since
from wherry.engine.events import Event
from wherry.engine.filters import Filters

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

_KEYS = frozenset(
    (
        *("config", "container", "daemon", "event", "image", "label", "network", "node", "plugin"),
        *("scope", "secret", "service", "type", "volume"),
    )
)
# A client that falls this many events behind is cut off.
_BACKLOG = 4096


def matches(event: Event, filters: Filters) -> bool:
    """Whether ``event`` is wanted."""
    if not (
        filters.exact("type", event.type)
        and filters.exact("scope", event.scope)
        # "exec_start: sh -c …" is an exec_start.
        and filters.exact("event", event.action, event.action.partition(":")[0])
        and filters.labels(event.attributes)
    ):
        return False
    for kind in ("container", "image", "network", "volume", "daemon"):
        if kind in filters and not _concerns(event, kind, filters):
            return False
    return True


def _concerns(event: Event, kind: str, filters: Filters) -> bool:
    names = [event.id, event.attributes.get("name", "")]
    if kind == "image" and event.type == "container":
        image = event.attributes.get("image", "")
        return filters.exact("image", image, image.partition(":")[0])
    if event.type != kind:
        return False
    if kind == "image":
        names += [name.rpartition(":")[0] for name in names[1:]]
    return filters.exact(kind, *filter(None, names)) or filters.fuzzy(kind, event.id)


async def events(engine: Engine, request: web.Request) -> web.StreamResponse:
    filters = filter_parameter(request).check(_KEYS)
    since = parse_since(request.query.get("since", ""), "since")
    until = parse_since(request.query.get("until", ""), "until")
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    subscription = engine.events.subscribe(_BACKLOG)
    try:
        history = engine.events.history(since, until or None) if since else []
        last = history[-1].time if history else 0
        await response.prepare(request)
        for event in history:
            if matches(event, filters):
                await response.write(_line(event))
        remaining = until / 1e9 - time.time() if until else None
        if remaining is not None and remaining <= 0:
            return response
        try:
            async with asyncio.timeout(remaining):
                async for event in subscription:
                    if event.time > last and matches(event, filters):
                        await response.write(_line(event))
        except TimeoutError:
            await response.write_eof()
        return response
    finally:
        subscription.close()


def _line(event: Event) -> bytes:
    return orjson.dumps(event.to_api()) + b"\n"


ROUTES = (Route("GET", "/events", events),)
