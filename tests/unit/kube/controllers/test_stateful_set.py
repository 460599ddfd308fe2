from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cluster import Cluster, change, ready, template
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.api import meta
from wherry.kube.api.resources import (
    CONTROLLER_REVISIONS,
    EVENTS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    STATEFUL_SETS,
)
from wherry.kube.client.transport import Object
from wherry.kube.controllers.stateful_set.claims import is_stale, references_for
from wherry.kube.controllers.stateful_set.identity import make_pod
from wherry.kube.controllers.stateful_set.plan import plan, status

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CLAIM = {"metadata": {"name": "www"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
RETAIN = {"whenDeleted": "Retain", "whenScaled": "Retain"}
STS = "statefulset-controller"


def stateful_set(replicas: int = 3, **spec: Any) -> Object:
    return {
        "metadata": {"name": "web", "namespace": "default", "uid": "web"},
        "spec": {
            "replicas": replicas,
            "serviceName": "nginx",
            "selector": {"matchLabels": {"app": "web"}},
            "podManagementPolicy": "OrderedReady",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "revisionHistoryLimit": 10,
            "template": template("web"),
            **spec,
        },
    }


def revision(name: str) -> Object:
    made = template("web", f"image:{name}")
    return {"metadata": {"name": name}, "data": {"spec": {"template": made}}, "revision": 1}


OLD, NEW = revision("old"), revision("new")


def pod(n: int, rev: str = "new", **how: Any) -> Object:
    since = meta.format_time(NOW - timedelta(seconds=how.get("ready_for", 100)))
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": since}]
    made = make_pod(stateful_set(), template("web"), rev, n)
    made["metadata"]["uid"] = f"web-{n}"
    if how.get("deleting"):
        made["metadata"]["deletionTimestamp"] = since
    made["status"] = {
        "phase": how.get("phase", "Running"),
        "conditions": conditions if how.get("ready", True) else [],
    }
    return made


def names(objects: list[Object]) -> list[str]:
    return [meta.name(o) for o in objects]


def step(set: Object, pods: list[Object], current: Object = OLD):
    return plan(set, current, NEW, pods, (), NOW)


def test_a_pod_has_name_host_name_labels_and_its_claims():
    made = make_pod(stateful_set(volumeClaimTemplates=[CLAIM]), template("web"), "rev", 2)
    assert meta.name(made) == made["spec"]["hostname"] == "web-2"
    assert made["spec"]["subdomain"] == "nginx"
    assert meta.labels(made) == {
        "app": "web",
        "statefulset.kubernetes.io/pod-name": "web-2",
        "apps.kubernetes.io/pod-index": "2",
        "controller-revision-hash": "rev",
    }
    source = {"claimName": "www-web-2"}
    assert made["spec"]["volumes"] == [{"name": "www", "persistentVolumeClaim": source}]


def test_in_order_one_pod_at_a_time():
    assert names(step(stateful_set(), []).create) == ["web-0"]
    assert step(stateful_set(), [pod(0, ready=False)]).create == []
    assert names(step(stateful_set(), [pod(0)]).create) == ["web-1"]
    assert names(step(stateful_set(), [pod(0), pod(2)]).create) == ["web-1"]
    held = stateful_set(minReadySeconds=200)
    found = step(held, [pod(0)])
    assert (found.create, found.check_after) == ([], 100)


def test_in_parallel_all_at_once():
    at_once = stateful_set(podManagementPolicy="Parallel")
    assert names(step(at_once, [pod(1)]).create) == ["web-0", "web-2"]
    beyond = [pod(n) for n in range(5)]
    assert names(step(at_once, beyond).delete) == ["web-4", "web-3"]


def test_scaling_down_takes_the_highest_first_and_waits_for_it():
    pods = [pod(n) for n in range(5)]
    assert names(step(stateful_set(), pods).delete) == ["web-4"]
    pods[4] = pod(4, deleting=True)
    assert step(stateful_set(), pods).delete == []
    pods = [pod(n) for n in range(5)]
    pods[0] = pod(0, ready=False)
    assert step(stateful_set(), pods).delete == []


def test_scaling_down_halts_at_a_pod_that_is_not_well_but_for_the_lowest_of_those():
    gone = stateful_set(replicas=0)
    unwell = [pod(n, ready=False) for n in range(3)]
    assert step(gone, unwell).delete == []
    assert names(step(gone, [pod(0), pod(1), pod(2, ready=False)]).delete) == ["web-2"]
    assert names(step(gone, [pod(0, ready=False), pod(1), pod(2)]).delete) == ["web-2"]
    assert names(step(gone, [pod(0, ready=False)]).delete) == ["web-0"]
    at_once = stateful_set(replicas=0, podManagementPolicy="Parallel")
    assert len(step(at_once, unwell).delete) == 3
    young = stateful_set(replicas=0, minReadySeconds=150)
    waiting = step(young, [pod(n) for n in range(2)])
    assert waiting.delete == [] and waiting.check_after == 50


def test_ordinals_may_start_later():
    found = step(stateful_set(ordinals={"start": 5}), [pod(5)])
    assert names(found.create) == ["web-6"]


def test_a_pod_that_ended_is_replaced():
    found = step(stateful_set(), [pod(0), pod(1, phase="Failed")])
    assert names(found.replace) == ["web-1"]
    assert found.create == []


def test_updates_go_down_to_the_partition():
    pods = [pod(n, "old") for n in range(3)]
    assert names(step(stateful_set(), pods).delete) == ["web-2"]
    pods[2] = pod(2)
    assert names(step(stateful_set(), pods).delete) == ["web-1"]
    held = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    assert step(stateful_set(updateStrategy=held), pods).delete == []
    (made,) = step(stateful_set(updateStrategy=held), [pod(0, "old")]).create
    assert made["spec"]["containers"][0]["image"] == "image:old"
    assert step(stateful_set(updateStrategy={"type": "OnDelete"}), pods).delete == []


def test_several_may_be_missing():
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}
    pods = [pod(n, "old") for n in range(3)]
    chosen = step(stateful_set(updateStrategy=rolling), pods).delete
    assert names(chosen) == ["web-2", "web-1"]


def test_lost_labels_are_given_back():
    lost = pod(0)
    del lost["metadata"]["labels"]["apps.kubernetes.io/pod-index"]
    assert names(step(stateful_set(), [lost]).repair) == ["web-0"]


STATES = st.sampled_from(["none", "ready", "broken", "leaving", "old", "failed"])


@given(st.lists(STATES, max_size=8), st.integers(0, 6))
def test_a_step_in_order_touches_one_pod_and_none_while_another_is_missing(
    states: list, replicas: int
):
    pods = []
    for n, state in enumerate(states):
        if state != "none":
            phase = "Failed" if state == "failed" else "Running"
            rev = "old" if state == "old" else "new"
            broken, leaving = state == "broken", state == "leaving"
            pods.append(pod(n, rev, ready=not broken, deleting=leaving, phase=phase))
    found = step(stateful_set(replicas), pods)
    touched = [*found.create, *found.delete, *found.replace]
    assert len(touched) <= 1
    missing = [n for n in range(replicas) if n >= len(states) or states[n] not in ("ready", "old")]
    if found.delete:
        assert not missing
    if found.create or found.replace:
        assert names(touched) == [f"web-{missing[0]}"]


def test_the_status_turns_over_when_all_are_updated():
    set = stateful_set()
    set["metadata"]["generation"] = 4
    pods = [pod(0, "old"), pod(1), pod(2)]
    half = status(set, OLD, NEW, pods, NOW)
    assert (half["currentRevision"], half["updateRevision"]) == ("old", "new")
    assert (half["currentReplicas"], half["updatedReplicas"]) == (1, 2)
    whole = status(set, OLD, NEW, [pod(n) for n in range(3)], NOW)
    assert whole == {
        "observedGeneration": 4,
        "replicas": 3,
        "readyReplicas": 3,
        "availableReplicas": 3,
        "currentReplicas": 3,
        "updatedReplicas": 3,
        "currentRevision": "new",
        "updateRevision": "new",
        "collisionCount": 0,
    }


@pytest.mark.parametrize(
    ("deleted", "scaled", "ordinal", "owner"),
    [
        ("Retain", "Retain", 0, None),
        ("Retain", "Retain", 9, None),
        ("Delete", "Retain", 0, "StatefulSet"),
        ("Delete", "Retain", 9, "StatefulSet"),
        ("Retain", "Delete", 0, None),
        ("Retain", "Delete", 9, "Pod"),
        ("Delete", "Delete", 0, "StatefulSet"),
        ("Delete", "Delete", 9, "Pod"),
    ],
)
def test_who_owns_a_claim_decides_what_becomes_of_it(
    deleted: str, scaled: str, ordinal: int, owner: str | None
):
    policy = {"whenDeleted": deleted, "whenScaled": scaled}
    set = stateful_set(persistentVolumeClaimRetentionPolicy=policy)
    stranger = {"kind": "Backup", "uid": "x", "name": "b"}
    claim = {"metadata": {"name": "www", "ownerReferences": [stranger]}}
    found = references_for(set, claim, pod(ordinal), ordinal)
    assert found[0] == stranger
    assert [r["kind"] for r in found[1:]] == ([owner] if owner else [])


def test_a_claim_of_a_pod_that_is_no_more_is_stale():
    owned = {"metadata": {"ownerReferences": [{"kind": "Pod", "uid": "gone"}]}}
    assert is_stale(owned, None) and not is_stale({"metadata": {}}, None)


async def test_a_set_grows_in_order_rolls_and_shrinks():
    async with Cluster(STS) as cluster:
        order: list[str] = []
        cluster.api.after = lambda method, path, body: (
            order.append(body["metadata"]["name"])
            if method == "POST" and path.endswith("/pods")
            else None
        )
        await cluster.client.create(STATEFUL_SETS, stateful_set(volumeClaimTemplates=[CLAIM]))

        def running(image: str, count: int):
            def check() -> bool:
                found = [p for p in cluster.pods() if ready(p)]
                images = {p["spec"]["containers"][0]["image"] for p in found}
                return len(found) == count and images == {image}

            return check

        def revised() -> bool:
            found = cluster.api.get(STATEFUL_SETS, "web", "default").get("status") or {}
            return (
                found.get("currentRevision") == found.get("updateRevision")
                and found.get("updatedReplicas") == 3
            )

        await cluster.until(running("hello:1", 3))
        await cluster.until(revised)
        assert order == ["web-0", "web-1", "web-2"]
        claims = sorted(names(cluster.api.find(PERSISTENT_VOLUME_CLAIMS)))
        assert claims == ["www-web-0", "www-web-1", "www-web-2"]
        order.clear()
        await change(cluster, STATEFUL_SETS, "web", template=template("web", "hello:2"))
        await cluster.until(running("hello:2", 3))
        await cluster.until(revised)
        assert order == ["web-2", "web-1", "web-0"]
        await change(cluster, STATEFUL_SETS, "web", replicas=1)
        await cluster.until(lambda: names(cluster.api.find(PODS)) == ["web-0"])
        assert len(cluster.api.find(PERSISTENT_VOLUME_CLAIMS)) == 3
        assert len(cluster.api.find(CONTROLLER_REVISIONS)) == 2
        messages = {e["message"] for e in cluster.api.find(EVENTS)}
        assert "create Claim www-web-0 Pod web-0 in StatefulSet web success" in messages
        assert "create Pod web-0 in StatefulSet web successful" in messages
        assert "delete Pod web-2 in StatefulSet web successful" in messages


async def test_a_new_pod_waits_for_the_claim_of_its_predecessor_to_go():
    policy = {"whenDeleted": "Retain", "whenScaled": "Delete"}
    async with Cluster(STS) as cluster:
        set = stateful_set(
            2, volumeClaimTemplates=[CLAIM], persistentVolumeClaimRetentionPolicy=policy
        )
        await cluster.client.create(STATEFUL_SETS, set)
        await cluster.until(lambda: len([p for p in cluster.pods() if ready(p)]) == 2)
        await change(cluster, STATEFUL_SETS, "web", replicas=1)
        await cluster.until(lambda: len(cluster.api.find(PODS)) == 1)
        claim = cluster.api.get(PERSISTENT_VOLUME_CLAIMS, "www-web-1", "default")
        assert meta.owner_references(claim)[0]["kind"] == "Pod"
        await change(cluster, STATEFUL_SETS, "web", replicas=2)
        await cluster.settle()
        assert len(cluster.api.find(PODS)) == 1
        await cluster.client.delete(PERSISTENT_VOLUME_CLAIMS, "www-web-1", "default")
        await cluster.until(lambda: len([p for p in cluster.pods() if ready(p)]) == 2)
        claim = cluster.api.get(PERSISTENT_VOLUME_CLAIMS, "www-web-1", "default")
        assert meta.owner_references(claim) == []
