"""A priority level: its seats, and the queues of those who wait for one.

Shuffle sharding: a flow may use a few of the queues only, its hand, and takes the shortest of them.
So a flow that fills its queues leaves nearly every other flow at least one that it does not share.
The queues take turns by the work they were given: each has a virtual time that its requests use
up, and the one that is furthest behind is next.

Upstream: k8s.io/apiserver/pkg/util/flowcontrol/fairqueuing, and shufflesharding.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from wherry.kube.api.errors import StatusError

_GUESS = 0.003  # seconds a request is taken to need, until it has ended
_LONGEST_WAIT = 15.0  # seconds
_RETRY = 1  # seconds after which who was refused may ask again


@dataclass(frozen=True, slots=True)
class Rules:
    """What a PriorityLevelConfiguration says. ``seats`` None: exempt; ``queues`` 0: who finds no
    seat is refused."""

    seats: int | None = None
    queues: int = 0
    hand: int = 0
    longest: int = 0


def rules(levels: Mapping[str, Mapping[str, Any]], total: int) -> dict[str, Rules]:
    """The rules of all levels, given by their specs, that share ``total`` seats."""
    shares = {name: _shares(spec) for name, spec in levels.items()}
    whole = max(sum(shares.values()), 1)
    out = {}
    for name, spec in levels.items():
        if spec.get("type") == "Exempt":
            out[name] = Rules()
            continue
        seats = max(1, -(-total * shares[name] // whole))
        response = spec["limited"].get("limitResponse") or {}
        queuing = response.get("queuing") or {}
        queues = queuing.get("queues", 64) if response.get("type") == "Queue" else 0
        out[name] = Rules(
            seats,
            queues,
            min(queuing.get("handSize", 8), queues),
            queuing.get("queueLengthLimit", 50),
        )
    return out


def _shares(spec: Mapping[str, Any]) -> int:
    if spec.get("type") == "Exempt":
        return int((spec.get("exempt") or {}).get("nominalConcurrencyShares") or 0)
    return int(spec["limited"].get("nominalConcurrencyShares", 30))


@lru_cache(4096)
def hand(flow: str, queues: int, size: int) -> tuple[int, ...]:
    """The queues that a flow may use, dealt by its name."""
    value = int.from_bytes(hashlib.sha256(flow.encode()).digest()[:8])
    cards: list[int] = []
    for dealt in range(size):
        value, card = divmod(value, queues - dealt)
        for taken in sorted(cards):
            card += card >= taken
        cards.append(card)
    return tuple(cards)


def too_many() -> StatusError:
    """429: come again later."""
    return StatusError(
        429,
        "TooManyRequests",
        "Too many requests, please try again later.",
        details={"retryAfterSeconds": _RETRY},
    )


class _Queue:
    __slots__ = ("virtual", "waiting", "width")

    def __init__(self) -> None:
        self.waiting: deque[Seats] = deque()
        self.width = 0  # seats that those who wait will take
        self.virtual = 0.0


class Seats:
    """What a request holds of its level, from `Level.enter` to `leave`."""

    __slots__ = ("_began", "_level", "_queue", "granted", "width")

    def __init__(self, level: Level, width: int) -> None:
        self.width = width
        self.granted: asyncio.Future[None] | None = None
        self._level = level
        self._queue: _Queue | None = None
        self._began = 0.0

    def wait_in(self, queue: _Queue) -> asyncio.Future[None]:
        self._queue = queue
        self.granted = asyncio.get_running_loop().create_future()
        return self.granted

    def take(self, queue: _Queue) -> None:
        """The request's turn has come."""
        assert self.granted is not None
        self._began = time.monotonic()
        queue.virtual += self.width * _GUESS
        if not self.granted.done():
            self.granted.set_result(None)

    def leave(self) -> None:
        """Make room. Done twice it does nothing."""
        width, self.width = self.width, 0
        if width:
            if self._queue is not None:  # what it took besides the guess is its flow's, too
                self._queue.virtual += width * (time.monotonic() - self._began - _GUESS)
            self._level.give_back(width)


class Level:
    """The seats and queues of one level."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.in_use = 0
        self.waiting = 0
        self.rejected = 0
        self._rules = Rules()
        self._queues: dict[int, _Queue] = {}
        self._virtual = 0.0

    def follow(self, new: Rules) -> None:
        """Go by other rules from now on; who waits keeps his place."""
        self._rules = new
        self._dispatch()

    def at_once(self, width: int) -> Seats | None:
        """Seats, if the request need not wait."""
        limit = self._rules.seats
        if limit is not None:
            width = min(width, limit)
            if self.waiting or self.in_use + width > limit:
                return None
        self.in_use += width
        return Seats(self, width)

    async def enter(self, flow: str, width: int) -> Seats:
        """Seats for a request of ``flow``, as soon as its turn has come.

        Raises:
            StatusError: 429, its queue is full, or it has waited for too long.
        """
        seats = self.at_once(width)
        if seats is not None:
            return seats
        assert self._rules.seats is not None
        queue = self._shortest(flow)
        if queue is None or len(queue.waiting) >= self._rules.longest:
            self.rejected += 1
            raise too_many()
        seats = Seats(self, min(width, self._rules.seats))
        granted = seats.wait_in(queue)
        if not queue.waiting:
            queue.virtual = max(queue.virtual, self._virtual)
        queue.waiting.append(seats)
        queue.width += seats.width
        self.waiting += 1
        try:
            async with asyncio.timeout(_LONGEST_WAIT):
                await granted
        except TimeoutError:
            self._give_up(seats, queue)
            self.rejected += 1
            raise too_many() from None
        except asyncio.CancelledError:
            self._give_up(seats, queue)
            raise
        return seats

    def give_back(self, width: int) -> None:
        self.in_use -= width
        if self.waiting:
            self._dispatch()

    def _shortest(self, flow: str) -> _Queue | None:
        if not self._rules.queues:
            return None
        dealt = hand(flow, self._rules.queues, self._rules.hand)
        return min(
            (self._queues.setdefault(card, _Queue()) for card in dealt), key=lambda q: q.width
        )

    def _dispatch(self) -> None:
        """Give free seats to those whose turn it is."""
        limit = self._rules.seats
        while self.waiting:
            queue = min(
                (q for q in self._queues.values() if q.waiting), key=lambda queue: queue.virtual
            )
            seats = queue.waiting[0]
            if limit is not None and self.in_use and self.in_use + seats.width > limit:
                return
            self._virtual = queue.virtual
            self._remove(seats, queue)
            self.in_use += seats.width
            seats.take(queue)

    def _give_up(self, seats: Seats, queue: _Queue) -> None:
        """The request will not be answered any more: out of its queue, or off its seats."""
        if seats in queue.waiting:
            self._remove(seats, queue)
        else:
            seats.leave()

    def _remove(self, seats: Seats, queue: _Queue) -> None:
        queue.waiting.remove(seats)
        queue.width -= seats.width
        self.waiting -= 1
