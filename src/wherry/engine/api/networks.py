"""Networks: listing, inspecting, making, removing them, and who is on them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aiohttp import web

from wherry.engine.api.parameters import (
    filter_parameter,
    json_body,
    json_response,
    no_content,
    uninterrupted,
    version,
)
from wherry.engine.api.routing import Route
from wherry.engine.container.filters import PRUNE_KEYS, before
from wherry.engine.container.options import decode
from wherry.engine.errors import BadParameter, NotFound
from wherry.engine.filters import Filters
from wherry.engine.network import creation, endpoints, network
from wherry.engine.network.network import PREDEFINED, Network

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

_KEYS = frozenset(("dangling", "driver", "id", "label", "name", "scope", "type"))
_TYPES = ("builtin", "custom")


async def list_networks(engine: Engine, request: web.Request) -> web.Response:
    filters = filter_parameter(request).check(_KEYS)
    for kind in filters.get("type"):
        if kind not in _TYPES:
            raise BadParameter(f"invalid filter: 'type'='{kind}'")
    chosen = [n for n in engine.networks.all() if _wanted(engine, n, filters)]
    # Old clients expect to see who is on them here as well.
    full = version(request) < (1, 28)
    return json_response(
        [network.inspect(n, engine.networks.members(n) if full else None) for n in chosen]
    )


def _wanted(engine: Engine, n: Network, filters: Filters) -> bool:
    unused = n.name not in PREDEFINED and not engine.networks.members(n)
    return (
        filters.exact("driver", n.driver)
        and filters.fuzzy("id", n.id)
        and filters.pattern("name", n.name)
        and filters.exact("scope", "local")
        and filters.exact("type", "builtin" if n.name in PREDEFINED else "custom")
        and filters.labels(n.labels)
        and ("dangling" not in filters or filters.flag("dangling") == unused)
    )


async def inspect_network(engine: Engine, request: web.Request) -> web.Response:
    verbose = request.query.get("verbose", "")
    try:
        detailed = bool(verbose) and creation.parse_bool(verbose)
    except ValueError as error:
        raise BadParameter(f"invalid value for verbose: {verbose}: {error}") from None
    reference = request.match_info["id"]
    found = engine.networks.get(reference)
    if request.query.get("scope", "local") not in ("", "local"):
        raise NotFound(f"network {reference} not found")
    shown = network.inspect(found, engine.networks.members(found))
    if detailed:
        shown["Services"] = {}
    return json_response(shown)


@uninterrupted
async def create_network(engine: Engine, request: web.Request) -> web.Response:
    decoded = creation.decode_request(await json_body(request))
    if version(request) < (1, 48):
        decoded["EnableIPv4"] = None  # what such a client sends was never meant so
    made = await engine.networks.create(decoded)
    return json_response({"Id": made.id, "Warning": ""}, 201)


@uninterrupted
async def remove_network(engine: Engine, request: web.Request) -> web.Response:
    await engine.networks.remove(request.match_info["id"])
    return no_content()


@uninterrupted
async def prune_networks(engine: Engine, request: web.Request) -> web.Response:
    filters = filter_parameter(request).check(PRUNE_KEYS)
    until = before(filters, time.time())
    removed = await engine.networks.prune(
        lambda n: (
            filters.labels(n.labels)
            and filters.not_labels(n.labels)
            and (not until or n.created_at < until)
        )
    )
    return json_response({"NetworksDeleted": removed or None})


@uninterrupted
async def connect(engine: Engine, request: web.Request) -> web.Response:
    body = decode(endpoints.CONNECT, await json_body(request), "ConnectOptions")
    wanted = endpoints.parse(request.match_info["id"], body["EndpointConfig"])
    await engine.containers.connect(request.match_info["id"], body["Container"], wanted)
    return web.Response(status=200)


@uninterrupted
async def disconnect(engine: Engine, request: web.Request) -> web.Response:
    body = decode(endpoints.DISCONNECT, await json_body(request), "DisconnectOptions")
    await engine.containers.disconnect(
        request.match_info["id"], body["Container"], force=body["Force"]
    )
    return web.Response(status=200)


ROUTES = (
    Route("GET", "/networks", list_networks),
    Route("GET", "/networks/", list_networks),
    Route("POST", "/networks/create", create_network),
    Route("POST", "/networks/prune", prune_networks),
    Route("GET", "/networks/{id}", inspect_network),
    Route("DELETE", "/networks/{id}", remove_network),
    Route("POST", "/networks/{id}/connect", connect),
    Route("POST", "/networks/{id}/disconnect", disconnect),
)
