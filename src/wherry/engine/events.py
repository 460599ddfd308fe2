"""What happens in the engine, told to everyone who listens.

One bus carries the events of containers, images, networks and the daemon. ``docker events`` reads
it through ``engine.api.events``, the kubelet through ``engine.cri``; publishing waits for neither.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# As many as Docker keeps for `docker events --since`.
HISTORY = 256


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: ``action`` (such as "start") to ``id`` of ``type``.

    ``time`` is nanoseconds since the epoch. ``attributes`` of a container event are its labels,
    ``image`` and ``name``, and what belongs to the action.
    """

    type: str
    action: str
    id: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    time: int = 0
    scope: str = "local"

    def to_api(self) -> dict[str, Any]:
        """The message as the Engine API has it, with the fields of old clients beside the new."""
        message: dict[str, Any] = {}
        if self.type in ("container", "image"):
            message["status"] = self.action
            message["id"] = self.id
            source = self.attributes.get("image" if self.type == "container" else "")
            if source:
                message["from"] = source
        message["Type"] = self.type
        message["Action"] = self.action
        message["Actor"] = {"ID": self.id, "Attributes": dict(self.attributes)}
        message["scope"] = self.scope
        message["time"] = self.time // 1_000_000_000
        message["timeNano"] = self.time
        return message


class Subscription:
    """An endless asynchronous iterator over what is published after it was made.

    With a ``limit``, a reader that falls further behind is cut off rather than served an
    incomplete tale: the iteration ends.
    """

    def __init__(self, bus: EventBus, limit: int) -> None:
        self._bus = bus
        self._limit = limit
        self._events: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self._closed = False

    def _put(self, event: Event) -> None:
        if self._limit and len(self._events) >= self._limit:
            self.close()
            return
        self._events.append(event)
        self._arrived.set()

    def close(self) -> None:
        """Hear nothing more; what has already arrived can still be read."""
        self._bus._subscriptions.discard(self)
        self._closed = True
        self._arrived.set()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self._closed:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._events.popleft()


class EventBus:
    """Publishes to all subscriptions and remembers the last ``HISTORY`` events."""

    def __init__(self) -> None:
        self._history: deque[Event] = deque(maxlen=HISTORY)
        self._subscriptions: set[Subscription] = set()
        self._last = 0

    def publish(
        self, type: str, action: str, id: str, attributes: Mapping[str, str] | None = None
    ) -> Event:
        """Tell everyone. Times rise strictly, so that ``--since`` can name any event."""
        self._last = max(time.time_ns(), self._last + 1)
        event = Event(type, action, id, dict(attributes or {}), self._last)
        self._history.append(event)
        for subscription in tuple(self._subscriptions):
            subscription._put(event)
        return event

    def subscribe(self, limit: int = 0) -> Subscription:
        """Listen from now on; close the subscription when done."""
        subscription = Subscription(self, limit)
        self._subscriptions.add(subscription)
        return subscription

    @property
    def listeners(self) -> int:
        """How many subscriptions there are."""
        return len(self._subscriptions)

    def history(self, since: int, until: int | None = None) -> list[Event]:
        """The remembered events of ``since`` ≤ time ≤ ``until`` (nanoseconds), oldest first."""
        return [
            event
            for event in self._history
            if event.time >= since and (until is None or event.time <= until)
        ]
