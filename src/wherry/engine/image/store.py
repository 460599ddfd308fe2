"""The images of this engine: finding them, bringing them in, naming them, removing them.

Promises:

- what a call that adds or names something has returned from is on the disk;
- a kill at any moment leaves each image complete or absent, and the next ``open`` sweeps the rest;
- content that an image, a container or work in progress needs is never removed;
- calls may run side by side; memory does not grow with the size of images.

Everything here runs on the event loop; files are touched in worker threads (``threads``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wherry.engine.errors import BadParameter, Conflict, NotFound
from wherry.engine.filters import Filters
from wherry.engine.image import progress, selection, views
from wherry.engine.image.adding import Addition, add_layered, add_root
from wherry.engine.image.catalog import Catalog
from wherry.engine.image.distribution.credentials import Credentials
from wherry.engine.image.distribution.endpoints import Settings
from wherry.engine.image.distribution.service import Distribution
from wherry.engine.image.image import Image
from wherry.engine.image.library import Library
from wherry.engine.image.loading import load_archive, with_loaded
from wherry.engine.image.manifest import Platform
from wherry.engine.image.progress import Message
from wherry.engine.image.reference import SHA256, Reference, normalise, parse
from wherry.engine.image.removal import Removal, Use, plan
from wherry.engine.image.saving import Saved, choose, write_archive
from wherry.engine.image.threads import ThreadReader, in_thread, stream_from

NEWEST: views.Version = (1, 50)

# Action, image id, attributes (``name`` and the labels).
Notify = Callable[[str, str, Mapping[str, str]], None]


class ImageStore:
    """All images below ``root``. Names are as users write them, ids with or without ``sha256:``.

    The engine sets ``in_use`` (the containers of an image, by image id) and ``is_running`` (whether
    a container runs, by container id), and calls ``release`` when it has removed a container.
    """

    in_use: Callable[[str], Sequence[str]]
    is_running: Callable[[str], bool]

    def __init__(self, root: Path, *, notify: Notify, registries: Settings | None = None) -> None:
        self._library = Library(root)
        self._notify = notify
        self.distribution = Distribution(self._library, registries or Settings(), self._tell)
        self.in_use = lambda image: ()
        self.is_running = lambda container: False

    async def open(self) -> None:
        """Take up what is on the disk; the rubbish of a killed predecessor is removed."""
        await self._library.open()

    # Finding

    def resolve(self, reference_or_id: str) -> Image:
        """The image of a name, of a ``name@sha256:…``, of an id, or of the beginning of an id.

        Raises:
            BadParameter: it can be none of these.
            NotFound: there is no such image.
        """
        catalog = self._library.catalog
        digits = reference_or_id.removeprefix("sha256:")
        if SHA256.fullmatch(f"sha256:{digits}"):
            found = f"sha256:{digits}"
            if found not in catalog.images:
                raise NotFound(f"No such image: {found}")
            return self._library.image(found)
        reference = parse(reference_or_id)
        identity = catalog.find(reference) or catalog.find_by_id(reference_or_id)
        if identity is None:
            raise NotFound(f"No such image: {reference.with_default_tag().familiar()}")
        return self._library.image(identity)

    def by_id(self, identity: str) -> Image:
        """The image with exactly this id; also one that was removed by force and is still in use.

        Raises:
            NotFound: it is gone.
        """
        catalog = self._library.catalog
        if identity not in catalog.images and identity not in catalog.held:
            raise NotFound(f"No such image: {identity}")
        return self._library.image(identity)

    def exists(self, identity: str) -> bool:
        """Whether there is an image with exactly this id, and not only layers held of it."""
        return identity in self._library.catalog.images

    def list(self) -> Sequence[Image]:
        """All images, in no particular order."""
        return [self._library.image(identity) for identity in self._library.catalog.images]

    def layers(self, image: Image) -> Sequence[Path]:
        """The directories for overlay's ``lowerdir``, topmost first; never empty."""
        content = self._library.content
        return [content.diff(layer) for layer in reversed(image.chain)] or [content.empty]

    def children(self, identity: str) -> Sequence[str]:
        """The images that builds and commits made from this one, directly."""
        return self._library.catalog.children_of(identity)

    # Describing

    def inspect(self, image: Image, version: views.Version = NEWEST) -> dict[str, Any]:
        """The Engine API's document on one image."""
        return views.inspect(image, version, self.layers(image) if image.chain else [])

    def history(self, image: Image) -> Sequence[Any]:
        """The Engine API's list of the steps that made the image, newest first."""
        layers = [self._library.content.layer(one) for one in image.chain]
        ancestors = [image]
        while ancestors[-1].parent in self._library.catalog.images:
            ancestors.append(self._library.image(ancestors[-1].parent))
        return views.history(image, layers, ancestors)

    async def summaries(
        self,
        filters: Filters,
        *,
        all_: bool = False,
        shared_size: bool = False,
        manifests: bool = False,
        containers: bool = False,
        version: views.Version = NEWEST,
    ) -> Sequence[dict[str, Any]]:
        """The Engine API's list of images; with ``containers`` it counts those of each image."""
        images = self.list()
        chosen = selection.listed(
            images,
            filters,
            all_=all_,
            now=time.time_ns(),
            resolve=self.resolve,
            has_children=self._parents().__contains__,
        )
        shared = self._shared_layers(images) if shared_size else frozenset()
        documents: list[dict[str, Any]] = []
        for one in chosen:
            image = one.image
            document = views.summary(
                image,
                version,
                tags=one.tags,
                digests=one.digests,
                shared_size=self._size(image, shared) if shared_size else -1,
                containers=len(self.in_use(image.id)) if containers else -1,
            )
            if manifests:
                document["Manifests"] = [await in_thread(self._manifest_summary, image)]
            documents.append(document)
        return documents

    def layers_size(self) -> int:
        """Bytes of all unpacked layers, each counted once."""
        content = self._library.content
        chains = {one for _, record in self._library.catalog.live() for one in record.chain}
        return sum(content.layer(one).size for one in chains)

    def _parents(self) -> set[str]:
        return {record.parent for record in self._library.catalog.images.values()}

    def _shared_layers(self, images: Sequence[Image]) -> frozenset[str]:
        seen: set[str] = set()
        twice: set[str] = set()
        for image in images:
            for layer in set(image.chain):
                (twice if layer in seen else seen).add(layer)
        return frozenset(twice)

    def _size(self, image: Image, among: frozenset[str]) -> int:
        content = self._library.content
        return sum(content.layer(one).size for one in image.chain if one in among)

    def _manifest_summary(self, image: Image) -> dict[str, Any]:
        from wherry.engine.image.manifest import media_type_of, parse_document, parse_manifest

        data = self._library.content.read_blob(image.manifest)
        config, layers = parse_manifest(data)
        stated = {
            "mediaType": media_type_of(parse_document(data, "manifest")),
            "digest": image.manifest,
            "size": len(data),
        }
        size = len(data) + config.size + sum(layer.size for layer in layers)
        return views.manifest_summary(image, stated, size, self.in_use(image.id))

    # Bringing in

    async def load(
        self, stream: AsyncIterator[bytes], *, quiet: bool, platform: Platform | None = None
    ) -> AsyncGenerator[Message, None]:
        """Load an archive of images (see ``archive``), all of it or nothing; yields messages.

        Raises:
            EngineError: the archive is wrong.
        """
        library = self._library
        loop = asyncio.get_running_loop()
        messages: asyncio.Queue[Message | None] = asyncio.Queue()

        def report(layer: str, done: int, total: int) -> None:
            if not quiet:
                message = progress.step("Loading layer", layer, done, total)
                loop.call_soon_threadsafe(messages.put_nowait, message)

        async with library.leased() as lease:
            reader = ThreadReader(stream)
            work = asyncio.ensure_future(
                in_thread(
                    load_archive,
                    reader,
                    library.content,
                    lease,
                    platform,
                    report,
                    abort=reader.abort,
                )
            )
            work.add_done_callback(lambda _: messages.put_nowait(None))
            try:
                while (message := await messages.get()) is not None:
                    yield message
            finally:
                if not work.done():
                    work.cancel()
                    await asyncio.wait([work])
            loaded = work.result()
            replaced, _ = await library.change(
                lambda old: with_loaded(old, loaded, time.time_ns()), lease=lease
            )
        for reference, previous in replaced:
            yield progress.stream(
                f"The image {reference.familiar()} already exists, renaming the old one with ID"
                f" {previous} to empty string\n"
            )
        for one in loaded:
            self._tell("load", one.id, one.id)
            for tag in one.tags:
                yield progress.stream(f"Loaded image: {tag.familiar()}\n")
            if not one.tags:
                yield progress.stream(f"Loaded image ID: {one.id}\n")

    async def import_(
        self,
        stream: AsyncIterator[bytes],
        *,
        reference: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        platform: Platform | None = None,
    ) -> Image:
        """Make an image of one layer from a root file system in a tar archive, packed or not.

        Raises:
            BadParameter: the reference, an instruction in ``changes``, or the archive is wrong.
        """
        target = _tag_reference(reference) if reference else None
        library = self._library
        async with library.leased() as lease:
            reader = ThreadReader(stream)
            added = await in_thread(
                add_root, lease, reader, message, changes, platform, abort=reader.abort
            )
            image = await self._add(added, target, lease)
        self._tell("import", image.id, image.id)
        return image

    async def add_layered(
        self,
        config: Mapping[str, Any],
        *,
        base: Image | None = None,
        tars: Sequence[AsyncIterator[bytes]] = (),
        parent: str = "",
        reference: str = "",
    ) -> Image:
        """Make an image of the layers of ``base`` and of one new layer for each of ``tars``.

        ``config`` is an OCI image config; its ``rootfs`` is filled in here. The same parts give
        the same image. ``parent`` is the id of the image it was made from, where it must outlive
        that (commits and builds). No event is told: the caller knows what it did.

        Raises:
            BadParameter: an archive or the reference is wrong.
        """
        target = _tag_reference(reference) if reference else None
        library = self._library
        async with library.leased() as lease:
            readers = [ThreadReader(stream) for stream in tars]

            def abort() -> None:
                for reader in readers:
                    reader.abort()

            added = await in_thread(
                add_layered,
                *(library.content, lease, config, base, readers, parent),
                abort=abort,
            )
            return await self._add(added, target, lease)

    async def _add(self, added: Addition, target: Reference | None, lease: Any) -> Image:
        now = time.time_ns()

        def decide(old: Catalog) -> tuple[Catalog, None]:
            new = old.with_image(added.id, added.record)
            return (new.with_reference(target, added.id, now) if target else new), None

        await self._library.change(decide, lease=lease)
        if target is not None:
            self._tell("tag", added.id, target.familiar())
        return self._library.image(added.id)

    async def fetch(self, reference: str, credentials: Credentials | None = None) -> Image:
        """Pull an image, saying nothing meanwhile.

        Raises:
            NotFound: the registry does not have it, or does not show it to us.
            EngineError: the registry cannot be reached, or fails.
        """
        wanted = normalise(reference)
        async for _ in self.distribution.pull(wanted, credentials or Credentials()):
            pass
        return self.resolve(str(wanted))

    # Giving out

    async def save(
        self, references: Sequence[str], platform: Platform | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The archive of ``docker save`` for the images; a repository means all of its tags.

        What is not there is found out before the iterator is returned.

        Raises:
            BadParameter: a reference is none, or there are none.
            NotFound: there is no such image, or not for ``platform``.
        """
        found = choose(self._library.catalog, references)
        saved = [Saved(self._library.image(one), tags) for one, tags in found.items()]
        for one in saved:
            check_platform(one.image, platform)
        return self._save(saved)

    async def _save(self, saved: Sequence[Saved]) -> AsyncGenerator[bytes, None]:
        library = self._library
        async with library.leased() as lease:
            for one in saved:
                record = library.catalog.images.get(one.image.id)
                if record is None or not all(lease.use_blob(blob) for blob in record.blobs):
                    raise NotFound(f"No such image: {one.image.id}")
            async for piece in stream_from(write_archive(saved, library.content)):
                yield piece
        for one in saved:
            self._tell("save", one.image.id, one.image.id)

    # Naming and removing

    async def tag(self, source: str, target: str) -> None:
        """Give the image ``source`` one more name.

        Raises:
            BadParameter: ``target`` cannot be a name.
            NotFound: there is no such image.
        """
        reference = _tag_reference(target)
        now = time.time_ns()

        def decide(old: Catalog) -> tuple[Catalog, str]:
            identity = self.resolve(source).id
            return old.with_reference(reference, identity, now), identity

        identity, _ = await self._library.change(decide)
        self._tell("tag", identity, reference.familiar())

    async def remove(
        self, reference: str, *, force: bool = False, noprune: bool = False
    ) -> Sequence[dict[str, str]]:
        """Remove a name, and the image with its last one; ``Untagged`` and ``Deleted`` records.

        Raises:
            NotFound: there is no such image.
            Conflict: something stands against it (see ``removal``).
        """

        def decide(old: Catalog) -> tuple[Catalog, Removal]:
            image = self.resolve(reference).id
            removal = plan(old, image, reference, self._uses, force=force, prune=not noprune)
            return removal.catalog, removal

        before = self._library.catalog
        labels = self.resolve(reference).labels
        removal, swept = await self._library.change(decide, sweep=True)
        records: list[dict[str, str]] = []
        for identity, name in removal.steps:
            if name is not None:
                records.append({"Untagged": name.familiar()})
                self._notify("untag", identity, {**labels, "name": identity})
                continue
            records.append({"Deleted": identity})
            chain = before.images[identity].chain if identity in before.images else ()
            records.extend({"Deleted": one} for one in reversed(chain) if one in swept)
            self._notify("delete", identity, {**labels, "name": identity})
        return records

    async def prune(self, filters: Filters) -> dict[str, Any]:
        """Remove the images that no container uses and, by default, that have no name.

        Returns ``ImagesDeleted`` (records as of ``remove``, None for none) and ``SpaceReclaimed``
        in bytes.
        """
        parents = self._parents()
        chosen = list(
            selection.prunable(
                self.list(), filters, now=time.time_ns(), has_children=parents.__contains__
            )
        )
        content = self._library.content
        sizes = {one: content.layer(one).size for image in chosen for one in image.chain}
        records: list[dict[str, str]] = []
        for image in chosen:
            if self.in_use(image.id):
                continue
            references = [*image.repo_tags, *image.repo_digests] or [image.id]
            for reference in references:
                try:
                    records += await self.remove(reference)
                except (NotFound, Conflict):
                    continue  # someone has begun to use it, or was quicker
        reclaimed = sum(sizes.get(record.get("Deleted", ""), 0) for record in records)
        self._notify("prune", "", {"reclaimed": str(reclaimed)})
        return {"ImagesDeleted": records or None, "SpaceReclaimed": reclaimed}

    async def release(self, identity: str) -> None:
        """A container of the image is gone: let go of content that was held only for it."""
        if identity not in self._library.catalog.held or self.in_use(identity):
            return
        await self._library.change(lambda old: (old.without_held(identity), None), sweep=True)

    def _uses(self, image: str) -> Sequence[Use]:
        return [Use(container, self.is_running(container)) for container in self.in_use(image)]

    def _tell(self, action: str, identity: str, name: str) -> None:
        labels = self._library.image(identity).labels
        self._notify(action, identity, {**labels, "name": name})


def check_platform(image: Image, platform: Platform | None) -> None:
    """Raise NotFound when a platform is wanted and the image is for another one."""
    if platform is not None and not image.platform.offers(platform):
        name = image.repo_tags[0] if image.repo_tags else image.id
        raise NotFound(
            f"image with reference {name} was found but does not provide the specified platform"
            f" ({platform})"
        )


def _tag_reference(text: str) -> Reference:
    """A name that an image can be given.

    Raises:
        BadParameter: it is none, or has a digest.
    """
    reference = parse(text)
    if reference.digest:
        raise BadParameter("refusing to create a tag with a digest reference")
    if reference.familiar_name == "sha256":
        raise BadParameter("refusing to create an ambiguous tag using digest algorithm as name")
    return reference.with_default_tag()
