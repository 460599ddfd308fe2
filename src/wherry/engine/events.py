"""What happens in the engine, told to everyone who listens.

One bus carries the events of containers, images, networks and the daemon. ``docker events`` reads
it through ``engine.api.events``, the kubelet through ``engine.cri``; publishing waits for neither.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wherry.engine.errors import BadParameter
from wherry.engine.filters import Filters
from wherry.engine.image.reference import parse

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
            if self.id:
                message["id"] = self.id
            if self.type == "container" and (source := self.attributes.get("image")):
                message["from"] = source
        message["Type"] = self.type
        message["Action"] = self.action
        message["Actor"] = {"ID": self.id, "Attributes": dict(self.attributes)}
        message["scope"] = self.scope
        message["time"] = self.time // 1_000_000_000
        message["timeNano"] = self.time
        return message


# "exec_start: sh -c …" is found as exec_start as well, "health_status: healthy" as health_status.
_WITH_DETAIL = frozenset(("health_status", "exec_create", "exec_start"))
_NAMED = ("daemon", "container", "plugin", "volume", "network", "node", "service", "secret")


def matches(event: Event, filters: Filters) -> bool:
    """Whether ``event`` is wanted, by the filters of ``docker events``.

    Ids and names may be abbreviated. ``container=x`` excludes the events of everything else;
    ``image=x`` means the events of images and of containers made from them, by id or name, with
    or without its tag.
    """
    if any(text in _WITH_DETAIL for text in filters.get("event")):
        if not filters.fuzzy("event", event.action):
            return False
    elif not filters.exact("event", event.action):
        return False
    return (
        filters.exact("type", event.type)
        and filters.exact("scope", event.scope)
        and filters.labels(event.attributes)
        and all(
            kind not in filters or filters.fuzzy(kind, event.id, event.attributes.get("name", ""))
            for kind in _NAMED
        )
        and ("image" not in filters or _of_image(event, filters))
    )


def _of_image(event: Event, filters: Filters) -> bool:
    name = event.attributes.get("name" if event.type == "image" else "image", "")
    return filters.exact("image", event.id, name, _without_tag(event.id), _without_tag(name))


def _without_tag(name: str) -> str:
    """``library/busybox:1.35`` → ``busybox``; what is no reference stays."""
    try:
        reference = parse(name)
    except BadParameter:
        return name
    return reference.familiar_name


class Subscription:
    """An endless asynchronous iterator over what is published after it was made.

    With a ``limit``, a reader that falls further behind is cut off rather than served an
    incomplete tale: the iteration ends.
    """

    def __init__(self, bus: EventBus, limit: int, wanted: Callable[[Event], bool] | None) -> None:
        self._bus = bus
        self._limit = limit
        self._wanted = wanted
        self._events: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self._closed = False

    def _put(self, event: Event) -> None:
        if self._wanted is not None and not self._wanted(event):
            return
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

    def subscribe(
        self, limit: int = 0, wanted: Callable[[Event], bool] | None = None
    ) -> Subscription:
        """Listen from now on to what is ``wanted``; close the subscription when done."""
        subscription = Subscription(self, limit, wanted)
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
