"""What DaemonSets and StatefulSets can be told, with kubectl on a live cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Instance, eventually
from kubectl_space import FOREVER, Space, command_change, new_space, template, workload

from ports import free_port

GATED = {
    "readinessProbe": {
        "exec": {"command": ["test", "-e", "/tmp/go"]},
        "periodSeconds": 1,
        "timeoutSeconds": 20,
    }
}
"""A container with this is ready once somebody has touched /tmp/go in it."""


@pytest.fixture(scope="module")
def kubectl(cluster: Instance) -> Iterator[Space]:
    with new_space(cluster) as space:
        yield space


def names(found: list[Any]) -> list[str]:
    return [pod["metadata"]["name"] for pod in found]


def uids(found: list[Any]) -> list[str]:
    return [pod["metadata"]["uid"] for pod in found]


def command(pod: Any) -> str:
    return str(pod["spec"]["containers"][0]["command"][-1])


def let(kubectl: Space, pod: str) -> None:
    """Let a gated pod become ready."""
    kubectl("exec", pod, "--", "touch", "/tmp/go")


def running(kubectl: Space, app: str) -> list[Any]:
    return [p for p in kubectl.pods(f"app={app}") if p["status"]["phase"] == "Running"]


# -- DaemonSets


def test_with_a_surge_the_old_pod_stays_until_the_new_one_is_ready(kubectl: Space) -> None:
    strategy = {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    kubectl.apply(workload("DaemonSet", "surge", updateStrategy=strategy))
    kubectl.settled("ds/surge")
    (old,) = kubectl.pods("app=surge")
    kubectl.patch("ds/surge", command_change(f": 2; {FOREVER}", **GATED))
    both = eventually(lambda: len(running(kubectl, "surge")) == 2 and running(kubectl, "surge"))
    assert old["metadata"]["uid"] in uids(both)
    assert kubectl.get("ds/surge")["status"]["numberAvailable"] == 1
    (new,) = (p for p in both if p["metadata"]["uid"] != old["metadata"]["uid"])
    let(kubectl, new["metadata"]["name"])
    eventually(lambda: uids(kubectl.pods("app=surge")) == [new["metadata"]["uid"]])
    kubectl.settled("ds/surge")
    kubectl("delete", "ds", "surge")


def test_on_delete_waits_for_the_user_and_history_goes_back(kubectl: Space) -> None:
    kubectl.apply(workload("DaemonSet", "hand", updateStrategy={"type": "OnDelete"}))
    eventually(lambda: kubectl.get("ds/hand")["status"].get("numberReady") == 1)
    (first,) = kubectl.pods("app=hand")
    kubectl("annotate", "ds/hand", "kubernetes.io/change-cause=first")
    kubectl.patch("ds/hand", command_change(f": 2; {FOREVER}"))
    eventually(lambda: len(kubectl.get("controllerrevisions", "-l", "app=hand")["items"]) == 2)
    status = lambda: kubectl.get("ds/hand")["status"]  # noqa: E731
    eventually(lambda: status()["observedGeneration"] == 2)
    assert status().get("updatedNumberScheduled", 0) == 0
    assert uids(kubectl.pods("app=hand")) == uids([first])
    kubectl("delete", "pod", first["metadata"]["name"])
    eventually(lambda: status().get("updatedNumberScheduled") == 1)
    (second,) = kubectl.pods("app=hand")
    assert command(second).startswith(": 2;")
    kubectl("rollout", "undo", "ds/hand", "--to-revision=1")
    kubectl("delete", "pod", second["metadata"]["name"])
    eventually(lambda: [command(p) for p in kubectl.pods("app=hand")] == [FOREVER])
    history = kubectl("rollout", "history", "ds/hand").out
    assert "first" in history
    assert [line.split()[0] for line in history.splitlines()[2:4]] == ["2", "3"]
    kubectl("delete", "ds", "hand")


def test_taints_keep_daemons_away_but_for_those_that_tolerate_them(kubectl: Space) -> None:
    (node,) = names(kubectl.get("nodes")["items"])
    kubectl.apply(
        workload("DaemonSet", "shy"),
        workload(
            "DaemonSet",
            "bold",
            template=template(
                "bold", tolerations=[{"key": "example.com/away", "operator": "Exists"}]
            ),
        ),
    )
    for name in ("shy", "bold"):
        kubectl.settled(f"ds/{name}")
    (bold,) = kubectl.pods("app=bold")
    kubectl("taint", "node", node, "example.com/away=yes:NoExecute")
    try:
        eventually(lambda: not kubectl.pods("app=shy"))
        eventually(lambda: kubectl.get("ds/shy")["status"]["desiredNumberScheduled"] == 0)
        assert uids(kubectl.pods("app=bold")) == uids([bold])
    finally:
        kubectl("taint", "node", node, "example.com/away-")
    eventually(lambda: len(kubectl.pods("app=shy")) == 1)
    kubectl.settled("ds/shy")
    # A cordon keeps daemons where they are and lets new ones come.
    kubectl("cordon", node)
    try:
        kubectl("delete", "pod", "-l", "app=shy")
        eventually(lambda: running(kubectl, "shy"))
    finally:
        kubectl("uncordon", node)
    kubectl("delete", "ds", "shy", "bold")


def test_a_daemon_that_failed_is_replaced_and_it_is_said(kubectl: Space) -> None:
    body = workload("DaemonSet", "frail")
    kubectl.apply(body)
    kubectl.settled("ds/frail")
    (pod,) = kubectl.pods("app=frail")
    name = pod["metadata"]["name"]
    kubectl.patch(f"pod/{name}", {"status": {"phase": "Failed"}}, "--subresource=status")
    eventually(lambda: name not in names(running(kubectl, "frail")) and running(kubectl, "frail"))
    eventually(lambda: "FailedDaemonPod" in kubectl.reasons("frail"))
    kubectl("delete", "ds", "frail")


# -- StatefulSets


def stateful(name: str, **spec: Any) -> Any:
    return workload("StatefulSet", name, **{"serviceName": name, "replicas": 3, **spec})


def test_an_update_goes_no_further_than_its_partition(kubectl: Space) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    kubectl.apply(stateful("part", updateStrategy=rolling, podManagementPolicy="Parallel"))
    kubectl.settled("sts/part")
    before = uids(kubectl.pods("app=part"))
    kubectl.patch("sts/part", command_change(f": 2; {FOREVER}"))
    said = kubectl.settled("sts/part")
    assert "partitioned roll out complete: 1 new pods have been updated..." in said
    after = kubectl.pods("app=part")
    assert uids(after)[:2] == before[:2] and after[2]["metadata"]["uid"] != before[2]
    status = lambda: kubectl.get("sts/part")["status"]  # noqa: E731
    eventually(lambda: (status()["currentReplicas"], status()["updatedReplicas"]) == (2, 1))
    assert status()["currentRevision"] != status()["updateRevision"]
    # A pod below the partition comes back as it was.
    kubectl("delete", "pod", "part-0")
    eventually(lambda: len(running(kubectl, "part")) == 3)
    assert command(kubectl.pods("app=part")[0]) == FOREVER
    rolling["rollingUpdate"] = {"partition": 0}  # type: ignore[assignment]
    kubectl.patch("sts/part", {"spec": {"updateStrategy": rolling}})
    eventually(lambda: all(command(p) != FOREVER for p in kubectl.pods("app=part")))
    kubectl.settled("sts/part")
    eventually(lambda: status()["currentRevision"] == status()["updateRevision"])
    kubectl("delete", "sts", "part")


def test_in_order_each_waits_for_the_one_before_and_in_parallel_none_does(kubectl: Space) -> None:
    gated = template("order")
    gated["spec"]["containers"][0] |= GATED
    kubectl.apply(stateful("order", template=gated, replicas=2))
    eventually(lambda: names(running(kubectl, "order")) == ["order-0"])
    gated = template("beside")
    gated["spec"]["containers"][0] |= GATED
    kubectl.apply(stateful("beside", template=gated, podManagementPolicy="Parallel"))
    eventually(lambda: len(running(kubectl, "beside")) == 3)
    assert names(kubectl.pods("app=order")) == ["order-0"]
    let(kubectl, "order-0")
    eventually(lambda: names(running(kubectl, "order")) == ["order-0", "order-1"])
    kubectl("delete", "sts", "order", "beside")


def test_ordinals_begin_where_they_are_told_to(kubectl: Space) -> None:
    kubectl.apply(stateful("nth", ordinals={"start": 5}, replicas=2))
    kubectl.settled("sts/nth")
    found = kubectl.pods("app=nth")
    assert names(found) == ["nth-5", "nth-6"]
    assert [p["metadata"]["labels"]["apps.kubernetes.io/pod-index"] for p in found] == ["5", "6"]
    kubectl.patch("sts/nth", {"spec": {"ordinals": {"start": 6}}})
    eventually(lambda: names(running(kubectl, "nth")) == ["nth-6", "nth-7"])
    kubectl("delete", "sts", "nth")


def test_on_delete_leaves_pods_as_they_are(kubectl: Space) -> None:
    kubectl.apply(stateful("still", replicas=1, updateStrategy={"type": "OnDelete"}))
    eventually(lambda: kubectl.get("sts/still")["status"].get("readyReplicas") == 1)
    (first,) = kubectl.pods("app=still")
    kubectl.patch("sts/still", command_change(f": 2; {FOREVER}"))
    eventually(lambda: kubectl.get("sts/still")["status"]["observedGeneration"] == 2)
    assert uids(kubectl.pods("app=still")) == uids([first])
    kubectl("delete", "pod", "still-0")
    eventually(lambda: [command(p)[:3] for p in running(kubectl, "still")] == [": 2"])
    kubectl("delete", "sts", "still")


POLICIES: dict[str, tuple[dict[str, str], list[str], list[str]]] = {
    "keep": ({}, ["0", "1"], ["0", "1"]),
    "scaled": ({"whenScaled": "Delete"}, ["0"], ["0"]),
    "deleted": ({"whenDeleted": "Delete"}, ["0", "1"], []),
    "both": ({"whenScaled": "Delete", "whenDeleted": "Delete"}, ["0"], []),
}
"""By the set's name: what it says of its claims, which are left when it was scaled to one, and
which when it is gone."""


def test_claims_stay_or_go_as_the_set_says(kubectl: Space) -> None:
    claim = {
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }
    for name, (policy, _, _) in POLICIES.items():
        pod = template(name)
        pod["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        body = stateful(name, replicas=2, template=pod, volumeClaimTemplates=[claim])
        body["spec"]["podManagementPolicy"] = "Parallel"
        body["spec"]["persistentVolumeClaimRetentionPolicy"] = policy
        kubectl.apply(body)
    for name in POLICIES:
        kubectl.settled(f"sts/{name}")

    def claims() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {name: [] for name in POLICIES}
        for pvc in names(kubectl.get("pvc")["items"]):
            _, name, ordinal = pvc.split("-")
            found[name].append(ordinal)
        return found

    assert all(left == ["0", "1"] for left in claims().values())
    kubectl("scale", "sts", *POLICIES, "--replicas=1")
    eventually(lambda: claims() == {n: left for n, (_, left, _) in POLICIES.items()})
    for name in POLICIES:
        kubectl("wait", "--for=delete", f"pod/{name}-1", "--timeout=110s")
    kubectl("delete", "sts", *POLICIES)
    eventually(lambda: claims() == {n: left for n, (_, _, left) in POLICIES.items()})
    kubectl("delete", "pvc", "--all", "--wait=false")


def test_a_pod_that_was_evicted_comes_back_under_its_name(kubectl: Space) -> None:
    """A pod that takes the set's host port first makes the kubelet refuse the set's."""
    (node,) = names(kubectl.get("nodes")["items"])
    number = free_port()
    port = {"containerPort": number, "hostPort": number, "name": "conflict"}
    taker = template("x", nodeName=node)
    taker["spec"]["containers"][0]["ports"] = [port]
    kubectl.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "taker"}, "spec": taker["spec"]}
    )
    kubectl.wait("pod/taker", "Ready")
    pod = template("back", nodeName=node)
    pod["spec"]["containers"][0]["ports"] = [port]
    kubectl.apply(stateful("back", replicas=1, template=pod))
    eventually(lambda: "NodePorts" in kubectl.reasons("back-0"))
    eventually(lambda: "RecreatingFailedPod" in kubectl.reasons("back"))
    kubectl("delete", "pod", "taker")
    eventually(lambda: names(running(kubectl, "back")) == ["back-0"])
    kubectl("delete", "sts", "back")
