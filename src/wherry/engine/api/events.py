"""``docker events``: what has happened, and what happens from now on."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from wherry.engine.api import old_versions
from wherry.engine.api.parameters import filter_parameter, version
from wherry.engine.api.routing import Route
from wherry.engine.container.units import parse_since
from wherry.engine.errors import BadParameter
from wherry.engine.events import Event, matches

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

# A client that falls this many events behind is cut off.
_BACKLOG = 4096


async def events(engine: Engine, request: web.Request) -> web.StreamResponse:
    """Without ``since`` or ``until`` only what is to come; with either, what is remembered first.

    Keys of filters that mean nothing here are no error, as in Docker.
    """
    filters = filter_parameter(request)
    since, until = _moment(request, "since"), _moment(request, "until")
    if until and until < since:
        raise BadParameter(
            f"`since` time ({request.query['since']}) cannot be after "
            f"`until` time ({request.query['until']})"
        )
    client = version(request)

    def line(event: Event) -> bytes:
        message = event.to_api()
        if not old_versions.tells(message, client):
            return b""
        return orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE)

    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    subscription = engine.events.subscribe(_BACKLOG, lambda event: matches(event, filters))
    try:
        replayed = engine.events.history(since, until or None) if since or until else []
        await response.prepare(request)
        await response.write(b"".join(line(event) for event in replayed if matches(event, filters)))
        remaining = until / 1e9 - time.time() if until else None
        if remaining is None or remaining > 0:
            try:
                async with asyncio.timeout(remaining):
                    async for event in subscription:
                        await response.write(line(event))
            except TimeoutError:
                pass  # `until` has come
        await response.write_eof()
        return response
    finally:
        subscription.close()


def _moment(request: web.Request, name: str) -> int:
    """Unix seconds with up to nine decimals, as nanoseconds; 0 where there is none."""
    text = request.query.get(name, "")
    try:
        return parse_since(text, name)
    except BadParameter:
        raise BadParameter(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


ROUTES = (Route("GET", "/events", events),)
