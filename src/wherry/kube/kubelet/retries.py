"""When a pod's worker looks again, and what of it must wait until then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from wherry.kube.client.backoff import Backoff

FIRST, LONGEST = 1.0, 60.0


class Retries:
    """The times of one pod; ``wake`` is called when one has come."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._backoff = Backoff(FIRST, LONGEST)
        self._not_before: dict[str, float] = {}  # loop time of the next try of what failed
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def next(self) -> float:
        """Seconds until the next try of what goes on failing."""
        return self._backoff.next()

    def reset(self) -> None:
        """It worked."""
        self._backoff.reset()

    def soon(self) -> None:
        """The whole round failed: another one comes, later and later."""
        self.wake_after(self.next())

    def wake_after(self, delay: float) -> None:
        """Look again in ``delay`` seconds, or sooner if that was promised already."""
        loop = asyncio.get_running_loop()
        due = loop.time() + delay
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        self._due = due
        self._timer = loop.call_at(due, self._ring)

    def _ring(self) -> None:
        # The loop rings to the millisecond, which may be a moment before the time: whether a timer
        # is still to come cannot be seen from the clock, and who comes too early asks for another.
        self._timer = None
        self._wake()

    def hold(self, name: str, delay: float) -> None:
        """Making ``name`` failed: not before ``delay`` seconds, whatever wakes us meanwhile."""
        self._not_before[name] = asyncio.get_running_loop().time() + delay
        self.wake_after(delay)

    def too_early(self, name: str) -> bool:
        """Whether ``name`` must still wait."""
        early = self._not_before.get(name, 0.0) - asyncio.get_running_loop().time()
        if early > 0:
            self.wake_after(early)
        return early > 0

    def clear(self) -> None:
        """Something of the pod is new: try all at once."""
        self._not_before.clear()

    def cancel(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
