"""Events are news, and go after an hour: nobody deletes them, and there is no end of them.

Upstream leaves this to leases of etcd (``--event-ttl``). Here one timer waits for the oldest; an
event that was counted on meanwhile has a later place in the queue.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import NamedTuple

from wherry.kube.api.errors import StatusError
from wherry.kube.api.meta import creation_time, parse_time
from wherry.kube.apiserver.cache import Event, ResourceCache
from wherry.kube.apiserver.objects import Object, Stored
from wherry.kube.apiserver.registry.records import Changed, Records

log = logging.getLogger(__name__)

_RETRY = 60.0  # seconds until what could not be removed is tried again
_AT_ONCE = 256  # removals that share commits


class _Due(NamedTuple):
    """At ``when`` (seconds since the epoch) the object is old, if it is still at ``revision``."""

    when: float
    key: str
    revision: int


class Expiry:
    """Removes objects of one resource ``seconds`` after their last change."""

    def __init__(self, records: Records, seconds: float) -> None:
        self._records = records
        self._seconds = seconds
        self._queue: deque[_Due] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._removing: asyncio.Task[None] | None = None
        self._closed = False

    def follow(self, cache: ResourceCache) -> None:
        """Queue what there is, by its own word on its age, and whatever comes."""
        due = [
            _Due(_last_told(stored.object) + self._seconds, stored.key, stored.revision)
            for stored in cache.list()
        ]
        self._queue.extend(sorted(due))
        cache.listen(self._happened)
        self._wait()

    async def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._removing is not None:
            await asyncio.wait([self._removing])

    def _happened(self, event: Event) -> None:
        if event.current is not None:
            self._queue.append(_Due(time.time() + self._seconds, event.key, event.revision))
            self._wait()

    def _wait(self) -> None:
        if self._queue and self._timer is None and self._removing is None and not self._closed:
            delay = max(self._queue[0].when - time.time(), 0)
            self._timer = asyncio.get_running_loop().call_later(delay, self._expire)

    def _expire(self) -> None:
        self._timer = None
        old: list[Stored] = []
        while self._queue and self._queue[0].when <= time.time() and len(old) < _AT_ONCE:
            due = self._queue.popleft()
            found = self._records.cache.find(due.key)
            if found is not None and found.revision == due.revision:
                old.append(found)
        if old:
            self._removing = asyncio.get_running_loop().create_task(self._remove(old))
        else:
            self._wait()

    async def _remove(self, old: list[Stored]) -> None:
        outcomes = await asyncio.gather(
            *(self._records.delete(stored) for stored in old), return_exceptions=True
        )
        self._removing = None
        for stored, outcome in zip(old, outcomes, strict=True):
            if isinstance(outcome, StatusError):  # a full disk
                log.warning("cannot remove %s yet: %s", stored, outcome)
                again = _Due(time.time() + _RETRY, stored.key, stored.revision)
                self._queue.appendleft(again)
            elif isinstance(outcome, BaseException) and not isinstance(outcome, Changed):
                raise outcome
        self._wait()


def _last_told(o: Object) -> float:
    """When the event last happened, in seconds since the epoch."""
    times = (
        o.get("lastTimestamp"),
        o.get("series", {}).get("lastObservedTime"),
        o.get("eventTime"),
    )
    told = [parse_time(text).timestamp() for text in times if text]
    created = creation_time(o)
    if created is not None:
        told.append(created.timestamp())
    return max(told, default=0.0)
