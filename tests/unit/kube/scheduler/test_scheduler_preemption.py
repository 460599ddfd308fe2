"""Who has to go for a more important pod, over random clusters: as few as will do, none that is as
important, none whom a budget keeps where others will do; and what was promised is kept."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_parts import IdleInformers

from wherry.kube.api.resources import POD_DISRUPTION_BUDGETS
from wherry.kube.scheduler.algorithm import Algorithm, Unfit
from wherry.kube.scheduler.config import Profile
from wherry.kube.scheduler.framework import Room
from wherry.kube.scheduler.nominations import Nominations
from wherry.kube.scheduler.snapshot import PodInfo, Snapshot

CPU = 4


def pod(name: str, cpu: int, priority: int, *, kept: bool = False) -> PodInfo:
    labels = {"kept": "yes"} if kept else {}
    metadata = {"name": name, "namespace": "default", "uid": name, "labels": labels}
    container = {"resources": {"requests": {"cpu": str(cpu)}}}
    return PodInfo(
        {
            "metadata": metadata,
            "spec": {"containers": [container], "priority": priority},
            "status": {"startTime": "2026-01-01T00:00:00Z"},
        }
    )


class Bench:
    """Nodes of four CPUs, filled with pods in the order in which they come."""

    def __init__(self, nodes: int, pods: list[tuple[int, int, bool]]) -> None:
        self.snapshot = Snapshot()
        self.nominations = Nominations()
        self.informers = IdleInformers()
        budget = {
            "metadata": {"name": "b", "namespace": "default", "uid": "b"},
            "spec": {"selector": {"matchLabels": {"kept": "yes"}}},
            "status": {"disruptionsAllowed": 0},
        }
        self.informers.informer(POD_DISRUPTION_BUDGETS).put(budget)
        self.algorithm = Algorithm(
            Profile(), None, self.snapshot, self.informers, nominations=self.nominations
        )
        for number in range(nodes):
            self.snapshot.set_node(
                {
                    "metadata": {"name": f"n{number}"},
                    "status": {"allocatable": {"cpu": str(CPU), "pods": "110"}},
                }
            )
        for number, (cpu, priority, kept) in enumerate(pods):
            self.place(pod(f"p{number}", cpu, priority, kept=kept))

    def place(self, asked: PodInfo) -> str | None:
        try:
            found, _ = self.algorithm.choose(asked)
        except Unfit:
            return None
        self.nominations.remove(asked.uid)
        self.snapshot.put(asked, found.name)
        return found.name

    def free(self, name: str, *, without: set[str] | None = None) -> int:
        """The CPUs that are left on a node, if some pods were not there."""
        there = self.snapshot.nodes[name].pods.values()
        return CPU - sum(
            p.requests["cpu"] // 1000 for p in there if p.uid not in (without or set())
        )

    def lower(self, name: str, priority: int, *, unkept: bool = False) -> set[str]:
        return {
            p.uid
            for p in self.snapshot.nodes[name].pods.values()
            if p.priority < priority and not (unkept and p.labels)
        }

    def room(self, asked: PodInfo) -> Room | None:
        """How room can be made; None where there is some."""
        try:
            self.algorithm.choose(asked)
        except Unfit as unfit:
            (plugin,) = self.algorithm.post_filters
            return plugin.post_filter(unfit.cycle, asked, unfit.diagnosis)
        return None


pods = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, 3), st.booleans()), min_size=2, max_size=12
)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3), pods, st.integers(1, CPU), st.integers(0, 4))
def test_as_few_go_as_will_do_and_none_that_matters_as_much(
    nodes: int, there: list[tuple[int, int, bool]], cpu: int, priority: int
) -> None:
    bench = Bench(nodes, there)
    room = bench.room(pod("asked", cpu, priority))
    if room is None:
        return
    names = list(bench.snapshot.nodes)
    possible = [n for n in names if bench.free(n, without=bench.lower(n, priority)) >= cpu]
    assert bool(room.node) == bool(possible)
    if not room.node:
        assert not room.victims
        return
    victims = {victim.uid for victim in room.victims}
    assert victims
    assert victims <= bench.lower(room.node, priority)
    assert bench.free(room.node, without=victims) >= cpu
    for spared in victims:
        assert bench.free(room.node, without=victims - {spared}) < cpu, "one could have stayed"
    gentle = [
        n for n in names if bench.free(n, without=bench.lower(n, priority, unkept=True)) >= cpu
    ]
    if gentle:
        assert not any(victim.labels for victim in room.victims), "the budget could be kept"


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3), pods, st.integers(1, CPU), pods, st.randoms(use_true_random=False))
def test_room_that_was_promised_is_there_whoever_comes_meanwhile(
    nodes: int,
    there: list[tuple[int, int, bool]],
    cpu: int,
    coming: list[tuple[int, int, bool]],
    chance: Any,
) -> None:
    bench = Bench(nodes, there)
    asked = pod("asked", cpu, 3)
    room = bench.room(asked)
    if room is None or not room.node:
        return
    bench.nominations.put(asked, room.node)
    leaving = [victim.uid for victim in room.victims]
    for number, (amount, priority, _) in enumerate(coming):
        if leaving and chance.random() < 0.5:
            bench.snapshot.remove(leaving.pop())
        bench.place(pod(f"c{number}", amount, min(priority, 2)))
        for name in bench.snapshot.nodes:
            assert bench.free(name) >= 0
    for uid in leaving:
        bench.snapshot.remove(uid)
    assert bench.place(asked) == room.node
