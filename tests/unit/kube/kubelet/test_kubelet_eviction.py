"""The eviction manager: whom it puts off when, on a node that is made of numbers."""

import asyncio
import contextlib

import pytest

from wherry.engine.cri.types import ContainerStats
from wherry.kube.kubelet import pods as names
from wherry.kube.kubelet.config import settings
from wherry.kube.kubelet.eviction import manager
from wherry.kube.kubelet.eviction.manager import EvictionManager
from wherry.kube.kubelet.eviction.thresholds import Observation
from wherry.kube.kubelet.view import PodRuntime

GI = 1 << 30


def pod(name, **spec):
    return {
        "metadata": {"name": name, "namespace": "d", "uid": name},
        "spec": {"containers": [{"name": "main"}], **spec},
    }


class Node:
    """Memory that pods take and give back when they are cleared away."""

    def __init__(self, *, capacity=10 * GI, **taken):
        self.capacity = capacity
        self.taken = taken
        self.pods = {name: pod(name) for name in taken}
        self.evicted = []
        self.told = []
        self.relieved = 0
        self.disk = Observation(GI, GI)
        self.clears = True

    # what the manager asks of its host

    def active_pods(self):
        return [p for name, p in self.pods.items() if name not in self.evicted]

    def evict(self, pod_, reason, message, grace):
        self.evicted.append(pod_["metadata"]["name"])

    async def cleared(self, pods):
        await asyncio.sleep(0.01)
        if not self.clears:
            await asyncio.Event().wait()
        for each in pods:
            self.taken.pop(each["metadata"]["name"])

    def tell(self, pod_, type_, reason, message):
        self.told.append((reason, message))

    def tell_node(self, type_, reason, message):
        self.told.append((reason, message))

    def pressure_changed(self):
        pass

    # what it sees

    def observe(self):
        left = self.capacity - sum(self.taken.values())
        return {
            "memory.available": Observation(left, self.capacity),
            "nodefs.available": self.disk,
        }

    async def container_stats(self):
        return [
            ContainerStats(
                name,
                {names.POD_UID: name, names.CONTAINER_NAME: "main"},
                cpu_usage=0,
                memory_working_set=used,
            )
            for name, used in self.taken.items()
        ]

    async def relieve(self):
        self.relieved += 1
        self.disk = Observation(GI, GI)

    def pod(self, uid):
        return PodRuntime(uid)


def managed(node, **thresholds):
    wanted = {"evictionHard": thresholds, "evictionPressureTransitionPeriod": "0s"}

    class Storage:
        def forget(self, known):
            pass

        async def count(self, pod_, runtime):
            return manager.NOTHING, {}

    return EvictionManager(
        *(settings(wanted), node, node, Storage(), node),
        observe=node.observe,
        relieve=node.relieve,
    )


async def run(made, until):
    task = asyncio.create_task(made.run())
    try:
        async with asyncio.timeout(60):
            while not until():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.1)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(manager, "PERIOD", 0.01)
    monkeypatch.setattr(manager, "SOONER", 0.001)


async def test_nobody_goes_while_what_the_last_one_took_is_not_given_back():
    node = Node(greedy=6 * GI, modest=3 * GI)
    await run(managed(node, **{"memory.available": "2Gi"}), lambda: "greedy" not in node.taken)
    assert node.evicted == ["greedy"]
    assert ("EvictionThresholdMet", "Attempting to reclaim memory") in node.told


async def test_one_after_the_other_goes_until_there_is_enough():
    node = Node(a=4 * GI, b=3 * GI, c=2 * GI)
    await run(managed(node, **{"memory.available": "7Gi"}), lambda: len(node.evicted) == 2)
    assert node.evicted == ["a", "b"]


async def test_who_never_gives_it_back_does_not_hold_the_others_for_ever(monkeypatch):
    monkeypatch.setattr(manager, "PATIENCE", 0.02)
    node = Node(stuck=6 * GI, other=3 * GI)
    node.clears = False
    await run(managed(node, **{"memory.available": "2Gi"}), lambda: len(node.evicted) == 2)
    assert node.evicted == ["stuck", "other"]


async def test_critical_pods_stay_whatever_is_short():
    node = Node(vip=9 * GI)
    node.pods["vip"]["spec"]["priority"] = 2 * 10**9
    await run(managed(node, **{"memory.available": "2Gi"}), lambda: node.told)
    assert not node.evicted


async def test_a_disk_is_relieved_of_what_nobody_needs_before_anybody_goes():
    node = Node(writer=0)
    node.disk = Observation(0, GI)
    await run(managed(node, **{"nodefs.available": "10%"}), lambda: node.relieved)
    assert not node.evicted
    assert ("EvictionThresholdMet", "Attempting to reclaim ephemeral-storage") in node.told
