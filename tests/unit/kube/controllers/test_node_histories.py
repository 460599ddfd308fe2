"""Nodes over random histories: their taints are what their state demands and nobody else's are
touched, and those pods are left that tolerate them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from cluster import Cluster
from hypothesis import given, settings
from hypothesis import strategies as st
from test_node_controllers import NOW, node, pod

from wherry.kube.api import meta
from wherry.kube.api.resources import NODES, PODS
from wherry.kube.api.taints import NO_EXECUTE, NO_SCHEDULE, tolerates
from wherry.kube.client.transport import Object
from wherry.kube.controllers.node_lifecycle import silenced, taints

STATES = st.sampled_from(["True", "False", "Unknown"])
OTHER = {"key": "gpu", "value": "yes", "effect": NO_SCHEDULE}
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["Ready", "MemoryPressure", "DiskPressure"]), STATES),
        st.tuples(st.just("unschedulable"), st.booleans()),
        st.tuples(st.just("other"), st.booleans()),
        st.tuples(st.just("silent"), st.none()),
    ),
    max_size=20,
)


def named(found: list[Any]) -> set[tuple[str, str]]:
    return {(t["key"], t["effect"]) for t in found}


@settings(max_examples=150, deadline=None)
@given(CHANGES)
def test_taints_depend_on_the_state_alone_and_keep_their_time(changes: list):
    held, moment = node("n1"), NOW
    for what, value in changes:
        moment += timedelta(seconds=1)
        spec, status = dict(held["spec"]), dict(held["status"])
        before = list(spec.get("taints") or ())
        if what == "unschedulable":
            spec["unschedulable"] = value
        elif what == "other":
            rest = [t for t in before if t["key"] != "gpu"]
            spec["taints"] = [*rest, OTHER] if value else rest
        elif what == "silent":
            status["conditions"] = silenced(held, moment)
        else:
            rest = [c for c in status["conditions"] if c["type"] != what]
            status["conditions"] = [*rest, {"type": what, "status": value}]
        held = {**held, "spec": spec, "status": status}
        found = taints(held, moment)
        held = {**held, "spec": {**spec, "taints": found}}
        assert taints(held, moment + timedelta(hours=1)) == found, "once is enough"
        assert len(named(found)) == len(found)
        given = [OTHER] if what == "other" and value else [t for t in before if t["key"] == "gpu"]
        given = [] if what == "other" and not value else given
        fresh = taints({**held, "spec": {**spec, "taints": given}}, moment)
        assert named(found) == named(fresh), "the way there does not matter"
        assert all(t in found for t in before if (t["key"], t["effect"]) in named(found))
        ready = next(c["status"] for c in held["status"]["conditions"] if c["type"] == "Ready")
        driven = {t["key"].rpartition("/")[2] for t in found if t["effect"] == NO_EXECUTE}
        assert driven == {"True": set(), "False": {"not-ready"}, "Unknown": {"unreachable"}}[ready]


TAINT = st.fixed_dictionaries(
    {"key": st.sampled_from("ab"), "effect": st.sampled_from([NO_EXECUTE, NO_SCHEDULE])}
)
TOLERATION = st.sampled_from(
    [
        {"key": "a", "operator": "Exists"},
        {"key": "b", "operator": "Exists", "effect": NO_EXECUTE},
        {"key": "b", "operator": "Exists", "effect": NO_SCHEDULE},
        {"operator": "Exists"},
        {"key": "a", "operator": "Exists", "tolerationSeconds": 0},
        {"key": "b", "operator": "Exists", "tolerationSeconds": 3600},
    ]
)
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("taint"), st.integers(0, 1), st.lists(TAINT, max_size=2)),
        st.tuples(st.just("pod"), st.integers(0, 1), st.lists(TOLERATION, max_size=2)),
        st.tuples(st.just("pod"), st.integers(0, 1), st.lists(TOLERATION, max_size=2)),
        st.tuples(st.just("restart"), st.none(), st.none()),
    ),
    max_size=15,
)


def goes(held: Object, on: Object) -> bool:
    """Whether the pod has to leave at once."""
    tolerations = held["spec"].get("tolerations") or ()
    for taint in on["spec"].get("taints") or ():
        if taint["effect"] != NO_EXECUTE:
            continue
        bearing = [t for t in tolerations if tolerates(t, taint)]
        if not bearing or any(t.get("tolerationSeconds") == 0 for t in bearing):
            return True
    return False


async def play(acts: list) -> None:
    async with Cluster("taint-eviction-controller", kubelet=False) as cluster:
        api, client = cluster.api, cluster.client
        for name in ("n0", "n1"):
            await client.create(NODES, node(name))
        must, expected = set[str](), dict[str, bool]()

        def look(on: str) -> None:
            there = api.get(NODES, on)
            assert there is not None
            for each in api.find(PODS):
                if each["spec"]["nodeName"] == on:
                    expected[meta.name(each)] = goes(each, there)

        for number, (act, which, what) in enumerate(acts):
            if act == "taint":
                await client.patch(NODES, f"n{which}", {"spec": {"taints": what}})
                look(f"n{which}")
            elif act == "pod":
                await client.create(PODS, pod(f"p{number}", f"n{which}", tolerations=what))
                look(f"n{which}")
            else:
                await cluster.stop()
                cluster.start()
                continue
            driven = {name for name, leaves in expected.items() if leaves}
            must |= driven
            await cluster.until(
                lambda driven=driven: all(
                    meta.is_deleting(api.get(PODS, name, "default")) for name in driven
                )
            )
        await cluster.settle(0.02)
        going = {meta.name(p) for p in api.find(PODS) if meta.is_deleting(p)}
        assert going == must, "who tolerates what comes stays"


@settings(max_examples=30, deadline=None)
@given(ACTS)
def test_those_leave_who_do_not_tolerate_and_no_others(acts: list):
    asyncio.run(play(acts))
