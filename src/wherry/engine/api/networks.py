"""Networks: the three that are always there, and that of the pods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from wherry.engine.api.parameters import filter_parameter, json_response
from wherry.engine.api.routing import Route
from wherry.engine.errors import Forbidden, NotImplementedByEngine
from wherry.engine.network import network

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

_KEYS = frozenset(("dangling", "driver", "id", "label", "name", "scope", "type"))


async def list_networks(engine: Engine, request: web.Request) -> web.Response:
    filters = filter_parameter(request).check(_KEYS)
    chosen = [
        n
        for n in engine.networks.all()
        if filters.exact("driver", n.driver)
        and filters.fuzzy("id", n.id)
        and filters.pattern("name", n.name)
        and filters.exact("scope", "local")
        and filters.exact("type", "builtin" if n.name in network.PREDEFINED else "custom")
        and filters.labels(n.labels)
    ]
    return json_response([network.inspect(n, None) for n in chosen])


async def inspect_network(engine: Engine, request: web.Request) -> web.Response:
    found = engine.networks.get(request.match_info["id"])
    return json_response(network.inspect(found, engine.containers.store.all()))


async def remove_network(engine: Engine, request: web.Request) -> web.Response:
    found = engine.networks.get(request.match_info["id"])
    raise Forbidden(f"{found.name} is a pre-defined network and cannot be removed")


async def prune_networks(engine: Engine, request: web.Request) -> web.Response:
    filter_parameter(request)
    return json_response({"NetworksDeleted": None})


async def not_yet(engine: Engine, request: web.Request) -> web.Response:
    raise NotImplementedByEngine(
        "user-defined networks are not available in this version of Wherry; "
        "there are bridge, host and none"
    )


ROUTES = (
    Route("GET", "/networks", list_networks),
    Route("POST", "/networks/create", not_yet),
    Route("POST", "/networks/prune", prune_networks),
    Route("GET", "/networks/{id}", inspect_network),
    Route("DELETE", "/networks/{id}", remove_network),
    Route("POST", "/networks/{id}/connect", not_yet),
    Route("POST", "/networks/{id}/disconnect", not_yet),
)
