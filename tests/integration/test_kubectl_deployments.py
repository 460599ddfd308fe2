"""What Deployments can be told, with kubectl on a live cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Instance, eventually
from kubectl_space import FOREVER, Space, command_change, new_space, template, workload

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


def sizes(kubectl: Space, app: str) -> dict[str, int]:
    """The wanted size of each revision."""
    return {
        found["metadata"]["annotations"]["deployment.kubernetes.io/revision"]: found["spec"][
            "replicas"
        ]
        for found in kubectl.get("rs", "-l", f"app={app}")["items"]
    }


def test_a_rollout_that_is_scaled_in_its_middle_keeps_its_proportions(kubectl: Space) -> None:
    strategy = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}
    kubectl.apply(workload("Deployment", "share", replicas=3, strategy=strategy))
    kubectl.settled("deployment/share")
    kubectl.patch("deployment/share", command_change(FOREVER, **GATED))
    eventually(lambda: sizes(kubectl, "share") == {"1": 2, "2": 2})
    kubectl("scale", "deployment/share", "--replicas=7")
    eventually(lambda: sizes(kubectl, "share") == {"1": 4, "2": 4})
    told = lambda: [m for _, m in kubectl.told("share") if "Scaled up" in m]  # noqa: E731
    eventually(lambda: [m for m in told() if "from 2 to 4" in m])
    kubectl("delete", "deployment", "share")


def test_while_paused_nothing_rolls_but_it_scales(kubectl: Space) -> None:
    kubectl.apply(workload("Deployment", "paused", replicas=1))
    kubectl.settled("deployment/paused")
    kubectl("rollout", "pause", "deployment/paused")
    progressing = lambda: kubectl.condition("deployment/paused", "Progressing")["reason"]  # noqa: E731
    eventually(lambda: progressing() == "DeploymentPaused")
    kubectl.patch("deployment/paused", command_change("true; " + FOREVER))
    kubectl("scale", "deployment/paused", "--replicas=2")
    eventually(lambda: sizes(kubectl, "paused") == {"1": 2})
    again = kubectl("rollout", "pause", "deployment/paused", ok=False)
    assert again.code == 1 and "is already paused" in again.err
    kubectl("rollout", "resume", "deployment/paused")
    kubectl.settled("deployment/paused")
    assert sizes(kubectl, "paused") == {"1": 0, "2": 2}
    assert progressing() == "NewReplicaSetAvailable"
    kubectl("delete", "deployment", "paused")


def test_a_rollout_without_progress_is_reported_and_goes_on_when_it_can(kubectl: Space) -> None:
    kubectl.apply(workload("Deployment", "stuck", replicas=1))
    kubectl.settled("deployment/stuck")
    change = command_change(FOREVER, **GATED)
    change["spec"]["progressDeadlineSeconds"] = 2
    kubectl.patch("deployment/stuck", change)
    failed = kubectl("rollout", "status", "deployment/stuck", "--timeout=110s", ok=False)
    assert failed.code == 1
    assert 'deployment "stuck" exceeded its progress deadline' in failed.err
    found = kubectl.condition("deployment/stuck", "Progressing")
    assert (found["status"], found["reason"]) == ("False", "ProgressDeadlineExceeded")
    assert "has timed out progressing." in found["message"]
    assert kubectl.condition("deployment/stuck", "Available")["status"] == "True"

    def new() -> list[str]:
        return [
            pod["metadata"]["name"]
            for pod in kubectl.pods("app=stuck")
            if pod["spec"]["containers"][0].get("readinessProbe")
            and pod["status"]["phase"] == "Running"
        ]

    kubectl("exec", eventually(new)[0], "--", "touch", "/tmp/go")
    eventually(
        lambda: (
            kubectl.condition("deployment/stuck", "Progressing")["reason"]
            == "NewReplicaSetAvailable"
        )
    )
    kubectl("delete", "deployment", "stuck")


def test_a_pod_is_available_when_it_was_ready_for_long_enough(kubectl: Space) -> None:
    kubectl.apply(workload("Deployment", "slow", replicas=1, minReadySeconds=2))
    eventually(lambda: kubectl.get("deployment/slow")["status"].get("readyReplicas") == 1)
    eventually(lambda: kubectl.get("deployment/slow")["status"].get("availableReplicas") == 1)
    (pod,) = kubectl.pods("app=slow")
    ready = next(c for c in pod["status"]["conditions"] if c["type"] == "Ready")
    available = kubectl.condition("deployment/slow", "Available")
    assert available["lastTransitionTime"] > ready["lastTransitionTime"]
    kubectl("delete", "deployment", "slow")


def test_recreate_has_no_two_revisions_at_once_and_keeps_no_more_history_than_it_should(
    kubectl: Space,
) -> None:
    body = workload("Deployment", "anew", replicas=2, revisionHistoryLimit=1)
    body["spec"]["strategy"] = {"type": "Recreate"}
    kubectl.apply(body)
    kubectl.settled("deployment/anew")
    for number in (2, 3):
        kubectl.patch("deployment/anew", command_change(f": {number}; {FOREVER}"))
        kubectl.settled("deployment/anew")
    eventually(lambda: sizes(kubectl, "anew") == {"2": 0, "3": 2})
    told = lambda: [m for _, m in kubectl.told("anew") if "Scaled down" in m]  # noqa: E731
    eventually(lambda: sum("from 2 to 0" in m for m in told()) == 2)
    kubectl("delete", "deployment", "anew")


def test_a_replica_set_of_the_same_name_is_a_collision_and_another_name_is_found(
    kubectl: Space,
) -> None:
    body = workload("Deployment", "hash", replicas=1)
    kubectl.apply(body)
    kubectl.settled("deployment/hash")
    (mine,) = kubectl.get("rs", "-l", "app=hash")["items"]
    kubectl("delete", "deployment", "hash")
    eventually(lambda: not kubectl.get("rs", "-l", "app=hash")["items"])
    strange = workload("ReplicaSet", mine["metadata"]["name"], replicas=0)
    kubectl.apply(strange)
    kubectl.apply(body)
    kubectl.settled("deployment/hash")
    assert kubectl.get("deployment/hash")["status"]["collisionCount"] == 1
    (other,) = kubectl.get("rs", "-l", "app=hash")["items"]
    assert other["metadata"]["name"] != mine["metadata"]["name"]
    kubectl("delete", "deployment", "hash")


def test_what_is_orphaned_is_adopted_and_what_does_not_match_is_let_go(kubectl: Space) -> None:
    body = workload("Deployment", "kin", replicas=2)
    kubectl.apply(body)
    kubectl.settled("deployment/kin")
    before = {p["metadata"]["uid"] for p in kubectl.pods("app=kin")}
    kubectl("delete", "deployment", "kin", "--cascade=orphan")
    (orphan,) = kubectl.get("rs", "-l", "app=kin")["items"]
    assert not orphan["metadata"].get("ownerReferences")
    kubectl.apply(body)
    kubectl.settled("deployment/kin")
    (adopted,) = kubectl.get("rs", "-l", "app=kin")["items"]
    assert adopted["metadata"]["uid"] == orphan["metadata"]["uid"]
    assert adopted["metadata"]["ownerReferences"][0]["name"] == "kin"
    assert {p["metadata"]["uid"] for p in kubectl.pods("app=kin")} == before
    pod = kubectl.pods("app=kin")[0]["metadata"]["name"]
    kubectl("label", "pod", pod, "app=gone", "--overwrite")
    eventually(lambda: not kubectl.get("pod", pod)["metadata"].get("ownerReferences"))
    eventually(lambda: len(kubectl.pods("app=kin")) == 2)
    # It matches again, and there is one too many.
    kubectl("label", "pod", pod, "app=kin", "--overwrite")
    eventually(lambda: len(kubectl.pods("app=kin")) == 2)
    kubectl("delete", "pod", pod, "--ignore-not-found", "--grace-period=0", "--force")
    kubectl("delete", "deployment", "kin")


@pytest.mark.parametrize("kind", ["ReplicaSet", "ReplicationController"])
def test_the_least_missed_pod_goes_first(kubectl: Space, kind: str) -> None:
    name = kind.lower()
    body: dict[str, Any] = workload(kind, name, replicas=3)
    if kind == "ReplicationController":
        body |= {"apiVersion": "v1"}
        body["spec"]["selector"] = {"app": name}
    body["spec"]["template"]["spec"]["containers"][0] |= GATED
    kubectl.apply(body)
    running = lambda: [  # noqa: E731
        p for p in kubectl.pods(f"app={name}") if p["status"]["phase"] == "Running"
    ]
    found = eventually(lambda: len(running()) == 3 and running())
    first, second, third = (p["metadata"]["name"] for p in found)
    for pod in (first, second):
        kubectl("exec", pod, "--", "touch", "/tmp/go")
    eventually(lambda: kubectl.get(f"{kind}/{name}")["status"].get("readyReplicas") == 2)
    kubectl("annotate", "pod", first, "controller.kubernetes.io/pod-deletion-cost=-10")
    kubectl("scale", f"{kind}/{name}", "--replicas=2")
    left = lambda: [p["metadata"]["name"] for p in kubectl.pods(f"app={name}")]  # noqa: E731
    eventually(lambda: left() == [first, second])
    kubectl("scale", f"{kind}/{name}", "--replicas=1")
    eventually(lambda: left() == [second])
    eventually(lambda: f"Deleted pod: {third}" in kubectl.describe(f"{kind}/{name}"))
    kubectl("delete", f"{kind}/{name}")


def test_a_quota_that_is_full_is_a_condition_and_an_event(kubectl: Space) -> None:
    kubectl("create", "quota", "few", "--hard=pods=1")
    try:
        eventually(lambda: kubectl.get("quota/few")["status"].get("hard"))
        kubectl.apply(workload("Deployment", "many", replicas=3))
        eventually(lambda: kubectl.condition("deployment/many", "ReplicaFailure"))
        found = kubectl.condition("deployment/many", "ReplicaFailure")
        assert found["reason"] == "FailedCreate" and "exceeded quota: few" in found["message"]
        (rs,) = kubectl.get("rs", "-l", "app=many")["items"]
        of_it = f"rs/{rs['metadata']['name']}"
        eventually(lambda: "exceeded quota: few" in kubectl.describe(of_it))
    finally:
        kubectl("delete", "quota", "few")
    kubectl.settled("deployment/many")
    eventually(lambda: not kubectl.condition("deployment/many", "ReplicaFailure"))
    kubectl("delete", "deployment", "many")


def test_history_names_the_causes(kubectl: Space) -> None:
    kubectl.apply(workload("Deployment", "cause", replicas=1, template=template("cause")))
    kubectl.settled("deployment/cause")
    kubectl("annotate", "deployment/cause", "kubernetes.io/change-cause=as it began")
    lines = lambda: kubectl("rollout", "history", "deployment/cause").out.split("\n")  # noqa: E731
    eventually(lambda: lines()[2] == "1         as it began")
    kubectl.patch("deployment/cause", command_change(f": 2; {FOREVER}"))
    kubectl("annotate", "deployment/cause", "kubernetes.io/change-cause=another", "--overwrite")
    kubectl.settled("deployment/cause")
    eventually(lambda: lines()[2:4] == ["1         as it began", "2         another"])
    kubectl("rollout", "undo", "deployment/cause", "--to-revision=1")
    kubectl.settled("deployment/cause")
    eventually(lambda: lines()[2:4] == ["2         another", "3         as it began"])
    refused = kubectl("rollout", "undo", "deployment/cause", "--to-revision=9", ok=False)
    assert "unable to find specified revision 9 in history" in refused.err
    body = json.loads(kubectl("get", "deployment/cause", "-o", "json").out)
    assert body["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
    kubectl("delete", "deployment", "cause")
