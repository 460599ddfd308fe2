from __future__ import annotations

import asyncio

from wherry.kube.api.errors import StatusError
from wherry.kube.client.queue import WorkQueue, work


async def test_a_key_added_often_is_handed_out_once():
    queue: WorkQueue[str] = WorkQueue()
    for key in "aab":
        queue.add(key)
    assert [await queue.get(), await queue.get()] == ["a", "b"]
    assert len(queue) == 0


async def test_a_key_added_while_it_is_handled_comes_again_only_afterwards():
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert await queue.get() == "a"


async def test_the_earliest_of_several_delays_holds():
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 1000)
    queue.add_after("a", 0.01)
    queue.add_after("a", 2000)
    assert await asyncio.wait_for(queue.get(), 60) == "a"
    queue.done("a")
    assert not queue._timers


async def test_failures_wait_longer_each_time_until_forgotten():
    delays = []

    class Told(WorkQueue[str]):
        def add_after(self, key: str, delay: float) -> None:
            delays.append(delay)
            super().add_after(key, delay)

    queue = Told(first_delay=0.001, cap=0.002)
    for _ in range(3):
        queue.add_rate_limited("a")
        await queue.get()
        queue.done("a")
    assert delays == [0.001, 0.002, 0.002]
    assert queue.failures("a") == 3
    queue.forget("a")
    assert queue.failures("a") == 0


async def test_a_cancelled_getter_passes_its_key_on():
    queue: WorkQueue[str] = WorkQueue()
    first = asyncio.ensure_future(queue.get())
    second = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    assert await asyncio.wait_for(second, 60) == "a"


async def test_workers_retry_what_fails_and_go_on():
    queue: WorkQueue[str] = WorkQueue(first_delay=0.001)
    seen: list[str] = []
    finished = asyncio.Event()

    async def handle(key: str) -> None:
        seen.append(key)
        if seen.count(key) == 1 and key == "conflict":
            raise StatusError(409, "Conflict", "stale")
        if seen.count(key) == 1 and key == "fault":
            raise RuntimeError("a fault")
        if seen.count("conflict") == 2 and seen.count("fault") == 2 and "good" in seen:
            finished.set()

    for key in ("conflict", "fault", "good"):
        queue.add(key)
    task = asyncio.ensure_future(work(queue, handle, workers=2))
    await asyncio.wait_for(finished.wait(), 60)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert seen.count("good") == 1


async def test_one_key_is_never_with_two_workers():
    queue: WorkQueue[str] = WorkQueue()
    inside = most = 0
    handled = 0

    async def handle(key: str) -> None:
        nonlocal inside, most, handled
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.001)
        inside -= 1
        handled += 1

    task = asyncio.ensure_future(work(queue, handle, workers=4))
    for _ in range(10):
        queue.add("a")
        await asyncio.sleep(0.0005)
    await asyncio.sleep(0.01)
    task.cancel()
    assert most == 1
    assert 1 < handled <= 10
