"""Delays before something that failed is tried again, as the kubelet has always counted them.

As client-go's flowcontrol.Backoff: a first failure is no reason to wait; from the second on
the wait is 10 s, 20 s, … up to 5 min, counted from the failure; after twice the longest delay
without one the count begins anew. Times are seconds of any one clock, given by the caller.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

INITIAL = 10.0
LONGEST = 300.0


@dataclass(slots=True)
class _Entry:
    delay: float
    updated: float


class Backoff:
    """Delays by key."""

    def __init__(self, initial: float = INITIAL, longest: float = LONGEST) -> None:
        self._initial = min(initial, longest)
        self._longest = longest
        self._entries: dict[Hashable, _Entry] = {}

    def remaining(self, key: Hashable, failed_at: float, now: float) -> float:
        """Seconds to wait yet after the failure at ``failed_at``; 0: try now."""
        entry = self._entries.get(key)
        if entry is None or self._expired(entry, failed_at):
            return 0.0
        return max(0.0, entry.delay - (now - failed_at))

    def delay(self, key: Hashable) -> float:
        """The wait that the last failure costs, in seconds; 0 where there is none."""
        entry = self._entries.get(key)
        return 0.0 if entry is None else entry.delay

    def next(self, key: Hashable, failed_at: float, now: float) -> None:
        """It is tried again now: should it fail, the wait is longer."""
        entry = self._entries.get(key)
        if entry is None or self._expired(entry, failed_at):
            self._entries[key] = _Entry(self._initial, now)
        else:
            entry.delay = min(entry.delay * 2, self._longest)
            entry.updated = now

    def reset(self, key: Hashable) -> None:
        """Forget the key's failures."""
        self._entries.pop(key, None)

    def _expired(self, entry: _Entry, failed_at: float) -> bool:
        return failed_at - entry.updated > self._longest * 2


def go_duration(seconds: float) -> str:
    """``10s``, ``2m40s``, ``5m0s``: as Go prints a duration of whole seconds."""
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes}m{left}s"
    return f"{minutes}m{left}s" if minutes else f"{left}s"
