"""Every object, in memory, as of a revision; and the recent events, for those who watch.

The store is read once, at the start; from then on its watch keeps the cache true. One task follows
the whole store, so one revision holds for all resources. Reads never wait for the disk, and see
every write that was acknowledged before them: the store tells its watchers of a change before it
acknowledges it, and `Cache.reached` closes what gap is left.

Watchers share the events: each is a position in the resource's list of recent events, pulled when
there is news. A slow watcher therefore holds nothing but its position. The list is bounded; who
falls behind it, or comes with an older revision, is answered from the store's history as long as
that reaches, and told 410 Expired after that.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from bisect import bisect_left, bisect_right, insort
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)

from wherry.kube.api.errors import StatusError, expired
from wherry.kube.api.resources import Resource
from wherry.kube.apiserver.objects import Object, Stored, head_length, splice
from wherry.kube.store.types import Change, Compacted, Guard, KeyValue, Store, StoreUnavailable

log = logging.getLogger(__name__)

PREFIX = "/registry/"
_EVERYTHING = ""  # watched, so that of a shared store every revision is told, also those of others
_EVENTS = 4096  # recent events a resource keeps at least,
_EVENT_BYTES = 8 << 20  # unless their objects are larger than this in sum
_BATCH = 200  # events told at once at most,
_BATCH_BYTES = 128 * 1024  # or so large
_TRY_AGAIN = 1.0  # seconds until a store that cannot be read is read again
_CATCH_UP = 10.0  # seconds a request waits for what other servers wrote
_WAIT_FOR_REVISION = 3.0  # seconds a read waits for a revision it was promised


class Event:
    """One change of one object."""

    __slots__ = ("_removed", "current", "key", "previous", "revision")

    def __init__(
        self,
        key: str,
        revision: int,
        current: Stored | None,
        previous: Stored | None,
    ) -> None:
        self.key = key
        self.revision = revision
        self.current = current
        self.previous = previous
        self._removed: Stored | None = None

    def shown(self, type: str) -> Stored:
        """The state a watcher is shown: of an object that went (DELETED), to all or to a
        selector, the last one it knew, at this revision; otherwise the current one."""
        if type != "DELETED":
            assert self.current is not None
            return self.current
        if self._removed is None:
            assert self.previous is not None
            old = self.previous
            head = head_length(old.data)
            before = b'"resourceVersion":"%d",' % old.revision
            value = old.data[:head] + old.data[head + len(before) :]
            self._removed = Stored(self.key, self.revision, data=splice(value, self.revision))
        return self._removed


def watch_frame(type: str, data: bytes) -> bytes:
    """A line of a watch response (meta/v1 WatchEvent)."""
    return b'{"type":"%b","object":%b}\n' % (type.encode(), data)


class Write:
    """A write of ours under way. ``stored``: the object at its revision, once it came back."""

    __slots__ = ("object", "stored")

    def __init__(self, o: Object) -> None:
        self.object = o
        self.stored: Stored | None = None


def prefix_of(resource: Resource) -> str:
    """What the keys of all its objects begin with."""
    return resource.key("", "")[: -1 if resource.namespaced else None]


class ResourceCache:
    """The objects of one resource, ordered by key (``namespace/name`` or ``name``)."""

    def __init__(self, resource: Resource, store: Store) -> None:
        self.resource = resource
        self.prefix = prefix_of(resource)
        self._store = store
        self._objects: dict[str, Stored] = {}
        self._keys: list[str] = []
        self._events: list[Event] = []
        self._bytes = 0
        self._since = 0  # the events tell everything behind this revision
        self.revision = 0  # what is held is the state at this one
        self._writes: dict[bytes, Write] = {}
        self._news: set[asyncio.Event] = set()
        self._ended = False
        self._listeners: list[Callable[[Event], None]] = []

    # --- reading ----------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """How many objects there are."""
        return len(self._keys)

    def get(self, namespace: str, name: str) -> Stored | None:
        return self._objects.get(f"{namespace}/{name}" if self.resource.namespaced else name)

    def find(self, key: str) -> Stored | None:
        """By the whole key, as events have it."""
        return self._objects.get(key)

    def list(self, namespace: str = "", start: str = "") -> Sequence[Stored]:
        """Objects in order of their keys (of one namespace, or all), from key ``start`` on."""
        if not self._keys:
            return []
        low, high = self._bounds(self._keys, namespace, start)
        return [self._objects[key] for key in self._keys[low:high]]

    async def list_at(
        self, revision: int, namespace: str = "", start: str = ""
    ) -> Sequence[Stored]:
        """The same as it was at ``revision``: the present, with what came later undone. What the
        recent events do not tell is read from the store's history.

        Raises:
            Compacted: the history does not reach that far back.
        """
        undone: dict[str, Stored | None] = {}
        while revision < self._since:
            goal = self._since
            async for batch in self._replay(revision, goal):
                for event in batch:
                    undone.setdefault(event.key, event.previous)
            revision = goal
        for event in self._events[self._index(revision) :]:
            undone.setdefault(event.key, event.previous)
        if not undone:
            return self.list(namespace, start)
        objects = {**self._objects, **undone}
        keys = sorted(key for key, stored in objects.items() if stored is not None)
        low, high = self._bounds(keys, namespace, start)
        return [stored for key in keys[low:high] if (stored := objects[key]) is not None]

    def _bounds(self, keys: Sequence[str], namespace: str, start: str) -> tuple[int, int]:
        if not namespace:
            return bisect_left(keys, start), len(keys)
        return bisect_left(keys, max(start, f"{namespace}/")), bisect_left(keys, f"{namespace}0")

    def present(self, namespace: str = "") -> Sequence[Stored]:
        """As `list`; of a custom resource in whichever versions they are stored."""
        return self.list(namespace)

    async def appears(self, namespace: str, name: str) -> Stored:
        """The object, as soon as there is one."""
        news = asyncio.Event()
        self._news.add(news)
        try:
            while (found := self.get(namespace, name)) is None:
                news.clear()
                await news.wait()
            return found
        finally:
            self._news.discard(news)

    # --- being told -------------------------------------------------------------------------

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call ``listener`` with every event, before any reader can see it."""
        self._listeners.append(listener)

    @contextlib.contextmanager
    def writing(self, value: bytes, o: Object) -> Iterator[Write]:
        """While ``o``, encoded as ``value``, is being stored: spares decoding what comes back.
        ``o`` becomes the shared object, and is given its resourceVersion."""
        write = self._writes[value] = Write(o)
        try:
            yield write
        finally:
            self._writes.pop(value, None)

    def load(self, values: Iterable[KeyValue], revision: int) -> None:
        """Begin anew from what the store holds at ``revision``."""
        before = self._objects
        self._objects = {kv.key[len(self.prefix) :]: self._stored(kv) for kv in values}
        self._keys = sorted(self._objects)
        self._events = []
        self._bytes = 0
        self._since = self.revision = revision
        self._tell_differences(before)
        self.wake()

    def _tell_differences(self, before: Mapping[str, Stored]) -> None:
        """To listeners only: watchers are told each change, from the store's history."""
        if not self._listeners:
            return
        for key in before.keys() | self._objects.keys():
            was, now = before.get(key), self._objects.get(key)
            if was is None or now is None or was.revision != now.revision:
                self._tell(Event(key, self.revision, now, was))

    def _tell(self, event: Event) -> None:
        """To the listeners. The failure of one must not be that of all who read."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                log.exception("%s %s", self.resource.plural, event.key)

    def apply(self, change: Change) -> None:
        key = change.key[len(self.prefix) :]
        previous = self._objects.get(key)
        current = None if change.current is None else self._stored(change.current)
        if current is not None:
            self._objects[key] = current
            if previous is None:
                insort(self._keys, key)
        elif previous is not None:
            del self._objects[key]
            del self._keys[bisect_left(self._keys, key)]
        event = Event(key, change.revision, current, previous)
        self._append(event)
        self._tell(event)

    def end_watches(self) -> None:
        """Let everybody who watches come to an orderly end; new watches end at once."""
        self._ended = True
        self.wake()

    def wake(self) -> None:
        for news in self._news:
            news.set()

    def _append(self, event: Event) -> None:
        self._events.append(event)
        if event.current is not None:
            self._bytes += len(event.current.data)
        if len(self._events) > 2 * _EVENTS or self._bytes > 2 * _EVENT_BYTES:
            self._trim()

    def _trim(self) -> None:
        """Halve the recent events. Done seldom, as a list cannot lose its head cheaply."""
        keep = kept = 0
        for event in reversed(self._events):
            kept += len(event.current.data) if event.current else 0
            if keep >= _EVENTS or (kept > _EVENT_BYTES and keep):
                break
            keep += 1
        cut = len(self._events) - keep
        self._since = self._events[cut - 1].revision
        del self._events[:cut]
        self._bytes = sum(len(e.current.data) for e in self._events if e.current)

    def rename(self, resource: Resource) -> None:
        """Hold the same objects by other names, or for another version."""
        self.resource = resource

    def _stored(self, kv: KeyValue) -> Stored:
        value = kv.value  # of a custom resource perhaps in an older version: see extensions.views
        key, data = kv.key[len(self.prefix) :], splice(value, kv.mod_revision)
        write = self._writes.get(kv.value) if self._writes else None
        if write is None or write.stored is not None:
            return Stored(key, kv.mod_revision, data=data)
        write.object["metadata"]["resourceVersion"] = str(kv.mod_revision)
        write.stored = Stored(key, kv.mod_revision, data=data, object=write.object)
        return write.stored

    # --- watching ---------------------------------------------------------------------------

    def told(self, after: int) -> int:
        """The revision up to which knows all who was told everything up to ``after``."""
        last = self._events[-1].revision if self._events else self._since
        return max(after, self.revision) if after >= last else after

    def _index(self, revision: int) -> int:
        """Where in the list the events behind ``revision`` begin."""
        return bisect_right(self._events, revision, key=lambda event: event.revision)

    async def events(
        self, after: int, seconds: float, report_every: float | None = None
    ) -> AsyncGenerator[tuple[Sequence[Event], int], None]:
        """Every event behind revision ``after``, in batches, each with the revision up to which
        all has been told now; for so many ``seconds``.

        With ``report_every``, batches may be empty: so many seconds apart, when nothing happened.

        Raises:
            StatusError: 410, the past is not known that far back.
        """
        loop = asyncio.get_running_loop()
        news = asyncio.Event()
        self._news.add(news)
        timer: asyncio.TimerHandle | None = None
        deadline = loop.time() + seconds
        ending = loop.call_at(deadline, news.set)
        try:
            while loop.time() < deadline and not self._ended:
                news.clear()
                if after < self._since:
                    goal = self._since
                    try:
                        async for batch in self._replay(after, goal):
                            yield batch, batch[-1].revision
                    except Compacted as error:
                        raise too_old(after, error.oldest) from error
                    after = goal
                elif batch := self._batch(self._index(after)):
                    after = batch[-1].revision
                    yield batch, after
                elif timer is not None and timer.when() <= loop.time():
                    timer = None
                    after = max(after, self.revision)
                    yield [], after
                else:
                    if report_every is not None and timer is None:
                        timer = loop.call_later(report_every, news.set)
                    await news.wait()
        finally:
            self._news.discard(news)
            ending.cancel()
            if timer is not None:
                timer.cancel()

    def _batch(self, start: int) -> Sequence[Event]:
        """Some of the events from position ``start`` on: no more than a watcher that does not
        read may hold in memory."""
        events = self._events[start : start + _BATCH]
        if len(events) < 2:
            return events
        size = 0
        for i, event in enumerate(events):
            size += len(event.current.data) if event.current else 0
            if size > _BATCH_BYTES:
                return events[: i + 1]
        return events

    async def _replay(self, after: int, goal: int) -> AsyncIterator[Sequence[Event]]:
        """What happened to this resource behind ``after``, up to ``goal``, from the history.

        The whole store is asked, for the change at ``goal`` itself may be another resource's.

        Raises:
            Compacted: the history does not reach that far back.
        """
        changes: AsyncGenerator[Sequence[Change], None]
        changes = self._store.watch(_EVERYTHING, after)  # type: ignore[assignment]
        async with contextlib.aclosing(changes) as stream:
            async for batch in stream:
                events = [
                    self._past(change)
                    for change in batch
                    if change.revision <= goal and change.key.startswith(self.prefix)
                ]
                if events:
                    yield events
                if batch[-1].revision >= goal:
                    return

    def _past(self, change: Change) -> Event:
        return Event(
            change.key[len(self.prefix) :],
            change.revision,
            self._stored(change.current) if change.current else None,
            self._stored(change.previous) if change.previous else None,
        )


def unavailable(error: StoreUnavailable) -> StatusError:
    """What is answered where the store cannot do it now."""
    return StatusError(
        500,
        "InternalError",
        f"Internal error occurred: {error}",
        details={"causes": [{"message": str(error)}]},
    )


def too_old(revision: int, oldest: int) -> StatusError:
    """What a watch answers that asks for more of the past than is kept."""
    return expired(f"too old resource version: {revision} ({oldest})")


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
