"""Events: what a component tells the user of an object (``kubectl describe``, ``get events``).

Recording never waits and never fails its caller; a background task writes. As upstream's
broadcaster and correlator (client-go, tools/record): equal events become one with a count; from the
tenth message of one reason about one object within ten minutes on they are combined; an object that
never stops gets a budget of 25 events at once, then one every five minutes, and what goes beyond it
is counted in the next one written. 1,000 events wait at most: while as many do, further ones are
lost, and not counted either. When the API server is away they wait for it, as with upstream about
two minutes, but asking often at first: who starts beside it is a moment early; what it refuses is
dropped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import EVENTS, Resource
from wherry.kube.client.backoff import Backoff
from wherry.kube.client.client import Client
from wherry.kube.client.transport import Object

log = logging.getLogger(__name__)

NORMAL = "Normal"
WARNING = "Warning"

_BURST = 25.0
_REFILL_SECONDS = 300.0
_SIMILAR_LIMIT = 10
_SIMILAR_SECONDS = 600.0
_REMEMBERED = 4096
_WAITING = 1000
_LONGEST_MESSAGE = 1024
_ATTEMPTS = 18
_FIRST_PAUSE, _PAUSE = 0.1, 10.0

Value = TypeVar("Value")


def reference(resource: Resource, object: Mapping[str, object], field_path: str = "") -> Object:
    """The ObjectReference to ``object``, or to the part of it at ``field_path``."""
    result: Object = {
        "kind": resource.kind,
        "apiVersion": resource.api_version,
        "name": meta.name(object),
        "uid": meta.uid(object),
    }
    if meta.namespace(object):
        result["namespace"] = meta.namespace(object)
    if meta.resource_version(object):
        result["resourceVersion"] = meta.resource_version(object)
    if field_path:
        result["fieldPath"] = field_path
    return result


class _Recent(Generic[Value]):
    """What was used last, as many as fit."""

    def __init__(self, size: int = _REMEMBERED) -> None:
        self._size = size
        self._values: OrderedDict[Hashable, Value] = OrderedDict()

    def get(self, key: Hashable) -> Value | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: Hashable, value: Value) -> Value:
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._size:
            self._values.popitem(last=False)
        return value

    def drop(self, key: Hashable) -> None:
        self._values.pop(key, None)


@dataclass(slots=True)
class _Budget:
    tokens: float
    since: float


@dataclass(slots=True)
class _Similar:
    """The messages of one reason on one object within the last ten minutes."""

    messages: set[str] = field(default_factory=set)
    last: float = 0.0


@dataclass(slots=True)
class _Written:
    """An event that is on the server, or on its way there."""

    name: str
    namespace: str
    first: str
    count: int
    stored: bool = False
    queued: _Pending | None = None


@dataclass(slots=True)
class _Pending:
    """An event to be written, with the moment it last happened."""

    key: Hashable
    written: _Written
    involved: Object
    type: str
    reason: str
    message: str
    last: str
    count: int


class EventRecorder:
    """Records events of one component.

    ``component`` is shown as the event's source (``kubelet``, ``default-scheduler``), ``host`` is
    the node it runs on, for components of a node. Start writing with ``start``; events recorded
    before are kept. ``pause`` lies between two attempts to reach the API server at most,
    in seconds.
    """

    def __init__(
        self, client: Client, component: str, host: str = "", *, pause: float = _PAUSE
    ) -> None:
        self._client = client
        self._pause = pause
        self._full = False
        self._source = {"component": component, **({"host": host} if host else {})}
        self._budgets: _Recent[_Budget] = _Recent()
        self._similar: _Recent[_Similar] = _Recent()
        self._written: _Recent[_Written] = _Recent()
        self._waiting: deque[_Pending] = deque()
        self._some = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write; calling it again changes nothing."""
        if self._task is None:
            name = f"events of {self._source['component']}"
            self._task = asyncio.get_running_loop().create_task(self._run(), name=name)

    async def stop(self) -> None:
        """Stop writing; what still waits is dropped."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def flush(self) -> None:
        """Return once everything recorded so far was written or refused."""
        await self._idle.wait()

    def event(
        self,
        resource: Resource,
        object: Mapping[str, object],
        type: str,
        reason: str,
        message: str,
        *,
        field_path: str = "",
    ) -> None:
        """Tell of ``object``: ``type`` is Normal or Warning, ``reason`` one word in CamelCase."""
        self.event_on(reference(resource, object, field_path), type, reason, message)

    def event_on(self, involved: Object, type: str, reason: str, message: str) -> None:
        """Tell of the object that ``involved``, an ObjectReference, points at."""
        if len(self._waiting) >= _WAITING:
            if not self._full:
                log.warning(
                    "too many events wait to be written; dropped from: %s: %s", reason, message
                )
            self._full = True
            return
        self._full = False
        subject = (
            involved.get("kind"),
            involved.get("namespace"),
            involved["name"],
            involved.get("uid"),
        )
        message = message[:_LONGEST_MESSAGE]
        similar = (*subject, type, reason)
        if self._too_many(similar, message):
            key: Hashable = similar
            message = f"(combined from similar events): {message}"[:_LONGEST_MESSAGE]
        else:
            key = (*similar, involved.get("fieldPath"), message)
        now = meta.now()
        written = self._written.get(key)
        if written is None:
            namespace = involved.get("namespace") or "default"
            name = f"{involved['name']}.{time.time_ns():x}"
            written = self._written.put(key, _Written(name, namespace, now, 1))
        else:
            written.count += 1
        if not self._affordable(subject):
            return
        pending = written.queued
        if pending is not None:
            pending.last, pending.message, pending.count = now, message, written.count
            return
        pending = _Pending(key, written, involved, type, reason, message, now, written.count)
        written.queued = pending
        self._waiting.append(pending)
        self._some.set()
        self._idle.clear()

    def _affordable(self, subject: Hashable) -> bool:
        now = time.monotonic()
        budget = self._budgets.get(subject)
        if budget is None:
            budget = self._budgets.put(subject, _Budget(_BURST, now))
        budget.tokens = min(_BURST, budget.tokens + (now - budget.since) / _REFILL_SECONDS)
        budget.since = now
        if budget.tokens < 1:
            return False
        budget.tokens -= 1
        return True

    def _too_many(self, identity: Hashable, message: str) -> bool:
        now = time.monotonic()
        similar = self._similar.get(identity)
        if similar is None or now - similar.last > _SIMILAR_SECONDS:
            similar = self._similar.put(identity, _Similar())
        similar.last = now
        if message in similar.messages:
            return False
        if len(similar.messages) >= _SIMILAR_LIMIT - 1:
            return True
        similar.messages.add(message)
        return False

    async def _run(self) -> None:
        while True:
            await self._some.wait()
            while self._waiting:
                pending = self._waiting.popleft()
                pending.written.queued = None
                try:
                    await self._deliver(pending)
                except (StatusError, ConnectionError, TimeoutError) as error:
                    # Events are a courtesy; the API server refuses or stays away, life goes on.
                    log.debug("event %s was not written: %s", pending.reason, error)
                    if not pending.written.stored:
                        self._written.drop(pending.key)
            self._some.clear()
            self._idle.set()

    async def _deliver(self, pending: _Pending) -> None:
        """Write; again while the API server is away. Raises what is not to be repeated."""
        backoff = Backoff(min(_FIRST_PAUSE, self._pause), self._pause)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await self._write(pending)
                return
            except (ConnectionError, TimeoutError):
                if attempt == _ATTEMPTS:
                    raise
                await asyncio.sleep(backoff.next())

    async def _write(self, pending: _Pending) -> None:
        written = pending.written
        if written.stored:
            patch = {
                "count": pending.count,
                "lastTimestamp": pending.last,
                "message": pending.message,
            }
            try:
                await self._client.patch(EVENTS, written.name, patch, written.namespace)
                return
            except StatusError as error:
                if error.code != 404:
                    raise
            # It has expired since: begin again.
            written.count, written.first, written.stored = 1, pending.last, False
            pending.count = 1
            written.name = f"{pending.involved['name']}.{time.time_ns():x}"
        await self._client.create(
            EVENTS,
            {
                "kind": "Event",
                "apiVersion": "v1",
                "metadata": {"name": written.name, "namespace": written.namespace},
                "involvedObject": pending.involved,
                "reason": pending.reason,
                "message": pending.message,
                "source": self._source,
                "firstTimestamp": written.first,
                "lastTimestamp": pending.last,
                "count": pending.count,
                "type": pending.type,
                "eventTime": None,
                "reportingComponent": self._source["component"],
                "reportingInstance": self._source.get("host", ""),
            },
        )
        written.stored = True
