"""Containers: creating, listing, changing and removing them. Their streams are in ``streams``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from wherry.engine.api import old_versions
from wherry.engine.api.parameters import (
    filter_parameter,
    flag,
    integer,
    json_body,
    json_response,
    no_content,
    optional_integer,
    required_integer,
    uninterrupted,
    version,
)
from wherry.engine.api.routing import Route
from wherry.engine.container import create, inspect, links, signals
from wherry.engine.errors import BadParameter

if TYPE_CHECKING:
    from wherry.engine.container.container import Container
    from wherry.engine.engine import Engine


def _id(request: web.Request) -> str:
    return request.match_info["id"]


async def list_containers(engine: Engine, request: web.Request) -> web.Response:
    chosen = engine.containers.list(
        filter_parameter(request), all_=flag(request, "all"), limit=integer(request, "limit")
    )
    sizes = flag(request, "size")
    return json_response(await summaries(engine, chosen, version(request), sizes=sizes))


async def summaries(
    engine: Engine, chosen: Sequence[Container], client: tuple[int, int], *, sizes: bool
) -> list[dict[str, Any]]:
    """The entries of a list of containers for a client of that version."""
    containers = engine.containers
    measured: Sequence[tuple[int, int] | None] = [None] * len(chosen)
    if sizes:
        measured = await asyncio.gather(*map(containers.sizes, chosen))
    linked = links.names_by_child(containers.store)
    return [
        old_versions.listed(
            inspect.summary(
                container,
                containers.image_name(container),
                names=linked.get(container.id, ()),
                size=size,
            ),
            client,
        )
        for container, size in zip(chosen, measured, strict=True)
    ]


@uninterrupted
async def create_container(engine: Engine, request: web.Request) -> web.Response:
    body = old_versions.asked(await json_body(request), version(request))
    decoded = create.decode(body, request.query.get("platform", ""), version=version(request))
    host = decoded.host_config
    host["LogConfig"] = engine.options.log_config(host["LogConfig"])
    container, warnings = await engine.containers.create(decoded, request.query.get("name", ""))
    return json_response({"Id": container.id, "Warnings": warnings}, 201)


async def inspect_container(engine: Engine, request: web.Request) -> web.Response:
    document = await engine.containers.inspect(_id(request), size=flag(request, "size"))
    return json_response(old_versions.inspected(document, version(request)))


async def top(engine: Engine, request: web.Request) -> web.Response:
    options = request.query.get("ps_args", "")
    return json_response(await engine.containers.top(_id(request), options))


@uninterrupted
async def start(engine: Engine, request: web.Request) -> web.Response:
    await engine.containers.start(_id(request))
    return no_content()


@uninterrupted
async def stop(engine: Engine, request: web.Request) -> web.Response:
    await engine.containers.stop(
        _id(request), timeout=optional_integer(request, "t"), signal=_signal(request)
    )
    return no_content()


@uninterrupted
async def restart(engine: Engine, request: web.Request) -> web.Response:
    await engine.containers.restart(
        _id(request), timeout=optional_integer(request, "t"), signal=_signal(request)
    )
    return no_content()


def _signal(request: web.Request) -> str:
    text = request.query.get("signal", "") if version(request) >= (1, 42) else ""
    if text:
        signals.parse(text)
    return text


@uninterrupted
async def kill(engine: Engine, request: web.Request) -> web.Response:
    text = request.query.get("signal", "")
    number = signals.parse(text) if text else signals.KILL
    await engine.containers.kill(_id(request), number)
    return no_content()


@uninterrupted
async def pause(engine: Engine, request: web.Request) -> web.Response:
    await engine.containers.pause(_id(request))
    return no_content()


@uninterrupted
async def unpause(engine: Engine, request: web.Request) -> web.Response:
    await engine.containers.unpause(_id(request))
    return no_content()


@uninterrupted
async def rename(engine: Engine, request: web.Request) -> web.Response:
    await engine.containers.rename(_id(request), request.query.get("name", ""))
    return no_content()


@uninterrupted
async def update(engine: Engine, request: web.Request) -> web.Response:
    body = await json_body(request)
    if version(request) < (1, 40) and isinstance(body, dict):
        body.pop("PidsLimit", None)
    warnings = await engine.containers.update(_id(request), body)
    return json_response({"Warnings": warnings})


@uninterrupted
async def remove(engine: Engine, request: web.Request) -> web.Response:
    if flag(request, "link"):
        await engine.containers.remove_link(_id(request))
        return no_content()
    await engine.containers.remove(
        _id(request), force=flag(request, "force"), volumes=flag(request, "v")
    )
    return no_content()


@uninterrupted
async def prune(engine: Engine, request: web.Request) -> web.Response:
    removed, freed = await engine.containers.prune(filter_parameter(request))
    return json_response({"ContainersDeleted": removed or None, "SpaceReclaimed": freed})


async def wait(engine: Engine, request: web.Request) -> web.StreamResponse:
    container = engine.containers.get(_id(request))
    condition = request.query.get("condition", "") if version(request) >= (1, 30) else ""
    future = engine.containers.wait(container, condition)
    # The client takes the headers as a sign that the waiting has begun.
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    try:
        code = await future
    finally:
        future.cancel()
    document: dict[str, Any] = {"StatusCode": code}
    if container.state.error and condition != "removed":
        document["Error"] = {"Message": container.state.error}
    with contextlib.suppress(ConnectionError):  # the client did not wait so long
        await response.write_eof(orjson.dumps(document) + b"\n")
    return response


async def resize(engine: Engine, request: web.Request) -> web.Response:
    height, width = required_integer(request, "h"), required_integer(request, "w")
    await engine.containers.resize(_id(request), width, height)
    return web.Response()


async def stats(engine: Engine, request: web.Request) -> web.StreamResponse:
    container = engine.containers.get(_id(request))
    stream, one_shot = flag(request, "stream", True), flag(request, "one-shot")
    if one_shot and version(request) >= (1, 41) and stream:
        raise BadParameter("cannot have stream=true and one-shot=true")
    if not stream:
        return json_response(await engine.stats.once(container, quickly=one_shot))
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    async with contextlib.aclosing(engine.stats.watch(container)) as documents:
        async for document in documents:
            await response.write(orjson.dumps(document) + b"\n")
    return response


ROUTES = (
    Route("GET", "/containers/json", list_containers),
    Route("POST", "/containers/create", create_container),
    Route("POST", "/containers/prune", prune),
    Route("GET", "/containers/{id:.+}/json", inspect_container),
    Route("GET", "/containers/{id}/top", top),
    Route("GET", "/containers/{id}/stats", stats),
    Route("POST", "/containers/{id}/start", start),
    Route("POST", "/containers/{id}/stop", stop),
    Route("POST", "/containers/{id}/restart", restart),
    Route("POST", "/containers/{id}/kill", kill),
    Route("POST", "/containers/{id}/pause", pause),
    Route("POST", "/containers/{id}/unpause", unpause),
    Route("POST", "/containers/{id}/rename", rename),
    Route("POST", "/containers/{id}/update", update),
    Route("POST", "/containers/{id}/wait", wait),
    Route("POST", "/containers/{id}/resize", resize),
    Route("DELETE", "/containers/{id:.+}", remove),
)
