from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from cluster import Cluster, change, ready, template
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.api import meta
from wherry.kube.api.resources import CONTROLLER_REVISIONS, DAEMON_SETS, EVENTS, NODES, PODS
from wherry.kube.client.transport import Object
from wherry.kube.controllers.daemon_set.placement import belongs, make_pod, node_of
from wherry.kube.controllers.daemon_set.plan import View, plan, status

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def daemon_set(**spec: Any) -> Object:
    return {
        "metadata": {"name": "ds", "namespace": "default", "uid": "ds"},
        "spec": {
            "selector": {"matchLabels": {"app": "ds"}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "revisionHistoryLimit": 10,
            "template": template("ds"),
            **spec,
        },
    }


def node(name: str, labels: dict[str, str] | None = None, *taints: Object) -> Object:
    spec = {"taints": list(taints)} if taints else {}
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": spec}


def pod(on: str, hash: str = "new", **how: Any) -> Object:
    name = how.get("name", f"{on}-{hash}")
    since = meta.format_time(NOW - timedelta(seconds=how.get("ready_for", 100)))
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": since}]
    labels = {"controller-revision-hash": hash}
    metadata = {"name": name, "namespace": "default", "uid": name, "labels": labels}
    if how.get("deleting"):
        metadata["deletionTimestamp"] = since
    return {
        "metadata": metadata,
        "spec": {"nodeName": on},
        "status": {
            "phase": how.get("phase", "Running"),
            "conditions": conditions if how.get("ready", True) else [],
        },
    }


def names(objects: list[Object]) -> list[str]:
    return [meta.name(o) for o in objects]


def step(set: Object, nodes: list[Object], pods: list[Object], held: float = 0.0):
    return plan(set, "new", View(set, nodes, pods, (), NOW), lambda node: held)


NO_SCHEDULE = {"key": "k", "effect": "NoSchedule"}
NO_EXECUTE = {"key": "k", "effect": "NoExecute"}


def test_nodes_qualify_by_name_labels_and_taints():
    ds = daemon_set()
    assert belongs(ds, node("a")) == (True, True)
    assert belongs(ds, node("a", {}, NO_SCHEDULE)) == (False, True)
    assert belongs(ds, node("a", {}, NO_EXECUTE)) == (False, False)
    cordoned = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    assert belongs(ds, node("a", {}, cordoned)) == (True, True)
    ds["spec"]["template"]["spec"]["nodeSelector"] = {"disk": "ssd"}
    assert belongs(ds, node("a", {"disk": "ssd"})) == (True, True)
    assert belongs(ds, node("a")) == (False, False)


def test_a_pod_is_tied_to_its_node_and_keeps_its_other_terms():
    ds = daemon_set()
    term = {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}
    required = {"nodeSelectorTerms": [term]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    ds["spec"]["template"]["spec"]["affinity"] = affinity
    ds["spec"]["template"]["spec"]["hostNetwork"] = True
    made = make_pod(ds, "n1", "abc")
    assert node_of(made) == "n1"
    bound = made["spec"]["affinity"]["nodeAffinity"]
    (only,) = bound["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert only["matchExpressions"] == term["matchExpressions"]
    keys = {t["key"] for t in made["spec"]["tolerations"]}
    assert "node.kubernetes.io/network-unavailable" in keys and len(keys) == 7
    assert made["metadata"]["labels"] == {"app": "ds", "controller-revision-hash": "abc"}
    assert "matchFields" not in term


def test_nodes_get_pods_and_surplus_goes():
    nodes = [node("a"), node("b"), node("c", {}, NO_EXECUTE), node("d", {}, NO_SCHEDULE)]
    pods = [pod("a"), pod("a", name="second"), pod("c"), pod("d")]
    found = step(daemon_set(), nodes, pods)
    assert found.create == ["b"]
    assert names(found.delete) == ["second", "c-new"]


def test_a_leaving_pod_keeps_its_node_until_it_is_gone():
    assert step(daemon_set(), [node("a")], [pod("a", deleting=True)]).create == []
    ended = pod("a", deleting=True, phase="Failed")
    assert step(daemon_set(), [node("a")], [ended]).create == ["a"]


def test_a_failed_pod_is_replaced_when_its_time_has_come():
    failed = pod("a", phase="Failed")
    waiting = step(daemon_set(), [node("a")], [failed], held=5)
    assert (waiting.delete, waiting.check_after) == ([], 5)
    assert step(daemon_set(), [node("a")], [failed]).failed == [("a", failed)]
    done = pod("a", phase="Succeeded")
    assert step(daemon_set(), [node("a")], [done]).succeeded == [("a", done)]


def test_broken_old_pods_go_first_and_do_not_count_twice():
    nodes = [node(n) for n in "abc"]
    pods = [pod("a", "old"), pod("b", "old", ready=False), pod("c", "old")]
    assert names(step(daemon_set(), nodes, pods).delete) == ["b-old"]
    pods[1] = pod("b")
    assert names(step(daemon_set(), nodes, pods).delete) == ["a-old"]
    pods[1] = pod("b", ready=False)
    assert step(daemon_set(), nodes, pods).delete == []


def test_on_delete_waits_for_the_user():
    ds = daemon_set(updateStrategy={"type": "OnDelete"})
    assert step(ds, [node("a")], [pod("a", "old")]).delete == []


def test_a_surge_puts_the_new_pod_beside_the_old_one():
    rolling = {"maxSurge": 1, "maxUnavailable": 0}
    ds = daemon_set(updateStrategy={"type": "RollingUpdate", "rollingUpdate": rolling})
    nodes = [node(n) for n in "ab"]
    old = [pod("a", "old"), pod("b", "old")]
    assert step(ds, nodes, old).create == ["a"]
    growing = step(ds, nodes, [*old, pod("a", ready=False)])
    assert (growing.create, growing.delete) == ([], [])
    assert names(step(ds, nodes, [*old, pod("a")]).delete) == ["a-old"]


STATES = st.sampled_from(["none", "new", "new broken", "old", "old broken", "leaving"])


@given(st.lists(STATES, min_size=1, max_size=12), st.integers(1, 5))
def test_a_step_takes_down_no_more_available_pods_than_may_be_missing(states: list, most: int):
    rolling = {"maxUnavailable": most}
    ds = daemon_set(updateStrategy={"type": "RollingUpdate", "rollingUpdate": rolling})
    nodes = [node(str(n)) for n in range(len(states))]
    pods = []
    for n, state in enumerate(states):
        if state == "leaving":
            pods.append(pod(str(n), "old", deleting=True))
        elif state != "none":
            hash, _, broken = state.partition(" ")
            pods.append(pod(str(n), hash, ready=not broken))
    found = step(ds, nodes, pods)
    available = sum(s in ("new", "old") for s in states)
    taken = sum(meta.labels(p)["controller-revision-hash"] == "old" for p in found.delete)
    broken = states.count("old broken")
    if taken > broken:
        assert available - (taken - broken) >= len(states) - most
    assert not any(meta.is_deleting(p) for p in found.delete)


def test_the_status_counts_nodes():
    nodes = [node("a"), node("b"), node("c"), node("d", {}, NO_SCHEDULE)]
    pods = [pod("a"), pod("b", "old", ready=False), pod("d")]
    ds = daemon_set()
    ds["metadata"]["generation"] = 2
    assert status(ds, "new", View(ds, nodes, pods, (), NOW)) == {
        "currentNumberScheduled": 2,
        "desiredNumberScheduled": 3,
        "numberMisscheduled": 1,
        "numberReady": 1,
        "observedGeneration": 2,
        "updatedNumberScheduled": 1,
        "numberAvailable": 1,
        "numberUnavailable": 2,
    }


async def test_a_daemon_set_follows_nodes_and_template():
    async with Cluster("daemonset-controller") as cluster:
        for name in "abc":
            await cluster.client.create(NODES, node(name))
        await cluster.client.create(DAEMON_SETS, daemon_set())

        def running(image: str, count: int):
            def check() -> bool:
                found = [p for p in cluster.pods() if ready(p)]
                images = {p["spec"]["containers"][0]["image"] for p in found}
                return len(found) == count and images == {image}

            return check

        await cluster.until(running("hello:1", 3))
        await cluster.client.create(NODES, node("d"))
        await cluster.until(running("hello:1", 4))
        await change(cluster, DAEMON_SETS, "ds", template=template("ds", "hello:2"))
        await cluster.until(running("hello:2", 4))
        await change(cluster, DAEMON_SETS, "ds", template=template("ds", "hello:1"))
        await cluster.until(running("hello:1", 4))
        await cluster.settle()
        numbers = sorted(r["revision"] for r in cluster.api.find(CONTROLLER_REVISIONS))
        assert numbers == [2, 3]
        assert {node_of(p) for p in cluster.api.find(PODS)} == set("abcd")
        assert any(e["reason"] == "SuccessfulCreate" for e in cluster.api.find(EVENTS))
        found = cluster.api.get(DAEMON_SETS, "ds", "default")["status"]
        assert found["numberAvailable"] == found["updatedNumberScheduled"] == 4
