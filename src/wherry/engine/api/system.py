"""The engine as a whole: ping, version, info, disk usage."""

from __future__ import annotations

import asyncio
import platform
from typing import TYPE_CHECKING

from aiohttp import web

from wherry import __version__
from wherry.engine.api.parameters import CURRENT, OLDEST, json_response, version
from wherry.engine.api.routing import Route
from wherry.engine.container import inspect
from wherry.engine.container.service import directory_size
from wherry.engine.errors import NotImplementedByEngine, Unavailable
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
        body=b"" if request.method == "HEAD" else b"OK",
        content_type="text/plain",
        headers={
            "Builder-Version": "1",
            "Swarm": "inactive",
            "Cache-Control": "no-cache, no-store, must-revalidate",
            "Pragma": "no-cache",
        },
    )


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
        {"Name": name, "Version": number, "Details": {}}
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
    return json_response(await describe(engine))


async def disk_usage(engine: Engine, request: web.Request) -> web.Response:
    wanted = request.query.getall("type", [])
    document: dict[str, object] = {}
    if not wanted or "image" in wanted:
        document["LayersSize"] = await asyncio.to_thread(
            directory_size, engine.config.data_dir / "images"
        )
        document["Images"] = await engine.images.summaries(
            Filters({}), all_=True, shared_size=True, containers=True, version=version(request)
        )
    if not wanted or "container" in wanted:
        document["Containers"] = [
            inspect.summary(
                container,
                engine.containers.image_name(container),
                size=await engine.containers.sizes(container),
            )
            for container in engine.containers.store.all()
        ]
    if not wanted or "volume" in wanted:
        document["Volumes"] = []
    if not wanted or "build-cache" in wanted:
        document["BuildCache"] = []
        if version(request) < (1, 42):
            document["BuilderSize"] = 0
    return json_response(document)


async def list_plugins(engine: Engine, request: web.Request) -> web.Response:
    return json_response([])


async def prune_build_cache(engine: Engine, request: web.Request) -> web.Response:
    """There is none; ``docker system prune`` asks all the same."""
    return json_response({"CachesDeleted": None, "SpaceReclaimed": 0})


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
    *(
        Route("GET", f"/{resource}", no_swarm)
        for resource in ("swarm", "services", "tasks", "nodes", "secrets", "configs")
    ),
)
