"""Sending an image: the blobs that the registry does not have, then the manifest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote, urljoin

from wherry.engine.errors import EngineError
from wherry.engine.image import progress
from wherry.engine.image.content import Content
from wherry.engine.image.distribution.http import Unreachable
from wherry.engine.image.distribution.registry import (
    ATTEMPTS,
    Passing,
    Registry,
    check,
    complaint,
    patiently,
)
from wherry.engine.image.distribution.telling import Meter, Tell, about, first, short
from wherry.engine.image.image import Image
from wherry.engine.image.manifest import (
    Descriptor,
    diff_ids,
    media_type_of,
    parse_document,
    parse_manifest,
)
from wherry.engine.image.threads import in_thread

UPLOADS = 5  # at a time, for one image; as Docker
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Pushed:
    """What the registry calls the image now; ``size`` is the manifest's, in bytes."""

    tag: str
    digest: str
    size: int


async def send(
    registry: Registry,
    image: Image,
    tag: str,
    content: Content,
    sources: Sequence[str],
    tell: Tell,
) -> Pushed:
    """Send ``image`` as ``tag``; its blobs must stay meanwhile.

    ``sources`` are repositories of the same registry that may have some of its blobs.

    Raises:
        Denied: we may not.
        EngineError: the registry fails.
    """
    data = content.read_blob(image.manifest)
    config, layers = parse_manifest(data)
    names = [short(one) for one in diff_ids(image.config)]
    work = _Blobs(registry, content, sources, tell)
    for name in reversed(names):
        tell(about("Preparing", name))
    room = asyncio.Semaphore(UPLOADS)

    async def one(stated: Descriptor, name: str) -> None:
        async with room:
            await work.send(stated, name)

    try:
        async with asyncio.TaskGroup() as group:
            for stated, name in zip(reversed(layers), reversed(names), strict=True):
                group.create_task(one(stated, name))
    except* Exception as errors:
        raise first(errors) from None
    await work.send(config, "")
    digest = await _put_manifest(registry, data, tag)
    tell(progress.status(f"{tag}: digest: {digest} size: {len(data)}"))
    return Pushed(tag, digest, len(data))


async def _put_manifest(registry: Registry, data: bytes, tag: str) -> str:
    kind = media_type_of(parse_document(data, "manifest"))
    url = registry.url(f"manifests/{tag}")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            headers = {"Content-Type": kind}
            async with registry.request("PUT", url, headers=headers, data=data) as answer:
                if answer.status == HTTPStatus.BAD_REQUEST:
                    raise EngineError(await complaint(answer))
                check(answer)
                return str(answer.headers.get("Docker-Content-Digest", ""))
        except (Unreachable, Passing):
            if attempt == ATTEMPTS:
                raise
            await patiently(attempt)
    raise AssertionError("the last attempt returns or raises")


class _Blobs:
    """The blobs of one image on their way to the registry."""

    def __init__(
        self, registry: Registry, content: Content, sources: Sequence[str], tell: Tell
    ) -> None:
        self._registry = registry
        self._content = content
        self._sources = sources
        self._tell = tell

    async def send(self, stated: Descriptor, name: str) -> None:
        """See to it that the registry has the blob; without a ``name`` nothing is told."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                text = await self._bring_there(stated, name)
                break
            except (Unreachable, Passing):
                if attempt == ATTEMPTS:
                    raise
                if name:
                    self._tell(about(f"Retrying in {attempt} second{'s' * (attempt > 1)}", name))
                await patiently(attempt)
        if name:
            self._tell(about(text, name))

    async def _bring_there(self, stated: Descriptor, name: str) -> str:
        """By the shortest way; what to say of it."""
        if await self._registry.has_blob(stated.digest):
            return "Layer already exists"
        location = ""
        for source in self._sources:
            location = await self._begin(f"?mount={quote(stated.digest)}&from={quote(source)}")
            if not location:
                return f"Mounted from {source}"
        await self._upload(location or await self._begin(""), stated, name)
        return "Pushed"

    async def _begin(self, query: str) -> str:
        """Where the upload goes; empty where the blob was mounted."""
        url = self._registry.url(f"blobs/uploads/{query}")
        async with self._registry.request("POST", url) as answer:
            if answer.status == HTTPStatus.CREATED:
                return ""
            check(answer)
            return urljoin(str(answer.url), answer.headers.get("Location", ""))

    async def _upload(self, location: str, stated: Descriptor, name: str) -> None:
        meter = Meter("Pushing", name, stated.size, self._tell) if name else None
        separator = "&" if "?" in location else "?"
        url = f"{location}{separator}digest={quote(stated.digest, safe='')}"
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(stated.size),
        }
        body = self._read(stated, meter)
        async with self._registry.request("PUT", url, headers=headers, data=body) as answer:
            if answer.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND):
                raise EngineError(await complaint(answer))
            check(answer)

    async def _read(self, stated: Descriptor, meter: Meter | None) -> AsyncIterator[bytes]:
        with self._content.blob_path(stated.digest).open("rb", buffering=0) as file:
            done = 0
            while piece := await in_thread(file.read, _PIECE):
                yield piece
                done += len(piece)
                if meter is not None:
                    meter.reached(done)
