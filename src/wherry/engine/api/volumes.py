"""Volumes: this engine has none yet, and says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from wherry.engine.api.parameters import filter_parameter, json_response
from wherry.engine.api.routing import Route
from wherry.engine.errors import NotFound, NotImplementedByEngine

if TYPE_CHECKING:
    from wherry.engine.engine import Engine


async def list_volumes(engine: Engine, request: web.Request) -> web.Response:
    filter_parameter(request)
    return json_response({"Volumes": [], "Warnings": None})


async def inspect_volume(engine: Engine, request: web.Request) -> web.Response:
    raise NotFound(f"get {request.match_info['name']}: no such volume")


async def create_volume(engine: Engine, request: web.Request) -> web.Response:
    raise NotImplementedByEngine("volumes are not available in this version of Wherry")


async def prune_volumes(engine: Engine, request: web.Request) -> web.Response:
    filter_parameter(request)
    return json_response({"VolumesDeleted": None, "SpaceReclaimed": 0})


ROUTES = (
    Route("GET", "/volumes", list_volumes),
    Route("POST", "/volumes/create", create_volume),
    Route("POST", "/volumes/prune", prune_volumes),
    Route("GET", "/volumes/{name}", inspect_volume),
    Route("DELETE", "/volumes/{name}", inspect_volume),
)
