"""Room that clients share, so that none of them can take it from the others."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Held = TypeVar("Held", bound=Hashable)


class Shares(Generic[Held]):
    """So many places, of which no client has more than ``of_one``.

    When all are taken, the client that has most gives one to a client that has fewer: so whoever
    comes finds its fair share, and a client that is alone may still use more than that.
    """

    def __init__(self, places: int, of_one: int) -> None:
        self._places = places
        self._of_one = of_one
        self._held: dict[str, OrderedDict[Held, None]] = {}
        self._taken = 0

    def __len__(self) -> int:
        return self._taken

    def who_gives(self, client: str) -> str | None:
        """Who must give up a place before ``client`` takes one, maybe itself; None: one is free."""
        own = len(self._held.get(client, ()))
        if own >= self._of_one:
            return client
        if self._taken < self._places:
            return None
        biggest = max(self._held, key=lambda other: len(self._held[other]))
        return biggest if len(self._held[biggest]) > own else client

    def holds(self, client: str, held: Held) -> bool:
        """Whether the client has that place."""
        return held in self._held.get(client, ())

    def oldest(self, client: str) -> Held | None:
        """What the client has had for longest without ``renew``; None where it has nothing."""
        return next(iter(self._held.get(client, ())), None)

    def take(self, client: str, held: Held) -> None:
        """A place is ``held`` by the client; there must be one."""
        self._held.setdefault(client, OrderedDict())[held] = None
        self._taken += 1

    def renew(self, client: str, held: Held) -> None:
        """It counts as taken now."""
        if self.holds(client, held):
            self._held[client].move_to_end(held)

    def give(self, client: str, held: Held) -> None:
        """The place is free again; nothing happens where it is already."""
        if self.holds(client, held):
            del self._held[client][held]
            self._taken -= 1
            if not self._held[client]:
                del self._held[client]
