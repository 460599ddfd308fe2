"""Every object, in memory, as of a revision.

The store is read once, at the start; from then on its watch keeps the cache true. One task follows
the whole store, so one revision holds for all resources. Reads never wait for the disk, and see
every write that was acknowledged before them: the store tells its watchers of a change before it
acknowledges it, and `Cache.reached` closes what gap is left. What is held of each resource, and
told to those who watch it, is `resource_cache`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import (
    Iterable,
    Sequence,
)

from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import Resource
from wherry.kube.apiserver.resource_cache import Event, ResourceCache, prefix_of, watch_frame
from wherry.kube.store.types import Change, Compacted, Guard, KeyValue, Store, StoreUnavailable

__all__ = ["Cache", "Event", "ResourceCache", "prefix_of", "unavailable", "watch_frame"]

log = logging.getLogger(__name__)

PREFIX = "/registry/"
_EVERYTHING = ""  # watched, so that of a shared store every revision is told, also those of others
_TRY_AGAIN = 1.0  # seconds until a store that cannot be read is read again
_CATCH_UP = 10.0  # seconds a request waits for what other servers wrote
_WAIT_FOR_REVISION = 3.0  # seconds a read waits for a revision it was promised

_TOO_LARGE = ("request is too large", "message larger than max")


def unavailable(error: StoreUnavailable) -> StatusError:
    """What is answered where the store cannot do it now, or (an etcd) not at all."""
    if any(words in str(error) for words in _TOO_LARGE):
        return StatusError(413, "RequestEntityTooLarge", "etcdserver: request is too large")
    return StatusError(
        500,
        "InternalError",
        f"Internal error occurred: {error}",
        details={"causes": [{"message": str(error)}]},
    )


class Cache:
    """All resources' caches, and the task that keeps them true.

    Args:
        store: read once, then watched.
        resources: those to hold.
    """

    def __init__(self, store: Store, resources: Iterable[Resource]) -> None:
        self._store = store
        self._by_resource: dict[Resource, ResourceCache] = {}
        self._by_prefix: dict[str, ResourceCache] = {}
        self._unclaimed: dict[str, KeyValue] = {}
        self.revision = 0
        self.hold((), resources)
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._following: asyncio.Task[None] | None = None

    def of(self, resource: Resource) -> ResourceCache:
        return self._by_resource[resource]

    def hold(self, before: Iterable[Resource], now: Iterable[Resource]) -> None:
        """Hold ``now`` instead of ``before``. What the store has of a new one is there at once;
        who watches one that goes comes to an orderly end."""
        given = {each for each in before if each.stored_as is None}
        kept = {each for each in now if each.stored_as is None}
        gone: dict[str, ResourceCache] = {}
        for resource in given - kept:
            cache = self._by_resource.pop(resource)
            gone[cache.prefix] = self._by_prefix.pop(cache.prefix)
        for resource in kept - given:
            prefix = prefix_of(resource)
            if (same := gone.pop(prefix, None)) is not None:  # its names changed, no more
                cache = same
                cache.rename(resource)
            else:
                cache = ResourceCache(resource, self._store)
                claimed = sorted(key for key in self._unclaimed if key.startswith(prefix))
                cache.load((self._unclaimed.pop(key) for key in claimed), self.revision)
            self._by_resource[resource] = self._by_prefix[prefix] = cache
        for cache in gone.values():
            cache.end_watches()

    async def open(self) -> None:
        """Read the store and begin to follow it."""
        await self._load()
        self._following = asyncio.get_running_loop().create_task(self._follow())

    @property
    def following(self) -> bool:
        """Whether the store is being watched."""
        return self._following is not None and not self._following.done()

    def end_watches(self) -> None:
        """The server is about to stop: see `ResourceCache.end_watches`."""
        for cache in self._by_resource.values():
            cache.end_watches()

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])

    def guard(self, key: str) -> Guard:
        """A guard by ``key``, which is no object's, for a write made from the present state."""
        found = self._unclaimed.get(key)
        return Guard(key, found.mod_revision if found else 0)

    async def reached(self, revision: int) -> None:
        """Wait until reads see what the store has at ``revision``."""
        if self.revision < revision:
            done = asyncio.get_running_loop().create_future()
            self._waiting.append((revision, done))
            await done

    async def catch_up(self) -> None:
        """Wait until reads see all that was acknowledged before, by whichever server.

        Raises:
            StatusError: 500, the store does not say.
        """
        if not self._store.shared:
            return
        try:
            revision = await self._store.latest()
            async with asyncio.timeout(_CATCH_UP):
                await self.reached(revision)
        except StoreUnavailable as error:
            raise unavailable(error) from error
        except TimeoutError as error:
            behind = f"the store is at revision {revision}, its watch at {self.revision}"
            raise unavailable(StoreUnavailable(behind)) from error

    async def not_older_than(self, revision: int) -> None:
        """Wait a little for a revision that a client asks for.

        Raises:
            StatusError: 504, it is further in the future than clocks of a cluster explain.
        """
        try:
            async with asyncio.timeout(_WAIT_FOR_REVISION):
                await self.reached(revision)
        except TimeoutError:
            message = f"Too large resource version: {revision}, current: {self.revision}"
            raise StatusError(
                504,
                "Timeout",
                f"Timeout: {message}",
                details={
                    "causes": [
                        {
                            "reason": "ResourceVersionTooLarge",
                            "message": "Too large resource version",
                        }
                    ],
                    "retryAfterSeconds": 1,
                },
            ) from None

    async def _load(self) -> None:
        values, revision = await self._store.range(PREFIX)
        sorted_out: dict[ResourceCache, list[KeyValue]] = {
            cache: [] for cache in self._by_resource.values()
        }
        self._unclaimed = {}
        for kv in values:
            if (cache := self._locate(kv.key)) is not None:
                sorted_out[cache].append(kv)
            else:
                self._unclaimed[kv.key] = kv
        for cache, held in sorted_out.items():
            cache.load(held, revision)
        self._advance(revision)
        # Many objects that live long: each full collection would stop the server to look at them.
        gc.collect(1)
        gc.freeze()

    async def _follow(self) -> None:
        """Apply what the store tells. Should it lose the thread (an etcd that was compacted
        meanwhile), read everything anew."""
        while True:
            try:
                async for changes in self._store.watch(_EVERYTHING, self.revision):
                    self._apply(changes)
                return  # the store was closed
            except (Compacted, StoreUnavailable) as error:
                log.warning("the store's watch broke off, reading it anew: %s", error)
                await self._load_again()
            except Exception:
                log.exception("what the store told makes no sense, reading it anew")
                await asyncio.sleep(_TRY_AGAIN)
                await self._load_again()

    async def _load_again(self) -> None:
        while True:
            try:
                return await self._load()
            except StoreUnavailable as error:
                log.warning("the store cannot be read, trying again: %s", error)
                await asyncio.sleep(_TRY_AGAIN)

    def _apply(self, changes: Sequence[Change]) -> None:
        told = set()
        for change in changes:
            cache = self._locate(change.key)
            if cache is not None:
                cache.apply(change)
                told.add(cache)
            elif not change.key.startswith(PREFIX):
                continue
            elif change.current is not None:
                self._unclaimed[change.key] = change.current
            else:
                self._unclaimed.pop(change.key, None)
        self._advance(changes[-1].revision)
        for cache in told:
            cache.wake()

    def _advance(self, revision: int) -> None:
        self.revision = revision
        for cache in self._by_resource.values():
            cache.revision = revision
        if self._waiting:
            for wanted, done in self._waiting:
                if wanted <= revision and not done.done():
                    done.set_result(None)
            self._waiting = [w for w in self._waiting if w[0] > revision and not w[1].done()]

    def _locate(self, key: str) -> ResourceCache | None:
        """The cache of a key: its prefix has one segment behind ``/registry/``, or two."""
        end = key.find("/", len(PREFIX)) + 1
        return self._by_prefix.get(key[:end]) or self._by_prefix.get(key[: key.find("/", end) + 1])
