"""How long to wait before trying again."""

from __future__ import annotations

import random


class Backoff:
    """Delays in seconds that double from ``first`` to ``cap``, each shortened by up to a fifth.

    The jitter keeps replicas that failed together from trying again together.
    """

    def __init__(self, first: float, cap: float) -> None:
        self.first = first
        self.cap = cap
        self._next = first

    def next(self) -> float:
        """The delay before the coming attempt, and a longer one for the attempt behind it."""
        delay = self._next
        self._next = min(delay * 2, self.cap)
        return delay * (1 - 0.2 * random.random())  # noqa: S311

    def reset(self) -> None:
        """The last attempt succeeded."""
        self._next = self.first
