"""The objects of one resource, as of a revision, and its recent events, for those who watch.

Watchers share the events: each is a position in the list of recent events. Who waits for news and
can take it without waiting is handed it, as most are most of the time; the others pull, at their
own pace. A slow watcher therefore holds nothing but its position. The list is bounded; who falls
behind it, or comes with an older revision, is answered from the store's history as long as that
reaches, and told 410 Expired after that.
"""

from __future__ import annotations

import asyncio
import contextlib
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
from itertools import islice

from wherry.kube.api.errors import StatusError, expired
from wherry.kube.api.resources import Resource
from wherry.kube.apiserver.objects import Object, Stored, head_length, splice
from wherry.kube.store.types import Change, Compacted, KeyValue, Store

log = logging.getLogger(__name__)

_EVERYTHING = ""  # the whole store is asked: at a revision the change may be another resource's
_EVENTS = 4096  # recent events a resource keeps at least,
_EVENT_BYTES = 8 << 20  # unless their objects are larger than this in sum
_BATCH = 200  # events told at once at most,
_BATCH_BYTES = 128 * 1024  # or so large
_HANDED = 64  # watchers are handed the news before somebody else has a turn


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


class _Watcher:
    """One who watches: up to which revision they were told, and how they are told more."""

    __slots__ = ("_news", "_take", "after", "over", "report", "waits")

    def __init__(self, after: int, take: Callable[[Sequence[Event]], bool] | None) -> None:
        self.after = after
        self._take = take
        self._news = asyncio.Event()
        self.waits = False
        # Said by timers, not seen from the clock: the loop's run a moment before their time.
        self.over = False
        self.report = False  # is due, even if nothing happened

    async def news(self) -> None:
        """Wait until there is more to tell, or something else to do."""
        self._news.clear()
        self.waits = True
        await self._news.wait()

    def wake(self) -> None:
        self.waits = False
        self._news.set()

    def end(self) -> None:
        self.over = True
        self.wake()

    def ask_report(self) -> None:
        self.report = True
        self.wake()

    def hand(self, events: Sequence[Event]) -> None:
        """Tell them now, who wait; or let them look themselves, where that cannot be."""
        try:
            taken = self._take is not None and self._take(events)
        except Exception:  # it will happen to them again, where somebody hears of it
            taken = False
        if taken:
            self.after = events[-1].revision
        else:
            self.wake()


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
        self._watchers: dict[_Watcher, None] = {}
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

    def page(self, namespace: str, start: str, limit: int) -> tuple[Sequence[Stored], int]:
        """The first ``limit`` of `list`, and how many there are; at the cost of the page alone."""
        low, high = self._bounds(self._keys, namespace, start)
        keys = self._keys[low : min(high, low + limit)]
        return [self._objects[key] for key in keys], max(high - low, 0)

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
        for watcher in self._watchers:
            watcher.wake()

    def wake(self) -> None:
        """There is something new."""
        for news in self._news:
            news.set()
        if self._watchers:
            self._hand_over(iter(list(self._watchers)))

    def _hand_over(self, watchers: Iterator[_Watcher]) -> None:
        """Tell those who wait what is new: some now, the others when the loop comes round."""
        after = -1
        batch: Sequence[Event] = ()
        for watcher in (some := list(islice(watchers, _HANDED))):
            if not watcher.waits:
                continue
            if watcher.after < self._since:
                watcher.wake()
                continue
            if watcher.after != after:
                after = watcher.after
                batch = self._batch(self._index(after))
            if batch:
                watcher.hand(batch)
                if batch[-1] is not self._events[-1]:
                    watcher.wake()
        if len(some) == _HANDED:
            asyncio.get_running_loop().call_soon(self._hand_over, watchers)

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
        self,
        after: int,
        seconds: float,
        report_every: float | None = None,
        take: Callable[[Sequence[Event]], bool] | None = None,
    ) -> AsyncGenerator[tuple[Sequence[Event], int], None]:
        """Every event behind revision ``after``, in batches, each with the revision up to which
        all has been told now; for so many ``seconds``.

        With ``report_every``, batches may be empty: so many seconds apart, when nothing happened.
        With ``take``, a batch that comes while the next one is waited for is given to it instead,
        if it says that it took it.

        Raises:
            StatusError: 410, the past is not known that far back.
        """
        loop = asyncio.get_running_loop()
        watcher = _Watcher(after, take)
        self._watchers[watcher] = None
        timer: asyncio.TimerHandle | None = None
        ending = loop.call_later(seconds, watcher.end)
        try:
            while not (watcher.over or self._ended):
                if watcher.after < self._since:
                    goal = self._since
                    try:
                        async for batch in self._replay(watcher.after, goal):
                            yield batch, batch[-1].revision
                    except Compacted as error:
                        raise too_old(watcher.after, error.oldest) from error
                    watcher.after = goal
                elif batch := self._batch(self._index(watcher.after)):
                    watcher.after = batch[-1].revision
                    yield batch, watcher.after
                elif watcher.report:
                    watcher.report, timer = False, None
                    watcher.after = max(watcher.after, self.revision)
                    yield [], watcher.after
                else:
                    if report_every is not None and timer is None:
                        timer = loop.call_later(report_every, watcher.ask_report)
                    await watcher.news()
        finally:
            watcher.waits = False
            del self._watchers[watcher]
            ending.cancel()
            if timer is not None:
                timer.cancel()

    def _batch(self, start: int) -> Sequence[Event]:
        """Some of the events from position ``start`` on: no more than a watcher that does not
        read may hold in memory."""
        events = self._events[start : self._whole(start + _BATCH)]
        if len(events) < 2:
            return events
        size = 0
        for i, event in enumerate(events):
            size += len(event.current.data) if event.current else 0
            if size > _BATCH_BYTES:
                return events[: self._whole(start + i + 1) - start]
        return events

    def _whole(self, end: int) -> int:
        """Where after ``end`` a revision ends: events of one are told together, for watchers are
        told of all behind the last revision they know."""
        events = self._events
        while 0 < end < len(events) and events[end].revision == events[end - 1].revision:
            end += 1
        return end

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


def too_old(revision: int, oldest: int) -> StatusError:
    """What a watch answers that asks for more of the past than is kept."""
    return expired(f"too old resource version: {revision} ({oldest})")
