"""Fetching an image: its manifest, then its layers side by side, unpacked in their order."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

from wherry.engine.errors import BadParameter, EngineError, NotFound
from wherry.engine.image import progress
from wherry.engine.image.catalog import Record
from wherry.engine.image.content import Content, Layer, Lease
from wherry.engine.image.distribution.http import Unreachable
from wherry.engine.image.distribution.registry import (
    ATTEMPTS,
    Passing,
    Registry,
    check,
    patiently,
)
from wherry.engine.image.distribution.telling import Meter, Tell, about, first, short
from wherry.engine.image.layers import add_layer
from wherry.engine.image.loading import Loaded, store_image
from wherry.engine.image.manifest import (
    DOCUMENT_LIMIT,
    INDEXES,
    Descriptor,
    Platform,
    chain_ids,
    descriptor,
    diff_ids,
    digest_of,
    host_platform,
    media_type_of,
    parse_config,
    parse_document,
    parse_manifest,
    platform_of,
)
from wherry.engine.image.reference import Reference
from wherry.engine.image.threads import in_thread

DOWNLOADS = 3  # at a time, for all pulls together; as Docker
_PIECE = 1 << 20
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"


class Transfers:
    """What the pulls of one engine share: how many downloads there may be, and who does which.

    Two pulls that want the same layer have it fetched once: the second waits for its lock, and
    then finds it.
    """

    def __init__(self) -> None:
        self.downloads = asyncio.Semaphore(DOWNLOADS)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def lock(self, chain: str) -> asyncio.Lock:
        """Held by who brings in a layer."""
        return self._locks[chain]

    def forget(self, chain: str) -> None:
        """Called by who no longer needs the lock."""
        lock = self._locks.get(chain)
        if lock is not None and not lock.locked():
            del self._locks[chain]


@dataclass(frozen=True, slots=True)
class Pulled:
    """An image whose content is in the store; ``digest`` is what the registry calls it."""

    loaded: Loaded
    digest: str


async def fetch(
    registry: Registry,
    reference: Reference,
    platform: Platform | None,
    known: Callable[[str], Record | None],
    content: Content,
    lease: Lease,
    transfers: Transfers,
    tell: Tell,
) -> Pulled:
    """Bring in what ``reference`` names in the registry; ``known`` tells of images that are here.

    Raises:
        Missing: the registry does not have it.
        NotFound: it is not there for ``platform``.
        EngineError: the registry fails, or something is not what its digest says.
    """
    data, kind, digest = await registry.manifest(reference.digest or reference.tag)
    if kind.startswith(_SCHEMA_1):
        raise EngineError(
            "[DEPRECATION NOTICE] Docker Image Format v1 and Docker Image manifest version 2, "
            f"schema 1 support has been removed. Suggest the author of {reference.familiar()} to "
            "upgrade the image to the OCI Format or Docker Image manifest v2, schema 2."
        )
    tell(progress.status(f"Pulling from {reference.path}", reference.digest or reference.tag))
    document = parse_document(data, "manifest")
    if isinstance(document, dict) and media_type_of(document) in INDEXES:
        data = await _for_platform(registry, reference, document, platform)
    config, layers = parse_manifest(data)
    tags = [reference] if reference.tag else []
    record = _held(lease, known(config.digest))
    config_data = content.read_blob(config.digest) if record else await small_blob(registry, config)
    parsed = parse_config(config_data)
    if platform is not None and not platform_of(parsed).offers(platform):
        raise NotFound(
            f"image with reference {reference.familiar()} was found but does not match the "
            f"specified platform: wanted {platform}, actual: {platform_of(parsed)}"
        )
    if record is not None:
        return Pulled(Loaded(config.digest, record, parsed, tags), digest)
    if len(diff_ids(parsed)) != len(layers):
        raise BadParameter(
            f"invalid manifest, layers length mismatch: expected {len(diff_ids(parsed))}, "
            f"got {len(layers)}"
        )
    work = _Layers(registry, content, lease, transfers, tell)
    present = await work.bring_in(layers, diff_ids(parsed))
    chain = chain_ids(diff_ids(parsed))
    packed_alike = all(lease.use_blob(layer.digest) for layer in layers)
    record = store_image(lease, config_data, chain, present, data if packed_alike else None)
    return Pulled(Loaded(config.digest, record, parsed, tags), digest)


def _held(lease: Lease, record: Record | None) -> Record | None:
    """The record of an image that is here, once all of it is sure to stay."""
    if record is None or not all(map(lease.use_blob, record.blobs)):
        return None
    return record if all(map(lease.use_layer, record.chain)) else None


async def _for_platform(
    registry: Registry,
    reference: Reference,
    index: Mapping[str, Any],
    platform: Platform | None,
) -> bytes:
    """The manifest that an index has for ``platform``, or for this machine."""
    wanted = platform or host_platform()
    for entry in index.get("manifests") or ():
        if not isinstance(entry, dict) or not platform_of(entry.get("platform") or {}).offers(
            wanted
        ):
            continue
        chosen = descriptor(entry)
        data, _, _ = await registry.manifest(chosen.digest)
        if media_type_of(parse_document(data, "manifest")) in INDEXES:
            raise EngineError(f"{reference.familiar()} is an index of indexes")
        return data
    raise NotFound(f"no matching manifest for {wanted} in the manifest list entries")


async def small_blob(registry: Registry, stated: Descriptor) -> bytes:
    """A blob that is a document, verified.

    Raises:
        EngineError: it cannot be had, or is not what its digest says.
    """
    if stated.size > DOCUMENT_LIMIT:
        raise EngineError(f"image config {stated.digest} is over {DOCUMENT_LIMIT} bytes")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            async with registry.request("GET", registry.url(f"blobs/{stated.digest}")) as answer:
                check(answer)
                data = await answer.content.read(stated.size + 1)
                while len(data) <= stated.size:
                    more = await answer.content.read(stated.size + 1 - len(data))
                    if not more:
                        break
                    data += more
        except (Unreachable, Passing):
            if attempt == ATTEMPTS:
                raise
            await patiently(attempt)
            continue
        if digest_of(data) != stated.digest:
            raise EngineError(f"image config verification failed for digest {stated.digest}")
        return data
    raise AssertionError("the last attempt returns or raises")


class _Layers:
    """The layers of one image on their way into the store."""

    def __init__(
        self,
        registry: Registry,
        content: Content,
        lease: Lease,
        transfers: Transfers,
        tell: Tell,
    ) -> None:
        self._registry = registry
        self._content = content
        self._lease = lease
        self._transfers = transfers
        self._tell = tell

    async def bring_in(self, layers: list[Descriptor], identifiers: list[str]) -> list[Layer]:
        """All of them, bottom first; the first that fails ends the others."""
        chain = chain_ids(identifiers)
        for stated, one in zip(layers, chain, strict=True):
            if not self._content.has_layer(one):
                self._tell(about("Pulling fs layer", short(stated.digest)))
        tasks: list[asyncio.Task[Layer]] = []
        try:
            async with asyncio.TaskGroup() as group:
                for index, stated in enumerate(layers):
                    below = tasks[-1] if tasks else None
                    work = self._one(stated, identifiers[index], chain, index, below)
                    tasks.append(group.create_task(work))
        except* Exception as group_error:
            raise first(group_error) from None
        return [task.result() for task in tasks]

    async def _one(
        self,
        stated: Descriptor,
        diff_id: str,
        chain: tuple[str, ...],
        index: int,
        below: asyncio.Task[Layer] | None,
    ) -> Layer:
        """One layer, unpacked when ``below`` is."""
        one = chain[index]
        lock = self._transfers.lock(one)
        if lock.locked():
            self._tell(about("Waiting", short(stated.digest)))
        try:
            async with lock:
                layer = self._lease.use_layer(one)
                if layer is not None:
                    self._tell(about("Already exists", short(stated.digest)))
                    return layer
                path = await self._download(stated)
                if below is not None:
                    await asyncio.wait([below])
                    if below.cancelled() or below.exception():
                        raise asyncio.CancelledError
                return await self._unpack(stated, diff_id, chain, index, path)
        finally:
            self._transfers.forget(one)

    async def _unpack(
        self, stated: Descriptor, diff_id: str, chain: tuple[str, ...], index: int, path: Path
    ) -> Layer:
        loop = asyncio.get_running_loop()
        lower = [self._content.diff(below) for below in reversed(chain[:index])]
        meter = Meter("Extracting", short(stated.digest), stated.size, self._tell)

        def report(done: int, _: int) -> None:
            loop.call_soon_threadsafe(meter.reached, done)

        layer = await in_thread(
            lambda: add_layer(
                self._lease,
                chain[index],
                diff_id,
                path,
                stated.digest,
                lower,
                progress=report,
                where=f" for layer {stated.digest}",
            )
        )
        self._tell(about("Pull complete", short(stated.digest)))
        return layer

    async def _download(self, stated: Descriptor) -> Path:
        """The packed layer in a scratch file, verified."""
        if self._transfers.downloads.locked():
            self._tell(about("Waiting", short(stated.digest)))
        async with self._transfers.downloads:
            with tempfile.NamedTemporaryFile(dir=self._lease.scratch, delete=False) as file:
                download = _Download(self._registry, stated, file, self._tell)
                await download.run()
        self._tell(about("Download complete", short(stated.digest)))
        return Path(file.name)


class _Download:
    """A blob on its way into ``file``; after an interruption it goes on where it was."""

    def __init__(self, registry: Registry, stated: Descriptor, file: IO[bytes], tell: Tell) -> None:
        self._registry = registry
        self._stated = stated
        self._file = file
        self._tell = tell
        self._digest = hashlib.sha256()
        self._size = 0

    async def run(self) -> None:
        """Fetch it.

        Raises:
            EngineError: it cannot be had, or is not what its digest says.
        """
        stated = self._stated
        attempt = 0
        while self._size < stated.size or not attempt:
            attempt += 1
            before = self._size
            try:
                await self._fetch()
            except (Unreachable, Passing):
                if self._size > before:
                    attempt = 1  # it goes on, only not in one piece
                if attempt >= ATTEMPTS:
                    raise
                self._tell(
                    about(
                        f"Retrying in {attempt} second{'s' * (attempt > 1)}", short(stated.digest)
                    )
                )
                await patiently(attempt)
                continue
            if self._size == before and stated.size:
                raise EngineError(f'Get "{self._url}": unexpected EOF')
        self._tell(about("Verifying Checksum", short(stated.digest)))
        if f"sha256:{self._digest.hexdigest()}" != stated.digest or self._size != stated.size:
            raise EngineError(f"filesystem layer verification failed for digest {stated.digest}")
        self._file.flush()

    @property
    def _url(self) -> str:
        return self._registry.url(f"blobs/{self._stated.digest}")

    async def _fetch(self) -> None:
        headers = {"Range": f"bytes={self._size}-"} if self._size else {}
        meter = Meter("Downloading", short(self._stated.digest), self._stated.size, self._tell)
        async with self._registry.request("GET", self._url, headers=headers) as answer:
            if answer.status == HTTPStatus.NOT_FOUND:
                raise EngineError("unknown blob")
            check(answer)
            if self._size and answer.status != HTTPStatus.PARTIAL_CONTENT:
                self._begin_again()
            parts: list[bytes] = []
            waiting = 0
            async for part in answer.content.iter_any():
                parts.append(part)
                waiting += len(part)
                if waiting >= _PIECE:
                    await in_thread(self._append, parts)
                    parts, waiting = [], 0
                    meter.reached(self._size)
            await in_thread(self._append, parts)

    def _append(self, parts: list[bytes]) -> None:
        for part in parts:
            if self._size + len(part) > self._stated.size:
                digest = self._stated.digest
                raise EngineError(f"filesystem layer verification failed for digest {digest}")
            self._digest.update(part)
            self._file.write(part)
            self._size += len(part)

    def _begin_again(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._digest, self._size = hashlib.sha256(), 0
