"""The files of containers: the archive endpoints, changes, export, and commit."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from wherry.engine.api.parameters import flag, json_body, json_response, uninterrupted
from wherry.engine.api.routing import Route
from wherry.engine.container import options
from wherry.engine.container.archive import PathStat
from wherry.engine.container.commit import CommitRequest, commit
from wherry.engine.errors import BadParameter, NotFound
from wherry.engine.image.reference import parse

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

log = logging.getLogger(__name__)

_STAT = "X-Docker-Container-Path-Stat"
_TAR = "application/x-tar"


def _path(request: web.Request) -> str:
    path = request.query.get("path", "")
    if not path:
        raise BadParameter("bad parameter: pathcannot be empty")
    return path


def _missing(request: web.Request) -> NotFound:
    name = request.match_info["id"]
    return NotFound(f"Could not find the file {_path(request)} in container {name}")


def _header(found: PathStat) -> dict[str, str]:
    return {_STAT: base64.b64encode(orjson.dumps(found.to_api())).decode()}


async def stat_archive(engine: Engine, request: web.Request) -> web.StreamResponse:
    """``HEAD /containers/{id}/archive``."""
    container = engine.containers.get(request.match_info["id"])
    try:
        found = await engine.containers.files.stat(container, _path(request))
    except FileNotFoundError:
        raise _missing(request) from None
    return web.Response(headers=_header(found))


async def get_archive(engine: Engine, request: web.Request) -> web.StreamResponse:
    """``GET /containers/{id}/archive``."""
    container = engine.containers.get(request.match_info["id"])
    try:
        async with engine.containers.files.archive(container, _path(request)) as (found, stream):
            return await _send(request, stream, _header(found))
    except FileNotFoundError:
        raise _missing(request) from None


async def put_archive(engine: Engine, request: web.Request) -> web.StreamResponse:
    """``PUT /containers/{id}/archive``."""
    container = engine.containers.get(request.match_info["id"])
    try:
        await engine.containers.files.extract(
            container,
            _path(request),
            request.content.iter_any(),
            keep_kinds=flag(request, "noOverwriteDirNonDir"),
            copy_owner=flag(request, "copyUIDGID"),
        )
    except FileNotFoundError:
        raise _missing(request) from None
    return web.Response()


async def changes(engine: Engine, request: web.Request) -> web.StreamResponse:
    """``GET /containers/{id}/changes``."""
    container = engine.containers.get(request.match_info["id"])
    found = await engine.containers.files.changes(container)
    return json_response([{"Path": one.path, "Kind": int(one.kind)} for one in found] or None)


async def export(engine: Engine, request: web.Request) -> web.StreamResponse:
    """``GET /containers/{id}/export``."""
    container = engine.containers.get(request.match_info["id"])
    async with engine.containers.files.export(container) as stream:
        return await _send(request, stream, {})


@uninterrupted
async def commit_container(engine: Engine, request: web.Request) -> web.StreamResponse:
    """``POST /commit``."""
    query = request.query
    body = await json_body(request, required=False)
    container = engine.containers.get(query.get("container", ""))
    reference = ""
    if repository := query.get("repo", ""):
        parsed = parse(repository)
        if parsed.digest:
            raise BadParameter("cannot import digest reference")
        tag = query.get("tag", "")
        reference = str(parsed.with_tag(tag) if tag else parsed.with_default_tag())
    image = await commit(
        engine.containers,
        container,
        CommitRequest(
            reference=reference,
            author=query.get("author", ""),
            comment=query.get("comment", ""),
            config=options.decode(options.CONFIG, body, "CommitRequest") if body else None,
            changes=query.getall("changes", []),
            pause=flag(request, "pause", True),
        ),
    )
    return json_response({"Id": image}, 201)


async def _send(
    request: web.Request, stream: AsyncIterator[bytes], headers: dict[str, str]
) -> web.StreamResponse:
    """Answer with an archive. One that breaks off must not look whole, so the connection goes."""
    response = web.StreamResponse(headers={"Content-Type": _TAR, **headers})
    try:
        first = await anext(stream)
        await response.prepare(request)
        await response.write(first)
        async for piece in stream:
            await response.write(piece)
    except OSError as error:
        if not response.prepared or isinstance(error, ConnectionError):
            raise
        log.error("%s %s: %s", request.method, request.path, error)
        if request.transport is not None:
            request.transport.close()
        raise ConnectionResetError(str(error)) from error
    await response.write_eof()
    return response


ROUTES = (
    Route("HEAD", "/containers/{id}/archive", stat_archive),
    Route("GET", "/containers/{id}/archive", get_archive),
    Route("PUT", "/containers/{id}/archive", put_archive),
    Route("GET", "/containers/{id}/changes", changes),
    Route("GET", "/containers/{id}/export", export),
    Route("POST", "/commit", commit_container),
)
