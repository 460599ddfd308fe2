"""Whatever happens, no pod waits that fits: a change that helps wakes it. And none that is placed
was placed against the rules."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_parts import HandFed, IdleInformers

from wherry.kube.api.resources import NODES, PODS
from wherry.kube.client.transport import Object
from wherry.kube.scheduler.algorithm import Algorithm, Unfit
from wherry.kube.scheduler.config import Configuration, Profile
from wherry.kube.scheduler.following import Following
from wherry.kube.scheduler.nominations import Nominations
from wherry.kube.scheduler.queue import Place, SchedulingQueue
from wherry.kube.scheduler.snapshot import PodInfo, Snapshot

ZONE, HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def node(name: str, zone: str, cpu: int, gpus: int, taint: bool, cordoned: bool) -> Object:
    room = {"cpu": str(cpu), "x.io/gpu": str(gpus), "memory": "8Gi", "pods": "5"}
    taints = [{"key": "t", "effect": "NoSchedule"}] if taint else []
    if cordoned:
        taints.append({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"})
    return {
        "metadata": {"name": name, "labels": {ZONE: zone, HOST: name}},
        "spec": {"taints": taints, "unschedulable": cordoned},
        "status": {"allocatable": room},
    }


def pod(name: str, app: str, rule: str, other: str, key: str, requests: dict[str, str]) -> Object:
    container: dict[str, Any] = {"name": "c", "resources": {"requests": requests}}
    spec: dict[str, Any] = {"containers": [container]}
    selector = {"matchLabels": {"app": other}}
    term = {REQUIRED: [{"topologyKey": key, "labelSelector": selector}]}
    match rule:
        case "near":
            spec["affinity"] = {"podAffinity": term}
        case "apart":
            spec["affinity"] = {"podAntiAffinity": term}
        case "spread":
            constraint = {"maxSkew": 1, "topologyKey": key, "labelSelector": selector}
            spec["topologySpreadConstraints"] = [
                {**constraint, "whenUnsatisfiable": "DoNotSchedule"}
            ]
        case "port":
            container["ports"] = [{"containerPort": 80, "hostPort": 80}]
        case "tolerant":
            spec["tolerations"] = [{"key": "t", "operator": "Exists"}]
        case "zone":
            spec["nodeSelector"] = {ZONE: "z1"}
    metadata = {"name": name, "namespace": "default", "uid": name, "labels": {"app": app}}
    return {"metadata": metadata, "spec": spec, "status": {}}


class Bench:
    """What follows the cluster, the queue and the algorithm; binding succeeds at once."""

    def __init__(self) -> None:
        self._versions = itertools.count(1)
        self.informers = IdleInformers()
        self.nodes, self.pods = self.informers.informer(NODES), self.informers.informer(PODS)
        self.snapshot = Snapshot()
        self.queue: SchedulingQueue
        nominations = Nominations()
        self.algorithm = Algorithm(
            Profile(),
            None,
            self.snapshot,
            self.informers,
            nominations=nominations,
            wake=lambda *change: self.queue.wake(*change),
        )
        hints = {plugin.name: plugin.helped_by() for plugin in self.algorithm.plugins}
        self.queue = SchedulingQueue(
            Configuration(),
            self.algorithm.sort.key,
            lambda pod: None,
            lambda pod, plugin, change: hints[plugin].get(change),
        )
        following = Following(self.snapshot, self.queue, nominations, lambda pod: True)
        following.follow(self.nodes, self.pods)

    def put(self, informer: HandFed, found: Object) -> None:
        """It is there, or has changed."""
        metadata = {**found["metadata"], "resourceVersion": str(next(self._versions))}
        informer.put({**found, "metadata": metadata})

    def settle(self) -> None:
        """Try all that want to be tried."""
        while (entry := self.queue.pop_now()) is not None:
            try:
                chosen, _ = self.algorithm.choose(entry.pod)
            except Unfit as unfit:
                self.queue.retry(entry, set(unfit.diagnosis.rejected_by))
                continue
            self.is_allowed(entry.pod, chosen.name)
            self.snapshot.put(entry.pod, chosen.name)
            bound = entry.pod.object
            self.put(self.pods, {**bound, "spec": {**bound["spec"], "nodeName": chosen.name}})

    def is_allowed(self, pod: PodInfo, where: str) -> None:
        chosen = self.snapshot.nodes[where]
        there = list(chosen.pods.values())
        assert not chosen.unschedulable
        assert len(there) < 5
        for name, amount in pod.requests.items():
            used = sum(other.requests.get(name, 0) for other in there)
            assert not amount or used + amount <= chosen.allocatable[name]
        ports = Counter(port for other in (*there, pod) for port in other.ports)
        assert max(ports.values(), default=0) <= 1
        tolerations = pod.spec.get("tolerations")
        assert tolerations or not chosen.taints

    def nobody_waits_who_fits(self) -> None:
        for each in self.pods.list():
            if self.queue.place_of(each["metadata"]["uid"]) is not Place.WAITING:
                continue
            try:
                found, _ = self.algorithm.choose(PodInfo(each))
            except Unfit:
                continue
            raise AssertionError(f"{each} waits, and fits on {found.name}")


apps = st.sampled_from("abc")
requests = st.sampled_from([{}, {"cpu": "1"}, {"cpu": "3"}, {"x.io/gpu": "1"}])
rules = st.sampled_from(["", "near", "apart", "spread", "port", "tolerant", "zone"])
numbers = st.integers(0, 40)
new_node = st.tuples(
    st.just("node"),
    st.integers(0, 2),
    st.sampled_from(["z0", "z1"]),
    st.integers(0, 4),
    st.integers(0, 1),
    st.booleans(),
    st.booleans(),
)
new_pod = st.tuples(st.just("pod"), apps, rules, apps, st.sampled_from([ZONE, HOST]), requests)
steps = st.one_of(
    new_node,
    new_pod,
    new_pod,
    st.tuples(st.just("lost"), st.integers(0, 2)),
    st.tuples(st.sampled_from(["gone", "finished", "leaving"]), numbers),
    st.tuples(st.just("relabel"), numbers, apps),
    st.tuples(st.just("resize"), numbers, requests),
)


def step(bench: Bench, number: int, what: str, *told: Any) -> None:
    if what == "node":
        bench.put(bench.nodes, node(f"n{told[0]}", *told[1:]))
        return
    if what == "pod":
        bench.put(bench.pods, pod(f"p{number}", *told))
        return
    if what == "lost":
        if (found := bench.nodes.get(None, f"n{told[0]}")) is not None:
            bench.nodes.drop(found)
        return
    all_of_them = sorted(bench.pods.list(), key=lambda p: str(p["metadata"]["name"]))
    if not all_of_them:
        return
    chosen = all_of_them[told[0] % len(all_of_them)]
    metadata, spec = chosen["metadata"], chosen["spec"]
    match what:
        case "gone":
            bench.pods.drop(chosen)
        case "finished":
            bench.put(bench.pods, {**chosen, "status": {"phase": "Succeeded"}})
        case "leaving":
            leaving = {**metadata, "deletionTimestamp": "2026-01-01T00:00:00Z"}
            bench.put(bench.pods, {**chosen, "metadata": leaving})
        case "relabel":
            bench.put(bench.pods, {**chosen, "metadata": {**metadata, "labels": {"app": told[1]}}})
        case "resize":
            container = {**spec["containers"][0], "resources": {"requests": told[1]}}
            bench.put(bench.pods, {**chosen, "spec": {**spec, "containers": [container]}})


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, max_size=30))
def test_what_helps_a_waiting_pod_wakes_it(history: list[Any]) -> None:
    async def play() -> None:
        bench = Bench()
        for number in range(2):
            bench.put(bench.nodes, node(f"n{number}", f"z{number}", 4, 1, False, False))
        try:
            for number, (what, *told) in enumerate(history):
                step(bench, number, what, *told)
                bench.settle()
                bench.nobody_waits_who_fits()
        finally:
            bench.queue.close()

    asyncio.run(play())
