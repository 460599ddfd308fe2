"""Blobs: fetching them, whole or in ranges, and the uploads by which they come."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from aiohttp import web

from wherry.registry import names
from wherry.registry.access import Scope
from wherry.registry.errors import RegistryError
from wherry.registry.storage import Upload

if TYPE_CHECKING:
    from wherry.registry.server import Server

# What is handed to a worker thread at a time.
_PIECE = 1 << 20
_CONTENT_RANGE = re.compile(r"(?:bytes )?(\d+)-(\d+)(?:/(?:\d+|\*))?")


async def get(server: Server, request: web.Request, repository: str) -> web.StreamResponse:
    """GET and HEAD of a blob; ranges, conditions and sendfile are aiohttp's."""
    digest = names.digest(request.match_info["digest"])
    path = await asyncio.to_thread(server.storage.blob, repository, digest)
    return web.FileResponse(
        path,
        headers={
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": digest,
            "Cache-Control": "max-age=31536000",
        },
    )


async def delete(server: Server, request: web.Request, repository: str) -> web.StreamResponse:
    """DELETE of a blob."""
    digest = names.digest(request.match_info["digest"])
    await asyncio.to_thread(server.storage.delete_blob, repository, digest)
    return web.Response(status=202, headers={"Docker-Content-Digest": digest})


async def begin(server: Server, request: web.Request, repository: str) -> web.StreamResponse:
    """POST of an upload: begin one, mount a blob of another repository, or send it at once."""
    mounted = request.query.get("mount", "")
    source = request.query.get("from", "")
    storage = server.storage
    if mounted and names.is_digest(mounted):
        allowed = await _may_mount(server, request, source)
        if allowed and await asyncio.to_thread(storage.mount, source, repository, mounted):
            return _created(repository, mounted)
    upload = await asyncio.to_thread(storage.begin, repository)
    digest = request.query.get("digest", "")
    if digest:
        async with server.lock(upload.id):
            return await _finish(server, request, repository, upload, digest)
    return _accepted(repository, upload)


async def _may_mount(server: Server, request: web.Request, source: str) -> bool:
    """Whether the client may read where the blob is; an upload is the answer where it may not."""
    if not source:
        return server.is_open
    try:
        await server.judge(request, Scope("repository", names.repository(source), ("pull",)))
    except RegistryError:
        return False
    return True


async def status(server: Server, request: web.Request, repository: str) -> web.StreamResponse:
    """GET of an upload: how far it is."""
    upload = _upload(server, request, repository)
    return web.Response(status=204, headers=_progress(repository, upload))


async def append(server: Server, request: web.Request, repository: str) -> web.StreamResponse:
    """PATCH of an upload: the next chunk, or all of it as a stream."""
    upload = _upload(server, request, repository)
    async with server.lock(upload.id):
        _check_range(request, repository, upload)
        await _receive(request, upload)
    return _accepted(repository, upload)


async def finish(server: Server, request: web.Request, repository: str) -> web.StreamResponse:
    """PUT of an upload: its digest, perhaps with the last of its bytes."""
    upload = _upload(server, request, repository)
    async with server.lock(upload.id):
        _check_range(request, repository, upload)
        digest = request.query.get("digest", "")
        return await _finish(server, request, repository, upload, digest)


async def cancel(server: Server, request: web.Request, repository: str) -> web.StreamResponse:
    """DELETE of an upload."""
    upload = _upload(server, request, repository)
    async with server.lock(upload.id):
        await asyncio.to_thread(server.storage.cancel, upload)
    return web.Response(status=204)


def _upload(server: Server, request: web.Request, repository: str) -> Upload:
    return server.storage.upload(repository, request.match_info["upload"])


async def _finish(
    server: Server, request: web.Request, repository: str, upload: Upload, digest: str
) -> web.StreamResponse:
    names.digest(digest)
    await _receive(request, upload)
    await asyncio.to_thread(server.storage.finish, repository, upload, digest)
    return _created(repository, digest)


async def _receive(request: web.Request, upload: Upload) -> None:
    """Append the body. What has come of a body that is cut off stays: it can be resumed."""
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.content.iter_any():
            parts.append(part)
            size += len(part)
            if size >= _PIECE:
                piece, parts, size = b"".join(parts), [], 0
                await asyncio.to_thread(upload.append, piece)
    finally:
        if parts:
            upload.append(b"".join(parts))


def _check_range(request: web.Request, repository: str, upload: Upload) -> None:
    """See that a chunk goes on where the last one ended.

    Raises:
        RegistryError: RANGE_INVALID, with how far the upload is.
    """
    given = request.headers.get("Content-Range")
    if given is None:
        return
    match = _CONTENT_RANGE.fullmatch(given.strip())
    length = request.content_length
    if match is not None and int(match[1]) == upload.size:
        expected = int(match[2]) - int(match[1]) + 1
        if length is None or length == expected:
            return
    error = RegistryError("RANGE_INVALID", {"Content-Range": given})
    error.headers.update(_progress(repository, upload))
    raise error


def _progress(repository: str, upload: Upload) -> dict[str, str]:
    return {
        "Location": f"/v2/{repository}/blobs/uploads/{upload.id}",
        "Range": f"0-{max(upload.size - 1, 0)}",
        "Docker-Upload-UUID": upload.id,
    }


def _accepted(repository: str, upload: Upload) -> web.Response:
    return web.Response(status=202, headers=_progress(repository, upload))


def _created(repository: str, digest: str) -> web.Response:
    location = f"/v2/{repository}/blobs/{digest}"
    headers = {"Location": location, "Docker-Content-Digest": digest}
    return web.Response(status=201, headers=headers)
