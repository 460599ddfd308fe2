"""A DaemonSet's promises over random histories: nodes come, go, are tainted and relabelled, pods
break and fail, the template changes, and everybody acts in any order."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from test_daemon_set import NO_EXECUTE, NO_SCHEDULE, NOW, daemon_set, node

from wherry.kube.api import meta
from wherry.kube.client.transport import Object
from wherry.kube.controllers.daemon_set.placement import belongs, make_pod, node_of
from wherry.kube.controllers.daemon_set.plan import View, is_current, limits, plan, status

READY = {"type": "Ready", "status": "True", "lastTransitionTime": meta.format_time(NOW)}
KINDS = {
    "plain": ({"pool": "a"}, ()),
    "cordoned": ({"pool": "a"}, (NO_SCHEDULE,)),
    "drained": ({"pool": "a"}, (NO_EXECUTE,)),
    "other": ({"pool": "b"}, ()),
}


class Model:
    def __init__(self, rolling: Object | None) -> None:
        strategy = {"type": "RollingUpdate", "rollingUpdate": rolling} if rolling else None
        self.set = daemon_set(updateStrategy=strategy or {"type": "OnDelete"})
        template = self.set["spec"]["template"]
        template["spec"]["nodeSelector"] = {"pool": "a"}
        self.hash = "r0"
        self.nodes: dict[str, Object] = {}
        self.pods: dict[str, Object] = {}
        self.made = 0

    # -- actors

    def set_node(self, number: int, kind: str | None) -> None:
        name = f"n{number}"
        if kind is None:
            self.nodes.pop(name, None)
        else:
            labels, taints = KINDS[kind]
            self.nodes[name] = node(name, labels, *taints)

    def view(self) -> View:
        return View(self.set, list(self.nodes.values()), list(self.pods.values()), (), NOW)

    def step(self) -> bool:
        found = plan(self.set, self.hash, self.view(), lambda node: 0.0)
        self.check(found)
        for on in found.create:
            self.made += 1
            made = make_pod(self.set, on, self.hash)
            made["metadata"].update(
                name=f"p{self.made}", uid=f"u{self.made}", creationTimestamp=f"{self.made:09}"
            )
            self.pods[meta.name(made)] = {**made, "status": {"phase": "Pending"}}
        for gone in found.delete:
            self.delete(meta.name(gone))
        return bool(found.create or found.delete)

    def delete(self, name: str) -> None:
        metadata = {**self.pods[name]["metadata"], "deletionTimestamp": meta.format_time(NOW)}
        self.pods[name] = {**self.pods[name], "metadata": metadata}

    def live(self, name: str) -> bool:
        """Scheduler, kubelet and pod garbage collector."""
        found = self.pods[name]
        on = node_of(found)
        if meta.is_deleting(found) or (found["spec"].get("nodeName") and on not in self.nodes):
            del self.pods[name]
            return True
        if not found["spec"].get("nodeName"):
            if on not in self.nodes:
                return False
            self.pods[name] = {**found, "spec": {**found["spec"], "nodeName": on}}
            return True
        if found["status"]["phase"] == "Failed" or found["status"].get("conditions"):
            return False
        self.pods[name] = {**found, "status": {"phase": "Running", "conditions": [READY]}}
        return True

    def disturb(self, name: str, how: str) -> None:
        if how == "delete":
            self.delete(name)
        elif self.pods[name]["spec"].get("nodeName"):
            phase = "Running" if how == "break" else "Failed"
            self.pods[name] = {**self.pods[name], "status": {"phase": phase}}

    # -- what must hold

    def staying(self, on: str) -> list[Object]:
        return [p for p in self.pods.values() if node_of(p) == on and not meta.is_deleting(p)]

    def available(self, pods: list[Object]) -> list[Object]:
        return [p for p in pods if p["status"].get("conditions")]

    def check(self, found: Any) -> None:
        places = {name: belongs(self.set, each) for name, each in self.nodes.items()}
        eligible = [name for name, place in places.items() if place.runs]
        surge, unavailable = limits(self.set, len(eligible))
        rolls = self.set["spec"]["updateStrategy"]["type"] == "RollingUpdate"
        assert len(set(found.create)) == len(found.create)
        assert not any(meta.is_deleting(p) for p in found.delete)
        doubled = 0
        for on in found.create:
            assert places[on].runs, "only nodes that qualify get a pod"
            there = self.staying(on)
            if there:
                doubled += bool(self.available(there))
                assert rolls and surge, "a second pod is there for a surge alone"
                assert len(there) == 1 and not is_current(there[0], self.hash)
        if doubled:
            before = sum(len(self.staying(on)) > 1 for on in eligible)
            assert before + doubled <= surge or before == 0
        going = {meta.uid(p) for p in found.delete}
        down = []
        for on in eligible:
            before = self.available(self.staying(on))
            if before and all(meta.uid(p) in going for p in before):
                down.append(on)
                assert rolls, "OnDelete leaves it to the user"
                assert not any(is_current(p, self.hash) for p in before)
        if down:
            assert not surge, "with a surge the new pod is available first"
            had = [on for on in eligible if self.available(self.staying(on))]
            assert len(eligible) - len(had) + len(down) <= unavailable

    def settle(self) -> None:
        for _ in range(300):
            busy = self.step()
            for name in list(self.pods):
                busy = self.live(name) or busy
            if not busy:
                return
        raise AssertionError("it never settles")


ROLLING = st.one_of(
    st.none(),
    st.integers(1, 4).map(lambda n: {"maxUnavailable": n}),
    st.sampled_from(["10%", "50%", "100%"]).map(lambda p: {"maxUnavailable": p}),
    st.integers(1, 4).map(lambda n: {"maxSurge": n, "maxUnavailable": 0}),
)
ACTS = st.one_of(
    st.just(("step",)),
    st.just(("step",)),
    st.tuples(st.just("live"), st.integers(0, 30)),
    st.tuples(st.just("live"), st.integers(0, 30)),
    st.tuples(st.just("disturb"), st.integers(0, 30), st.sampled_from(["delete", "break", "fail"])),
    st.tuples(st.just("node"), st.integers(0, 5), st.sampled_from([None, *KINDS])),
    st.tuples(st.just("roll"), st.integers(0, 2)),
)


@settings(max_examples=100, deadline=None)
@given(ROLLING, st.lists(st.sampled_from(sorted(KINDS)), max_size=6), st.lists(ACTS, max_size=40))
def test_a_pod_on_each_node_that_qualifies_within_the_limits_whoever_acts_next(
    rolling: Object | None, kinds: list, acts: list
):
    model = Model(rolling)
    for number, kind in enumerate(kinds):
        model.set_node(number, kind)
    model.settle()
    for name, *how in acts:
        if name == "node":
            model.set_node(*how)
        elif name == "roll":
            model.hash = f"r{how[0]}"
        elif name == "step":
            model.step()
        elif model.pods:
            present = sorted(model.pods)
            getattr(model, name)(present[how[0] % len(present)], *how[1:])
    model.settle()
    on = [node_of(p) for p in model.pods.values()]
    assert len(set(on)) == len(on), "one pod a node"
    for name, each in model.nodes.items():
        place = belongs(model.set, each)
        assert (name in on) >= place.runs
        assert place.stays or name not in on
    if rolling:
        runs = [p for p in model.pods.values() if belongs(model.set, model.nodes[node_of(p)]).runs]
        assert all(is_current(p, model.hash) for p in runs)
    found = status(model.set, model.hash, model.view())
    count = sum(belongs(model.set, each).runs for each in model.nodes.values())
    assert found["desiredNumberScheduled"] == found.get("numberAvailable", 0) == count
    assert found.get("numberUnavailable", 0) == 0
