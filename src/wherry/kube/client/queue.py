"""Keys that need attention, each handled by one worker at a time.

Follows client-go's workqueue: a key added many times is handled once; a key added while it is being
handled is handled again afterwards. Failures come back after a delay that grows with each.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

from wherry.host.metrics import Gauge, Histogram, Labels, ReadCounter
from wherry.kube.api.errors import StatusError

log = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)

_BUCKETS = tuple(10.0**exponent for exponent in range(-8, 4))
WAITED = Histogram(
    "workqueue_queue_duration_seconds",
    "How long in seconds an item stays in workqueue before being requested.",
    ("name",),
    _BUCKETS,
)
WORKED = Histogram(
    "workqueue_work_duration_seconds",
    "How long in seconds processing an item from workqueue takes.",
    ("name",),
    _BUCKETS,
)
_QUEUES: WeakValueDictionary[str, WorkQueue[Any]] = WeakValueDictionary()
"""Those that are worked on, by name."""


def _all(read: Callable[[WorkQueue[Any]], float]) -> Callable[[], list[tuple[Labels, float]]]:
    return lambda: [((name,), read(queue)) for name, queue in sorted(_QUEUES.items())]


Gauge("workqueue_depth", "Current depth of workqueue", ("name",), _all(len))
Gauge(
    "workqueue_unfinished_work_seconds",
    "How many seconds of work has done that is in progress and hasn't been observed by "
    "work_duration.",
    ("name",),
    _all(lambda queue: sum(queue.under_way())),
)
Gauge(
    "workqueue_longest_running_processor_seconds",
    "How many seconds has the longest running processor for workqueue been running.",
    ("name",),
    _all(lambda queue: max(queue.under_way(), default=0)),
)
ReadCounter(
    "workqueue_adds_total",
    "Total number of adds handled by workqueue",
    ("name",),
    _all(lambda queue: queue.added),
)
ReadCounter(
    "workqueue_retries_total",
    "Total number of retries handled by workqueue",
    ("name",),
    _all(lambda queue: queue.retried),
)

FIRST_DELAY = 0.005
LONGEST_DELAY = 1000.0


class WorkQueue(Generic[Key]):
    """A queue without duplicates.

    ``get`` hands a key out; ``done`` must be called for it, whatever happened. Delays are in
    seconds. All methods belong to one event loop.
    """

    def __init__(self, *, first_delay: float = FIRST_DELAY, cap: float = LONGEST_DELAY) -> None:
        self._first_delay = first_delay
        self._cap = cap
        self._ready: deque[Key] = deque()
        self._dirty: set[Key] = set()
        self._processing: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._getters: deque[asyncio.Future[None]] = deque()
        self._since: dict[Key, float] = {}  # when what waits came, and what is handled was begun
        self.added: int = 0
        self.retried: int = 0
        self.name = ""
        """What metrics call it."""

    def __len__(self) -> int:
        """Keys that wait to be handed out now."""
        return len(self._ready)

    def add(self, key: Key) -> None:
        """Have ``key`` handled as soon as a worker is free."""
        if key in self._dirty:
            return
        self._dirty.add(key)
        self.added += 1
        if key not in self._processing:
            self._push(key)

    def add_after(self, key: Key, delay: float) -> None:
        """Have ``key`` handled in ``delay`` seconds; of several times the earliest holds."""
        if delay <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        when = loop.time() + delay
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(when, self._due, key)

    def add_rate_limited(self, key: Key) -> None:
        """Have ``key`` handled again after a failure: 5 ms, 10 ms, … 1000 s."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.retried += 1
        self.add_after(key, min(self._first_delay * 2 ** min(failures, 60), self._cap))

    def forget(self, key: Key) -> None:
        """``key`` was handled well: its next failure is its first."""
        self._failures.pop(key, None)

    def failures(self, key: Key) -> int:
        """How often ``key`` failed since it was last handled well."""
        return self._failures.get(key, 0)

    async def get(self) -> Key:
        """The next key; ``done`` must follow."""
        while not self._ready:
            getter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if not getter.cancelled():
                    self._wake()  # the call we were woken for goes to another
                elif getter in self._getters:
                    self._getters.remove(getter)
                raise
        key = self._ready.popleft()
        self._dirty.discard(key)
        self._processing.add(key)
        now = time.perf_counter()
        WAITED.observe((self.name,), now - self._since.pop(key, now))
        self._since[key] = now
        return key

    def done(self, key: Key) -> None:
        """``key`` is no longer being handled; if it was added meanwhile, it is next in line."""
        self._processing.discard(key)
        now = time.perf_counter()
        WORKED.observe((self.name,), now - self._since.pop(key, now))
        if key in self._dirty:
            self._push(key)

    def close(self) -> None:
        """Cancel all delays."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _due(self, key: Key) -> None:
        del self._timers[key]
        self.add(key)

    def under_way(self) -> list[float]:
        """For how many seconds each key that is being handled has been so."""
        now = time.perf_counter()
        return [now - self._since[key] for key in self._processing if key in self._since]

    def _push(self, key: Key) -> None:
        self._since[key] = time.perf_counter()
        self._ready.append(key)
        self._wake()

    def _wake(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return


async def work(
    queue: WorkQueue[Key],
    handle: Callable[[Key], Awaitable[None]],
    *,
    workers: int = 1,
    name: str = "",
) -> None:
    """Hand the queue's keys to ``handle``, up to ``workers`` at once, until cancelled.

    A key whose handling raises comes back after a growing delay. That an object changed or went
    meanwhile is no news: the informer will show it. Everything else is logged.
    """

    async def worker() -> None:
        while True:
            key = await queue.get()
            try:
                await handle(key)
            except StatusError as error:
                stale = error.reason in ("Conflict", "NotFound")
                level = logging.DEBUG if stale else logging.WARNING
                log.log(level, "%s: %s: %s", name, key, error)
                queue.add_rate_limited(key)
            except (ConnectionError, TimeoutError) as error:
                log.warning("%s: %s: %s", name, key, error)
                queue.add_rate_limited(key)
            except Exception:
                # A fault in the code: this key may be the only one it concerns.
                log.exception("%s: %s", name, key)
                queue.add_rate_limited(key)
            else:
                queue.forget(key)
            finally:
                queue.done(key)

    queue.name = name
    if name:
        _QUEUES[name] = queue
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(worker(), name=f"{name} worker {number}")
    finally:
        queue.close()
