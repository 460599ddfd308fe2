"""When a pod is looked at again: no promise is lost, whatever the loop's clock does."""

from __future__ import annotations

import asyncio
import random

import pytest
import uvloop

from wherry.kube.kubelet.retries import Retries


class Timer:
    def __init__(self, due: float) -> None:
        self.due, self.cancelled = due, False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """A loop whose clock stands still until it is told."""

    def __init__(self) -> None:
        self.now = 100.0
        self.armed: list[tuple[Timer, object]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, due: float, callback: object) -> Timer:
        self.armed.append((timer := Timer(due), callback))
        return timer

    def pending(self) -> list[Timer]:
        return [timer for timer, _ in self.armed if not timer.cancelled]

    def ring(self, early: float = 0.0) -> None:
        """The next timer's time has come, or nearly."""
        live = [entry for entry in self.armed if not entry[0].cancelled]
        first = min(live, key=lambda entry: entry[0].due)
        self.armed.remove(first)
        self.now = first[0].due - early
        first[1]()  # type: ignore[operator]


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    made = Loop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: made)
    return made


def test_who_is_woken_a_moment_too_early_is_woken_again(loop: Loop) -> None:
    woken: list[float] = []
    retries = Retries(lambda: woken.append(loop.now))
    retries.hold("main", 1.0)
    loop.ring(early=0.0004)
    assert len(woken) == 1
    assert retries.too_early("main")
    loop.ring()
    assert len(woken) == 2
    assert not retries.too_early("main")


def test_the_earliest_promise_holds(loop: Loop) -> None:
    retries = Retries(lambda: None)
    retries.wake_after(5)
    retries.wake_after(9)
    assert [timer.due for timer in loop.pending()] == [105]
    retries.wake_after(2)
    assert [timer.due for timer in loop.pending()] == [102]
    retries.cancel()
    assert loop.pending() == []


def test_nobody_who_waits_in_a_real_loop_waits_for_ever() -> None:
    async def one() -> None:
        woken = asyncio.Event()
        retries = Retries(woken.set)
        retries.hold("main", random.uniform(0.02, 0.2))
        while retries.too_early("main"):
            await woken.wait()
            woken.clear()

    async def many() -> None:
        async with asyncio.timeout(30):
            await asyncio.gather(*(one() for _ in range(100)))

    uvloop.run(many())
