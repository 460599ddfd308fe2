"""Volumes: creating, listing, showing and removing them."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from aiohttp import web

from wherry.engine.api.parameters import (
    filter_parameter,
    flag,
    json_body,
    json_response,
    no_content,
    uninterrupted,
    version,
)
from wherry.engine.api.routing import Route
from wherry.engine.container.options import ANY_MAP, STRING, STRING_MAP, decode
from wherry.engine.errors import BadParameter, NotFound, Unavailable
from wherry.engine.filters import Filters
from wherry.engine.volume.volume import ANONYMOUS_LABEL, Volume
from wherry.host.files import directory_size

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

_LIST_KEYS = frozenset(("dangling", "driver", "label", "name"))
_PRUNE_KEYS = frozenset(("label", "label!"))
# Since then only anonymous volumes are pruned unless all are asked for.
_ANONYMOUS_ONLY_SINCE = (1, 42)
_CREATE = {
    "Name": (STRING, ""),
    "Driver": (STRING, ""),
    "DriverOpts": (STRING_MAP, None),
    "Labels": (STRING_MAP, None),
    "ClusterVolumeSpec": (ANY_MAP, None),
}
_NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect '
    "this node to swarm and try again."
)


def _name(request: web.Request) -> str:
    return request.match_info["name"]


async def list_volumes(engine: Engine, request: web.Request) -> web.Response:
    filters = filter_parameter(request).check(_LIST_KEYS)
    dangling = filters.flag("dangling") if "dangling" in filters else None
    chosen = [
        volume
        for volume in engine.volumes.all()
        if (dangling is None or dangling != bool(engine.volumes.users(volume.name)))
        and filters.exact("driver", volume.driver)
        and filters.pattern("name", volume.name)
        and _has_labels(filters, volume)
    ]
    return json_response({"Volumes": [volume.to_api() for volume in chosen], "Warnings": None})


def _has_labels(filters: Filters, volume: Volume) -> bool:
    labels = volume.labels or {}
    return filters.labels(labels) and filters.not_labels(labels)


async def inspect_volume(engine: Engine, request: web.Request) -> web.Response:
    return json_response(engine.volumes.get(_name(request)).to_api())


async def create_volume(engine: Engine, request: web.Request) -> web.Response:
    body = decode(_CREATE, await json_body(request), "CreateOptions")
    if body["ClusterVolumeSpec"] and version(request) >= (1, 42):
        raise Unavailable(_NO_SWARM)
    volume = engine.volumes.create(
        body["Name"], body["Driver"], labels=body["Labels"], options=body["DriverOpts"]
    )
    return json_response(volume.to_api(), 201)


@uninterrupted
async def remove_volume(engine: Engine, request: web.Request) -> web.Response:
    try:
        await engine.volumes.remove(_name(request))
    except NotFound:
        if not flag(request, "force"):
            raise
    return no_content()


async def update_volume(engine: Engine, request: web.Request) -> web.Response:
    """Only cluster volumes can be changed, and there is no swarm to have them."""
    if version(request) < (1, 42):
        raise NotFound("page not found")
    text = request.query.get("version", "")
    if not re.fullmatch(r"\d+", text):
        raise BadParameter(
            f"invalid swarm object version '{text}': "
            f'strconv.ParseUint: parsing "{text}": invalid syntax'
        )
    await json_body(request)
    raise Unavailable(_NO_SWARM)


@uninterrupted
async def prune_volumes(engine: Engine, request: web.Request) -> web.Response:
    filters = filter_parameter(request)
    everything = version(request) < _ANONYMOUS_ONLY_SINCE
    filters.check(_PRUNE_KEYS if everything else _PRUNE_KEYS | {"all"})
    everything = everything or filters.flag("all")
    chosen = [
        volume
        for volume in engine.volumes.all()
        if (everything or ANONYMOUS_LABEL in (volume.labels or {})) and _has_labels(filters, volume)
    ]
    removed, freed = await engine.volumes.prune(chosen)
    return json_response({"VolumesDeleted": removed, "SpaceReclaimed": freed})


async def usage(engine: Engine) -> list[dict[str, Any]]:
    """The volumes of ``docker system df``: with their size in bytes and how many have them.

    Those with options are somebody else's space and not counted.
    """
    return [
        volume.to_api()
        | {
            "UsageData": {
                "RefCount": len(engine.volumes.users(volume.name)),
                "Size": await asyncio.to_thread(directory_size, volume.path),
            }
        }
        for volume in engine.volumes.all()
        if volume.is_plain
    ]


ROUTES = (
    Route("GET", "/volumes", list_volumes),
    Route("POST", "/volumes/create", create_volume),
    Route("POST", "/volumes/prune", prune_volumes),
    Route("GET", "/volumes/{name}", inspect_volume),
    Route("PUT", "/volumes/{name}", update_volume),
    Route("DELETE", "/volumes/{name}", remove_volume),
)
