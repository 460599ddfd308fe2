"""The engine as a whole: ping, version, info, disk usage."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

from aiohttp import web

from wherry import __version__
from wherry.engine.api import containers, old_versions, volumes
from wherry.engine.api.parameters import CURRENT, OLDEST, json_response, version
from wherry.engine.api.routing import Route
from wherry.engine.errors import BadParameter, NotImplementedByEngine, Unavailable
from wherry.engine.filters import Filters
from wherry.engine.info import info as describe
from wherry.engine.info import kernel_version, machine

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

_NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect '
    "this node to swarm and try again."
)


async def ping(engine: Engine, request: web.Request) -> web.Response:
    return web.Response(
        text="" if request.method == "HEAD" else "OK",
        headers={
            "Builder-Version": "1",
            "Swarm": "inactive",
            "Cache-Control": "no-cache, no-store, must-revalidate",
            "Pragma": "no-cache",
        },
    )


async def options(engine: Engine, request: web.Request) -> web.Response:
    return web.Response()


async def show_version(engine: Engine, request: web.Request) -> web.Response:
    current, oldest = ("{}.{}".format(*v) for v in (CURRENT, OLDEST))
    details = {
        "ApiVersion": current,
        "Arch": machine(),
        "Experimental": "false",
        "KernelVersion": kernel_version(),
        "MinAPIVersion": oldest,
        "Os": "linux",
        "PythonVersion": platform.python_version(),
    }
    components = [{"Name": "Engine", "Version": __version__, "Details": details}]
    components += [
        {"Name": name, "Version": number, "Details": {"GitCommit": ""}}
        for name, number in (await engine.component_versions()).items()
    ]
    return json_response(
        {
            "Platform": {"Name": "Wherry"},
            "Components": components,
            "Version": __version__,
            "ApiVersion": current,
            "MinAPIVersion": oldest,
            "GitCommit": "",
            "GoVersion": "",
            "Os": "linux",
            "Arch": machine(),
            "KernelVersion": kernel_version(),
        }
    )


async def info(engine: Engine, request: web.Request) -> web.Response:
    return json_response(old_versions.info(await describe(engine), version(request)))


async def disk_usage(engine: Engine, request: web.Request) -> web.Response:
    asked = request.query.getall("type", [])
    if version(request) < (1, 42) or not asked:
        asked = list(_DISK_USERS)
    for kind in asked:
        if kind not in _DISK_USERS:
            raise BadParameter(f"unknown object type: {kind}")
    document: dict[str, Any] = {
        "LayersSize": 0,
        "Images": None,
        "Containers": None,
        "Volumes": None,
        "BuildCache": None,
    }
    for kind in asked:
        document |= await _DISK_USERS[kind](engine, version(request))
    if version(request) < (1, 42):
        document["BuilderSize"] = 0
    return json_response(document)


async def _images_usage(engine: Engine, client: tuple[int, int]) -> dict[str, Any]:
    summaries = await engine.images.summaries(
        Filters({}), all_=True, shared_size=True, containers=True, version=client
    )
    return {"LayersSize": engine.images.layers_size(), "Images": summaries}


async def _containers_usage(engine: Engine, client: tuple[int, int]) -> dict[str, Any]:
    everything = engine.containers.store.all()
    return {"Containers": await containers.summaries(engine, everything, client, sizes=True)}


async def _volumes_usage(engine: Engine, client: tuple[int, int]) -> dict[str, Any]:
    return {"Volumes": await volumes.usage(engine)}


async def _build_cache_usage(engine: Engine, client: tuple[int, int]) -> dict[str, Any]:
    return {"BuildCache": []}


# What a client may ask the disk usage of, by the names of the parameter `type`.
_DISK_USERS = {
    "container": _containers_usage,
    "image": _images_usage,
    "volume": _volumes_usage,
    "build-cache": _build_cache_usage,
}


async def list_plugins(engine: Engine, request: web.Request) -> web.Response:
    return json_response([])


async def prune_build_cache(engine: Engine, request: web.Request) -> web.Response:
    """There is none; ``docker system prune`` asks all the same."""
    return json_response({"CachesDeleted": None, "SpaceReclaimed": 0})


async def leave_swarm(engine: Engine, request: web.Request) -> web.Response:
    raise Unavailable("This node is not part of a swarm")


async def no_swarm(engine: Engine, request: web.Request) -> web.Response:
    raise Unavailable(_NO_SWARM)


async def no_swarm_mode(engine: Engine, request: web.Request) -> web.Response:
    raise NotImplementedByEngine("this engine has no swarm mode; its cluster is Kubernetes")


ROUTES = (
    Route("GET", "/_ping", ping),
    Route("HEAD", "/_ping", ping),
    Route("GET", "/version", show_version),
    Route("GET", "/info", info),
    Route("GET", "/system/df", disk_usage),
    Route("POST", "/build/prune", prune_build_cache),
    Route("GET", "/plugins", list_plugins),
    Route("POST", "/swarm/init", no_swarm_mode),
    Route("POST", "/swarm/join", no_swarm_mode),
    Route("POST", "/swarm/leave", leave_swarm),
    Route("OPTIONS", "/{path:.*}", options),
    *(
        Route(method, f"/{resource}{below}", no_swarm)
        for resource in ("swarm", "services", "tasks", "nodes", "secrets", "configs")
        for method, below in (("GET", ""), ("*", "/{name:.+}"))
    ),
)
