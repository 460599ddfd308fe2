from __future__ import annotations

import asyncio
from typing import Any

import pytest

from wherry.kube.scheduler.config import Configuration
from wherry.kube.scheduler.framework import Change
from wherry.kube.scheduler.queue import Place, SchedulingQueue
from wherry.kube.scheduler.snapshot import PodInfo


def pod(name: str, **spec: Any) -> PodInfo:
    metadata = {"name": name, "namespace": "default", "uid": name}
    return PodInfo({"metadata": metadata, "spec": {"containers": [], **spec}})


HINTS = {
    ("Fit", Change.POD_REMOVED): lambda pod, old, new: True,
    ("Fit", Change.NODE_ADDED): lambda pod, old, new: new == "large",
    ("Broken", Change.NODE_ADDED): lambda pod, old, new: 1 / 0,
}


class Gate:
    closed = False


def made(**seconds: float) -> SchedulingQueue:
    Gate.closed = False
    return SchedulingQueue(
        Configuration(**seconds),
        lambda pod, queued: (-pod.priority, queued),
        lambda pod: "Gates" if Gate.closed else None,
        lambda pod, plugin, change: HINTS.get((plugin, change)),
    )


@pytest.fixture
async def queue():
    """Of which no time is over while a test runs."""
    queue = made(initial_backoff=600, max_backoff=600, unschedulable_timeout=600)
    yield queue
    queue.close()


@pytest.fixture
async def quick():
    """One whose back-off is soon over."""
    queue = made(initial_backoff=0.02, max_backoff=0.05, unschedulable_timeout=600)
    yield queue
    queue.close()


async def popped(queue: SchedulingQueue, seconds: float = 60.0):
    return await asyncio.wait_for(queue.pop(), seconds)


async def test_the_important_come_first_and_of_equals_the_older(queue):
    for name, priority in (("a", 0), ("b", 5), ("c", 0)):
        queue.add(pod(name, priority=priority))
    assert [(await popped(queue)).pod.uid for _ in range(3)] == ["b", "a", "c"]


async def test_only_what_may_help_wakes_a_pod(quick):
    queue = quick
    queue.add(pod("a"))
    entry = await popped(queue)
    queue.retry(entry, {"Fit"})
    await asyncio.sleep(0.03)  # back-off is over
    queue.wake(Change.NODE_LABELS, None, None)
    queue.wake(Change.NODE_ADDED, None, "small")
    assert queue.place_of("a") is Place.WAITING
    queue.wake(Change.NODE_ADDED, None, "large")
    assert queue.place_of("a") is Place.ACTIVE


async def test_a_pod_without_a_plugin_to_blame_is_woken_by_anything(queue):
    queue.add(pod("a"))
    queue.retry(await popped(queue), set())
    queue.wake(Change.NODE_LABELS, None, None)
    assert queue.place_of("a") is Place.BACKOFF


async def test_a_hint_that_fails_does_not_keep_a_pod_waiting(queue):
    queue.add(pod("a"))
    queue.retry(await popped(queue), {"Broken"})
    queue.wake(Change.NODE_ADDED, None, "small")
    assert queue.place_of("a") is Place.BACKOFF


async def test_back_off_grows_to_its_limit(quick):
    queue = quick
    queue.add(pod("a"))
    loop = asyncio.get_running_loop()
    due, waits = [], []
    for _ in range(4):
        entry = await popped(queue)
        failed = loop.time()
        queue.retry(entry, None)
        assert queue.place_of("a") is Place.BACKOFF
        due.append(queue._errors[0][0] - entry.failed)
        again = await popped(queue)
        waits.append(loop.time() - failed)
        queue.retry(again, {"Fit"})
        queue.wake(Change.POD_REMOVED, None, None)
    assert due == pytest.approx([0.02, 0.05, 0.05, 0.05])
    # (A loop may wake somebody a moment too early.)
    assert all(waited >= wait - 0.005 for waited, wait in zip(waits, due, strict=True))


async def test_back_off_is_only_for_those_who_would_take_turns_from_others():
    queue = made(initial_backoff=0.1, max_backoff=0.1, unschedulable_timeout=600)
    for name in "abc":
        queue.add(pod(name))
    a, b, c = [await popped(queue) for _ in range(3)]
    queue.retry(a, {"Fit"})
    queue.retry(b, None)
    queue.retry(c, {"Fit"}, must_wait=True)
    queue.wake(Change.POD_REMOVED, None, None)
    assert {queue.place_of(name) for name in "abc"} == {Place.BACKOFF}
    queue.add(pod("d"))
    assert [queue.pop_now().pod.uid for _ in range(2)] == ["d", "a"]
    assert queue.pop_now() is None
    assert {(await popped(queue)).pod.uid for _ in range(2)} == {"b", "c"}
    queue.close()


async def test_who_waits_for_a_turn_gets_one_that_is_woken(queue):
    queue.add(pod("a"))
    queue.retry(await popped(queue), {"Fit"})
    waiting = asyncio.ensure_future(popped(queue))  # for less than its back-off
    await asyncio.sleep(0)
    queue.wake(Change.POD_REMOVED, None, None)
    assert (await waiting).pod.uid == "a"


async def test_what_happens_while_a_pod_is_tried_is_not_missed(queue):
    queue.add(pod("a"))
    entry = await popped(queue)
    queue.wake(Change.POD_REMOVED, None, None)
    queue.retry(entry, {"Fit"})
    assert queue.place_of("a") is Place.BACKOFF
    entry = await popped(queue)
    queue.wake(Change.NODE_LABELS, None, None)
    queue.retry(entry, {"Fit"})
    assert queue.place_of("a") is Place.WAITING
    queue.wake(Change.POD_REMOVED, None, None)
    entry = await popped(queue)
    queue.update(pod("a", priority=3))
    queue.retry(entry, {"Fit"})
    assert (await popped(queue)).pod.priority == 3


async def test_of_what_happens_meanwhile_no_more_is_kept_than_is_needed(queue):
    queue.add(pod("a"))
    queue.add(pod("b"))
    entry = await popped(queue)
    for _ in range(25_000):
        queue.wake(Change.NODE_LABELS, None, None)
    assert len(queue._meanwhile) <= 10_000
    queue.retry(entry, {"Fit"})
    assert queue.place_of(entry.pod.uid) is Place.BACKOFF  # who knows what it was
    assert not queue._meanwhile


async def test_what_waits_for_very_long_is_tried_again():
    queue = made(initial_backoff=0.02, max_backoff=0.05, unschedulable_timeout=0.2)
    queue.add(pod("a"))
    queue.retry(await popped(queue), {"Fit"})
    assert (await popped(queue)).pod.uid == "a"
    queue.close()


async def test_a_change_of_the_pod_itself_has_it_tried_again(queue):
    queue.add(pod("a"))
    queue.retry(await popped(queue), {"Fit"})
    queue.update(pod("a", priority=7))
    entry = await popped(queue)
    assert entry.pod.priority == 7


async def test_a_gated_pod_is_not_tried_until_its_gate_opens(queue):
    Gate.closed = True
    queue.add(pod("a"))
    assert queue.place_of("a") is Place.WAITING
    queue.wake(Change.POD_REMOVED, None, None)
    assert queue.place_of("a") is Place.WAITING
    Gate.closed = False
    queue.update(pod("a"))
    assert queue.place_of("a") is Place.ACTIVE


async def test_a_pod_that_goes_is_forgotten_wherever_it_is(queue):
    for name in "abcd":
        queue.add(pod(name))
    a, b, c = [await popped(queue) for _ in range(3)]
    queue.retry(a, {"Fit"})
    queue.retry(b, None)
    for name in "abcd":
        queue.remove(name)
    queue.retry(c, {"Fit"})
    queue.wake(Change.POD_REMOVED, None, None)
    with pytest.raises(TimeoutError):
        await popped(queue, 0.05)
    assert len(queue) == 0
