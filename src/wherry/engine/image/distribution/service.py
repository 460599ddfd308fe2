"""Pulling and pushing as the image store offers them: every address in turn, messages as a stream.

A pull begins to tell when the registry has answered, so that what fails before that is an answer of
its own, as in Docker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any

from wherry.engine.errors import EngineError, NotFound
from wherry.engine.image import progress
from wherry.engine.image.catalog import Catalog
from wherry.engine.image.distribution.credentials import Credentials
from wherry.engine.image.distribution.endpoints import Endpoint, Settings, endpoints
from wherry.engine.image.distribution.http import Unreachable
from wherry.engine.image.distribution.pull import Transfers, fetch, small_blob
from wherry.engine.image.distribution.push import send
from wherry.engine.image.distribution.registry import Denied, Missing, NoCredentials, Registry
from wherry.engine.image.distribution.telling import Tell
from wherry.engine.image.image import Image
from wherry.engine.image.library import Library
from wherry.engine.image.loading import with_loaded
from wherry.engine.image.manifest import (
    INDEXES,
    Platform,
    media_type_of,
    parse_config,
    parse_document,
    parse_manifest,
    platform_of,
)
from wherry.engine.image.progress import Message
from wherry.engine.image.reference import Reference, parse

# How many repositories are tried for a blob that may be mounted from there.
SOURCES = 3

Work = Callable[[Registry, Tell], Awaitable[Any]]
# Action, image id, name.
Notify = Callable[[str, str, str], None]


class Distribution:
    """Moves images between the library and registries."""

    def __init__(self, library: Library, settings: Settings, notify: Notify) -> None:
        self._library = library
        self.settings = settings
        self._notify = notify
        self._transfers = Transfers()

    def pull(
        self,
        reference: Reference,
        credentials: Credentials,
        *,
        platform: Platform | None = None,
        all_tags: bool = False,
    ) -> AsyncGenerator[Message, None]:
        """Fetch an image, or with ``all_tags`` all of a repository; yields messages.

        Raises:
            NotFound: the registry does not have it, or does not show it to us.
            EngineError: the registry cannot be reached, or fails.
        """

        async def work(registry: Registry, tell: Tell) -> None:
            wanted = [reference]
            if all_tags:
                wanted = [reference.with_tag(tag) for tag in await registry.tags()]
            for one in wanted:
                await self._pull_one(registry, one, platform, tell)

        async def pulling(tell: Tell) -> None:
            try:
                await at_first_that_answers(reference, credentials, self.settings, work, tell)
            except EngineError as error:
                raise pull_refused(reference, error) from None

        return told(pulling)

    async def _pull_one(
        self, registry: Registry, reference: Reference, platform: Platform | None, tell: Tell
    ) -> None:
        library = self._library
        before = library.catalog.find(reference)
        now = time.time_ns()
        async with library.leased() as lease:
            pulled = await fetch(
                registry,
                reference,
                platform,
                library.catalog.images.get,
                library.content,
                lease,
                self._transfers,
                tell,
            )
            named = replace(reference, tag="", digest=pulled.digest)

            def decide(old: Catalog) -> tuple[Catalog, None]:
                new, _ = with_loaded(old, [pulled.loaded], now)
                return new.with_reference(named, pulled.loaded.id, now), None

            await library.change(decide, lease=lease)
        tell(progress.status(f"Digest: {pulled.digest}"))
        known = before == pulled.loaded.id
        verb = "Image is up to date for" if known else "Downloaded newer image for"
        tell(progress.status(f"Status: {verb} {reference.familiar()}"))
        self._notify("pull", pulled.loaded.id, reference.familiar())

    def push(self, reference: Reference, credentials: Credentials) -> AsyncGenerator[Message, None]:
        """Send an image, or where ``reference`` has no tag all of a repository; yields messages.

        Raises:
            EngineError: there is no such image here, we may not, or the registry fails.
        """

        async def pushing(tell: Tell) -> None:
            tell(progress.status(f"The push refers to repository [{reference.name}]"))
            images = self._tagged(reference)
            sources = self._sources(reference, images.values())

            async def work(registry: Registry, tell: Tell) -> None:
                for tag, image in images.items():
                    await self._push_one(registry, reference.with_tag(tag), image, sources, tell)

            await at_first_that_answers(
                reference,
                credentials,
                self.settings,
                work,
                tell,
                actions="pull,push",
                sources=sources,
            )

        return told(pushing)

    def _tagged(self, reference: Reference) -> dict[str, Image]:
        """The images to push, by tag."""
        catalog = self._library.catalog
        if reference.tag:
            found = catalog.tags.get(str(reference))
            if found is None:
                raise NotFound(
                    f"An image does not exist locally with the tag: {reference.familiar_name}"
                )
            return {reference.tag: self._library.image(found)}
        named = ((parse(name), image) for name, image in sorted(catalog.tags.items()))
        images = {
            one.tag: self._library.image(image)
            for one, image in named
            if one.name == reference.name
        }
        if not images:
            raise NotFound(
                f"An image does not exist locally with the tag: {reference.familiar_name}"
            )
        return images

    def _sources(self, reference: Reference, images: Iterable[Image]) -> tuple[str, ...]:
        """Repositories of the same registry that should have some of the images' layers."""
        catalog = self._library.catalog
        wanted = {layer for image in images for layer in image.chain}
        found = dict.fromkeys(
            known.path
            for known, image in ((parse(name), one) for name, one in catalog.digests.items())
            if known.domain == reference.domain
            and known.path != reference.path
            and image in catalog.images
            and wanted & set(catalog.images[image].chain)
        )
        return tuple(found)[:SOURCES]

    async def _push_one(
        self,
        registry: Registry,
        reference: Reference,
        image: Image,
        sources: tuple[str, ...],
        tell: Tell,
    ) -> None:
        library = self._library
        async with library.leased() as lease:
            record = library.catalog.images.get(image.id)
            if record is None or not all(lease.use_blob(blob) for blob in record.blobs):
                raise NotFound(f"No such image: {image.id}")
            pushed = await send(registry, image, reference.tag, library.content, sources, tell)
            named = replace(reference, tag="", digest=pushed.digest)

            def decide(old: Catalog) -> tuple[Catalog, None]:
                if image.id not in old.images:
                    return old, None
                return old.with_reference(named, image.id, time.time_ns()), None

            await library.change(decide)
        aux = {"Tag": pushed.tag, "Digest": pushed.digest, "Size": pushed.size}
        tell({"progressDetail": {}, "aux": aux})
        self._notify("push", image.id, reference.familiar())

    async def describe(self, reference: Reference, credentials: Credentials) -> dict[str, Any]:
        """What a registry has under a name, as ``GET /distribution/{name}/json`` answers.

        Raises:
            NotFound: nothing, or it does not show it to us.
            EngineError: it cannot be reached, or fails.
        """

        async def work(registry: Registry, tell: Tell) -> dict[str, Any]:
            data, kind, digest = await registry.manifest(reference.digest or reference.tag)
            document = parse_document(data, "manifest")
            if media_type_of(document) in INDEXES:
                entries = document.get("manifests") or ()
                platforms = [platform_of(one.get("platform") or {}) for one in entries]
            else:
                config, _ = parse_manifest(data)
                platforms = [platform_of(parse_config(await small_blob(registry, config)))]
            return {
                "Descriptor": {
                    "mediaType": kind or media_type_of(document),
                    "digest": digest,
                    "size": len(data),
                },
                "Platforms": [
                    {
                        "architecture": one.architecture,
                        "os": one.os,
                        **({"variant": one.variant} if one.variant else {}),
                    }
                    for one in platforms
                ],
            }

        try:
            found: dict[str, Any] = await at_first_that_answers(
                reference, credentials, self.settings, work, lambda _: None
            )
        except EngineError as error:
            raise pull_refused(reference, error) from None
        return found


async def told(work: Callable[[Tell], Awaitable[Any]]) -> AsyncGenerator[Message, None]:
    """The messages of ``work``, which ends when nobody wants them any more."""
    messages: asyncio.Queue[Message | None] = asyncio.Queue()
    task = asyncio.ensure_future(work(messages.put_nowait))
    task.add_done_callback(lambda _: messages.put_nowait(None))
    try:
        while (message := await messages.get()) is not None:
            yield message
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
    task.result()


async def at_first_that_answers(
    reference: Reference,
    credentials: Credentials,
    settings: Settings,
    work: Work,
    tell: Tell,
    *,
    actions: str = "pull",
    sources: tuple[str, ...] = (),
) -> Any:
    """Do ``work`` with the registry of ``reference``, at the first address that can do it.

    A mirror is passed over when it does not have what is wanted, or fails.

    Raises:
        EngineError: none of them can.
    """
    chosen = [
        one
        for one in endpoints(reference.domain, settings)
        if not (one.is_mirror and actions != "pull")
    ]
    failure: EngineError | None = None
    for endpoint in chosen:
        shown = Credentials() if endpoint.is_mirror else credentials
        registry = Registry(endpoint, reference.path, shown, actions=actions, sources=sources)
        try:
            async with registry:
                return await work(registry, tell)
        except Unreachable as error:
            failure = _better(failure, error, endpoint)
        except EngineError:
            if not endpoint.is_mirror:
                raise
    assert failure is not None
    raise failure


def _better(known: EngineError | None, error: Unreachable, endpoint: Endpoint) -> EngineError:
    """Which of two failures to tell: that of plain HTTP says more of a registry that has it."""
    return error if known is None or endpoint.url.startswith("http://") else known


def pull_refused(reference: Reference, error: EngineError) -> EngineError:
    """What a user is told who may not pull, or pulls what is not there."""
    match error:
        case NoCredentials():
            return EngineError(error.message)
        case Denied():
            return NotFound(
                f"pull access denied for {reference.familiar_name}, repository does not exist or "
                f"may require 'docker login': {error.message}"
            )
        case Missing():
            return NotFound(f"manifest for {reference.familiar()} not found: {error.message}")
        case _:
            return error
