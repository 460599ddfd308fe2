"""Pods that wait for a node, in three parts.

*Active* pods are tried now, in the order of the profile's QueueSort plugin. Pods that fitted
nowhere are *waiting* until something happens that may help: every plugin says which changes do, and
a hint looks at the very object that changed. A pod that is woken soon after it failed goes through
*back-off* first, so that it takes no turn from others; while no other wants one, it is tried all
the same, as upstream does from 1.33 on. Only what failed by an error waits in any case.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any

from wherry.kube.client.transport import Object
from wherry.kube.scheduler.config import Configuration
from wherry.kube.scheduler.framework import Change, Hint
from wherry.kube.scheduler.snapshot import PodInfo

log = logging.getLogger(__name__)

_MOST_KEPT = 10_000


class Place(Enum):
    """Where an entry is."""

    ACTIVE = "active"
    BACKOFF = "back-off"
    WAITING = "waiting"
    OUT = "being tried, or gone"


class Entry:
    """A pod in the queue."""

    __slots__ = (
        "attempts",
        "changed",
        "failed",
        "must_wait",
        "place",
        "pod",
        "queued",
        "rejected_by",
        "ticket",
    )

    def __init__(self, pod: PodInfo, queued: float) -> None:
        self.pod = pod
        self.queued = queued
        self.attempts = 0
        self.failed = 0.0
        self.changed = False
        """Whether the pod itself was changed while it was being tried."""
        self.must_wait = False
        """Whether back-off is to be served to its end."""
        self.rejected_by: frozenset[str] = frozenset()
        self.place = Place.OUT
        self.ticket = 0

    @property
    def blame(self) -> tuple[str, frozenset[str]]:
        """Who may say what helps: the scheduler's name, and the plugins that rejected the pod."""
        return self.pod.spec.get("schedulerName") or "", self.rejected_by


class SchedulingQueue:
    """The three parts.

    ``sort_key`` sorts the active part; ``gate`` names the plugin that keeps a pod from being tried
    at all, if one does; ``hint`` is what a plugin says of a change, or None if that cannot help.
    """

    def __init__(
        self,
        configuration: Configuration,
        sort_key: Callable[[PodInfo, float], Any],
        gate: Callable[[PodInfo], str | None],
        hint: Callable[[PodInfo, str, Change], Hint | None],
    ) -> None:
        self._configuration = configuration
        self._sort_key = sort_key
        self._gate = gate
        self._hint = hint
        self._entries: dict[str, Entry] = {}
        self._active: list[tuple[Any, int, Entry]] = []
        self._backoff: list[tuple[float, int, Entry]] = []
        self._errors: list[tuple[float, int, Entry]] = []
        """Back-off that must be served to its end."""
        self._waiting: dict[str, Entry] = {}
        self._by_blame: dict[tuple[str, frozenset[str]], dict[str, Entry]] = {}
        """Those that wait, by scheduler name and by who rejected them: a change that none of these
        plugins cares about passes all of them by at once."""
        self._trying: dict[str, int] = {}
        """Pods that were taken, the eldest first, and how much had happened by then."""
        self._happened = 0
        self._meanwhile: deque[tuple[Change, Object | None, Object | None]] = deque()
        """What has happened since the eldest of them was taken, the latest last."""
        self._tickets = itertools.count(1)
        self._some = asyncio.Event()
        self._backoff_timer: asyncio.TimerHandle | None = None
        self._timeout_timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._entries)

    def place_of(self, uid: str) -> Place | None:
        """Where the pod is, or None if the queue does not know it."""
        entry = self._entries.get(uid)
        return entry.place if entry is not None else None

    # -- coming and going

    def add(self, pod: PodInfo) -> None:
        """A pod that needs a node; one that is known already is only brought up to date."""
        entry = self._entries.get(pod.uid)
        if entry is not None:
            entry.pod = pod
            return
        entry = self._entries[pod.uid] = Entry(pod, self._loop.time())
        self._activate(entry)

    def update(self, pod: PodInfo) -> None:
        """The pod itself was changed: labels, tolerations, gates, requests. Try it again."""
        entry = self._entries.get(pod.uid)
        if entry is None:
            self.add(pod)
            return
        entry.pod = pod
        if entry.place is Place.WAITING:
            self._wake(entry)
        elif entry.place is Place.OUT:
            entry.changed = True

    def refresh(self, pod: Object) -> None:
        """Only what the scheduler does not look at has changed."""
        entry = self._entries.get(pod["metadata"]["uid"])
        if entry is not None:
            entry.pod.object = pod

    def remove(self, uid: str) -> None:
        """The pod is gone or has a node."""
        entry = self._entries.pop(uid, None)
        if entry is not None:
            self._leave(entry)
            self._tried(uid)
            entry.place = Place.OUT

    async def pop(self) -> Entry:
        """The next pod to be tried; ``retry`` or ``remove`` must follow."""
        while (entry := self.pop_now()) is None:
            self._some.clear()
            await self._some.wait()
        return entry

    def pop_now(self) -> Entry | None:
        """The next pod to be tried, if there is one."""
        while True:
            while self._active:
                _, ticket, entry = heapq.heappop(self._active)
                if entry.place is Place.ACTIVE and entry.ticket == ticket:
                    entry.place = Place.OUT
                    entry.attempts += 1
                    entry.changed = False
                    self._trying[entry.pod.uid] = self._happened
                    return entry
            if not self._backoff:
                return None
            _, ticket, entry = heapq.heappop(self._backoff)
            if entry.place is Place.BACKOFF and entry.ticket == ticket:
                self._activate(entry)

    def retry(self, entry: Entry, rejected_by: set[str] | None, *, must_wait: bool = False) -> None:
        """The pod was tried in vain: wait for what helps against ``rejected_by``.

        Without plugins to blame (None), an error was the reason, and time alone may help.
        ``must_wait`` says that it is not to be tried before its back-off is over, even if no other
        pod wants to be tried; that holds for errors in any case.
        """
        uid = entry.pod.uid
        if self._entries.get(uid) is not entry:
            return  # it went meanwhile
        entry.failed = self._loop.time()
        entry.must_wait = must_wait or rejected_by is None
        meanwhile = self._since(uid)
        self._tried(uid)
        if rejected_by is None or entry.changed:
            self._wake(entry)
            return
        self._wait(entry, rejected_by)
        if any(self._helps(entry, *each) for each in meanwhile):
            self._wake(entry)

    # -- what happens

    def wake(self, change: Change, old: Object | None, new: Object | None) -> None:
        """Something changed: try again those that it may help."""
        self._happened += 1
        if self._trying:
            self._meanwhile.append((change, old, new))
            if len(self._meanwhile) > _MOST_KEPT:
                self._have_all_tried_again()
        for (_, blamed), entries in list(self._by_blame.items()):
            first = next(iter(entries.values())).pod
            if blamed and not any(self._hint(first, plugin, change) for plugin in blamed):
                continue
            for entry in list(entries.values()):
                if self._helps(entry, change, old, new):
                    self._wake(entry)

    def close(self) -> None:
        """Cancel the timers."""
        for timer in (self._backoff_timer, self._timeout_timer):
            if timer is not None:
                timer.cancel()

    def _since(self, uid: str) -> list[tuple[Change, Object | None, Object | None]]:
        """What happened since the pod was taken to be tried."""
        count = self._happened - self._trying[uid]
        return list(itertools.islice(reversed(self._meanwhile), count))

    def _tried(self, uid: str) -> None:
        """Forget what happened before the eldest of those that are still being tried was taken."""
        if self._trying.pop(uid, None) is None:
            return
        eldest = next(iter(self._trying.values()), self._happened)
        for _ in range(len(self._meanwhile) - (self._happened - eldest)):
            self._meanwhile.popleft()

    def _have_all_tried_again(self) -> None:
        """Too much happens to keep all of it for those that are being tried."""
        self._meanwhile.clear()
        for uid in self._trying:
            self._entries[uid].changed = True
            self._trying[uid] = self._happened

    def _helps(self, entry: Entry, change: Change, old: Object | None, new: Object | None) -> bool:
        if not entry.rejected_by:
            return True
        for plugin in entry.rejected_by:
            hint = self._hint(entry.pod, plugin, change)
            if hint is None:
                continue
            try:
                if hint(entry.pod, old, new):
                    return True
            except Exception:
                # A hint only saves work; one that fails must not keep a pod waiting.
                log.exception("%s: hint for %s failed", plugin, change.value)
                return True
        return False

    # -- moving between the parts

    def _activate(self, entry: Entry) -> None:
        blocker = self._gate(entry.pod)
        if blocker is not None:
            self._wait(entry, {blocker})
            return
        entry.place = Place.ACTIVE
        entry.ticket = next(self._tickets)
        key = self._sort_key(entry.pod, entry.queued)
        heapq.heappush(self._active, (key, entry.ticket, entry))
        self._some.set()

    def _wait(self, entry: Entry, rejected_by: set[str]) -> None:
        entry.place = Place.WAITING
        self._leave(entry)
        entry.rejected_by = frozenset(rejected_by)
        self._waiting[entry.pod.uid] = entry  # the one that has waited longest is first
        self._by_blame.setdefault(entry.blame, {})[entry.pod.uid] = entry
        if self._timeout_timer is None:
            delay = self._configuration.unschedulable_timeout
            self._timeout_timer = self._loop.call_later(delay, self._time_out)

    def _leave(self, entry: Entry) -> None:
        """The entry waits no more."""
        if self._waiting.pop(entry.pod.uid, None) is None:
            return
        entries = self._by_blame[entry.blame]
        del entries[entry.pod.uid]
        if not entries:
            del self._by_blame[entry.blame]

    def _wake(self, entry: Entry) -> None:
        self._leave(entry)
        ready = entry.failed + self._backoff_of(entry) if entry.attempts else 0.0
        if ready <= self._loop.time():
            self._activate(entry)
            return
        entry.place = Place.BACKOFF
        entry.ticket = next(self._tickets)
        if entry.must_wait:
            heapq.heappush(self._errors, (ready, entry.ticket, entry))
        else:
            heapq.heappush(self._backoff, (ready, entry.ticket, entry))
            self._some.set()
        self._set_backoff_timer()

    def _backoff_of(self, entry: Entry) -> float:
        doubled: float = self._configuration.initial_backoff * 2 ** min(entry.attempts - 1, 30)
        return min(doubled, self._configuration.max_backoff)

    def _set_backoff_timer(self) -> None:
        if self._backoff_timer is not None:
            self._backoff_timer.cancel()
            self._backoff_timer = None
        first = [part[0][0] for part in (self._backoff, self._errors) if part]
        if first:
            self._backoff_timer = self._loop.call_at(min(first), self._backoff_over)

    def _backoff_over(self) -> None:
        self._backoff_timer = None
        moment = self._loop.time()
        for part in (self._backoff, self._errors):
            while part and part[0][0] <= moment + 0.001:
                _, ticket, entry = heapq.heappop(part)
                if entry.place is Place.BACKOFF and entry.ticket == ticket:
                    self._activate(entry)
        self._set_backoff_timer()

    def _time_out(self) -> None:
        """Try again what has waited for very long; look again when the next has."""
        self._timeout_timer = None
        moment, longest = self._loop.time(), self._configuration.unschedulable_timeout
        for entry in list(self._waiting.values()):
            since = max(entry.failed, entry.queued)
            if since + longest > moment:
                self._timeout_timer = self._loop.call_at(since + longest, self._time_out)
                return
            if entry.failed:
                self._wake(entry)
