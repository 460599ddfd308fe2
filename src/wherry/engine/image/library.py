"""The state behind the image store: the catalog in memory and on disk, and the content it names."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from wherry.engine.image import catalog as catalogs
from wherry.engine.image.catalog import Catalog
from wherry.engine.image.content import Content, Lease, remove_tree
from wherry.engine.image.image import Image
from wherry.engine.image.manifest import parse_config
from wherry.engine.image.reference import parse
from wherry.engine.image.threads import in_thread

log = logging.getLogger(__name__)
Result = TypeVar("Result")


class Library:
    """Reads come from memory; ``change`` is the only way to make anything different."""

    def __init__(self, root: Path) -> None:
        self.content = Content(root)
        self.catalog = Catalog()
        self._file = root / "images.json"
        self._configs: dict[str, Mapping[str, Any]] = {}
        self._tags: dict[str, list[str]] = {}
        self._digests: dict[str, list[str]] = {}
        self._changing = asyncio.Lock()

    async def open(self) -> None:
        """Read the catalog, check that its content is there, sweep what it does not name."""
        self._see(await in_thread(self._open))

    def _open(self) -> Catalog:
        catalog = catalogs.read(self._file)
        self.content.open(*_content_of(catalog))
        for image, record in list(catalog.live()):
            blobs = [blob for blob in record.blobs if not self.content.has_blob(blob)]
            layers = [layer for layer in record.chain if not self.content.has_layer(layer)]
            if blobs or layers:
                log.error("image %s is lost: %s missing", image, ", ".join(blobs + layers))
                catalog = catalog.without_damaged(image)
                continue
            self._configs[image] = parse_config(self.content.read_blob(image))
        return catalog

    def image(self, identity: str) -> Image:
        """The image with this id, also one that is held for its containers only."""
        record = self.catalog.images.get(identity) or self.catalog.held[identity]
        return Image(
            id=identity,
            config=self._configs[identity],
            chain=record.chain,
            repo_tags=tuple(self._tags.get(identity, ())),
            repo_digests=tuple(self._digests.get(identity, ())),
            size=sum(self.content.layer(layer).size for layer in record.chain),
            parent=record.parent,
            manifest=record.manifests[0],
            last_tagged=record.last_tagged,
        )

    @asynccontextmanager
    async def leased(self) -> AsyncIterator[Lease]:
        """A lease on the content for a piece of work."""
        manager = self.content.lease()
        lease = await in_thread(manager.__enter__)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(in_thread, manager.__exit__, None, None, None)
            yield lease

    async def change(
        self,
        decide: Callable[[Catalog], tuple[Catalog, Result]],
        *,
        lease: Lease | None = None,
        sweep: bool = False,
    ) -> tuple[Result, list[str]]:
        """Replace the catalog by what ``decide`` makes of it, durably, once ``lease`` is on disk.

        With ``sweep`` the content that nothing needs any more goes too. Returns what ``decide``
        returned, and the chain ids of the layers swept. Once begun it is done to the end, even
        when the caller is cancelled.
        """
        return await _to_the_end(self._change(decide, lease, sweep))

    async def _change(
        self,
        decide: Callable[[Catalog], tuple[Catalog, Result]],
        lease: Lease | None,
        sweep: bool,
    ) -> tuple[Result, list[str]]:
        if lease is not None:
            await in_thread(lease.sync)
        swept: list[str] = []
        trash: list[Path] = []
        async with self._changing:
            new, result = decide(self.catalog)
            if new is not self.catalog:
                fresh = [image for image in new.images if image not in self._configs]
                for image in fresh:
                    self._configs[image] = await in_thread(self._read_config, image)
                await in_thread(catalogs.write, self._file, new)
                self._see(new)
            if sweep:
                swept, trash = await in_thread(self.content.collect, *_content_of(new))
        for directory in trash:
            await in_thread(remove_tree, directory)
        return result, swept

    def _read_config(self, image: str) -> Mapping[str, Any]:
        return parse_config(self.content.read_blob(image))

    def _see(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._tags = _by_image(catalog.tags)
        self._digests = _by_image(catalog.digests)
        for gone in set(self._configs) - set(catalog.images) - set(catalog.held):
            del self._configs[gone]


def _by_image(names: Mapping[str, str]) -> dict[str, list[str]]:
    """The short form of the names of each image, sorted."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        found.setdefault(names[name], []).append(parse(name).familiar())
    return found


def _content_of(catalog: Catalog) -> tuple[set[str], set[str]]:
    """The blobs and the layers that must stay."""
    blobs: set[str] = set()
    layers: set[str] = set()
    for _, record in catalog.live():
        blobs.update(record.blobs)
        layers.update(record.chain)
    return blobs, layers


async def _to_the_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Await ``work``; a cancelled caller waits for its end before it is let go."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        failure = None if task.cancelled() else task.exception()
        if failure is not None:
            log.error("a change of the images failed, its client has gone", exc_info=failure)
        raise
