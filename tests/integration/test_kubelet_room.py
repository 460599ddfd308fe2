"""Critical pods that find no room on a node of their own: others make it, as kubectl shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Instance, eventually
from pods_on_node import container, events, make, ready

MESSAGE = "Preempted in order to admit critical pod"
PATIENCE = 60.0


@pytest.fixture(scope="module")
def alone(new_instance: Callable[[], Instance]) -> Instance:
    """An instance on which nobody asks for CPUs but these tests' pods."""
    instance = new_instance()
    instance.wherry("up", "--sample")
    instance.kubectl("delete", "deployment,daemonset,statefulset", "--all")
    return instance


def room(cluster: Instance) -> int:
    """Thousandths of a CPU that pods may request together."""
    (node,) = cluster.get("nodes")["items"]
    text = str(node["status"]["allocatable"]["cpu"])
    return int(text[:-1]) if text.endswith("m") else int(text) * 1000


def requesting(cpu: int, **fields: Any) -> dict[str, Any]:
    return container(resources={"requests": {"cpu": f"{cpu}m"}}, **fields)


def status(cluster: Instance, name: str) -> dict[str, Any]:
    return dict(cluster.get("pod", name)["status"])


def on_node(cluster: Instance) -> dict[str, Any]:
    """The scheduler is not asked: its own preemption is not what is tried."""
    return {"nodeName": cluster.get("nodes")["items"][0]["metadata"]["name"]}


@pytest.fixture
def crowd(alone: Instance) -> Any:
    """Pods of every class that leave a tenth of the CPUs."""
    tenth = room(alone) // 10
    limits = {"cpu": f"{2 * tenth}m", "memory": "32Mi"}
    make(alone, "default", "best-effort")
    make(alone, "default", "small", requesting(2 * tenth))
    make(alone, "default", "large", requesting(5 * tenth))
    make(alone, "default", "guaranteed", container(resources={"limits": limits}))
    ready(alone, "default", "best-effort", "small", "large", "guaranteed")
    yield tenth
    alone.kubectl("delete", "pod", "--all", "--now")


def test_a_critical_pod_takes_the_room_of_the_one_that_fits_best(
    alone: Instance, crowd: int
) -> None:
    make(
        *(alone, "default", "vip", requesting(3 * crowd)),
        priorityClassName="system-node-critical",
        **on_node(alone),
    )
    ready(alone, "default", "vip")
    eventually(lambda: status(alone, "small")["phase"] == "Failed", seconds=PATIENCE)
    gone = status(alone, "small")
    assert (gone["phase"], gone["reason"], gone["message"]) == ("Failed", "Preempting", MESSAGE)
    target = next(c for c in gone["conditions"] if c["type"] == "DisruptionTarget")
    assert (target["status"], target["reason"]) == ("True", "TerminationByKubelet")
    assert target["message"] == "Pod was preempted by Kubelet to accommodate a critical pod."
    assert "terminated" in gone["containerStatuses"][0]["state"]
    eventually(lambda: MESSAGE in events(alone, "default", "small"), seconds=PATIENCE)
    for name in ("best-effort", "large", "guaranteed"):
        assert status(alone, name)["phase"] == "Running", name
    metrics = alone.kubectl(
        "get", "--raw", f"/api/v1/nodes/{on_node(alone)['nodeName']}/proxy/metrics"
    )
    assert 'kubelet_preemptions{preemption_signal="cpu"} 1' in metrics.out


def test_guaranteed_pods_go_last_and_static_ones_are_critical(alone: Instance, crowd: int) -> None:
    """All that request anything must go for a static pod that wants nine tenths."""
    file = alone.data_dir / "manifests" / "vip.json"
    spec = {"terminationGracePeriodSeconds": 1, "containers": [requesting(9 * crowd)]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "fixed"}, "spec": spec}
    name = f"fixed-{on_node(alone)['nodeName']}"
    try:
        file.write_text(json.dumps(pod))
        eventually(lambda: alone.kubectl("get", "pod", name, ok=False).code == 0, seconds=PATIENCE)
        ready(alone, "default", name)
        for each in ("small", "large", "guaranteed"):
            eventually(lambda n=each: status(alone, n).get("reason") == "Preempting")
        assert status(alone, "best-effort")["phase"] == "Running"
    finally:
        file.unlink()
    eventually(lambda: alone.kubectl("get", "pod", name, ok=False).code == 1, seconds=PATIENCE)


def test_what_takes_its_time_to_end_is_waited_for(alone: Instance, crowd: int) -> None:
    slow = "trap 'sleep 3; exit 0' TERM; while :; do sleep 0.1; done"
    alone.kubectl("delete", "pod", "large", "small", "--now")
    make(
        *(alone, "default", "slow", requesting(7 * crowd, command=slow)),
        terminationGracePeriodSeconds=60,
    )
    ready(alone, "default", "slow")
    make(
        *(alone, "default", "vip", requesting(7 * crowd)),
        priorityClassName="system-cluster-critical",
        **on_node(alone),
    )
    ready(alone, "default", "vip")
    slowly = lambda: status(alone, "slow")["containerStatuses"][0]["state"]  # noqa: E731
    ended = eventually(lambda: slowly().get("terminated"))
    began = status(alone, "vip")["containerStatuses"][0]["state"]["running"]["startedAt"]
    assert ended["exitCode"] == 0
    assert began >= ended["finishedAt"]  # in whole seconds, both


def test_who_wants_more_than_all_others_have_is_refused(alone: Instance, crowd: int) -> None:
    make(
        *(alone, "default", "vip", requesting(20 * crowd)),
        priorityClassName="system-node-critical",
        **on_node(alone),
    )
    eventually(lambda: status(alone, "vip")["phase"] == "Failed", seconds=PATIENCE)
    told = status(alone, "vip")
    assert told["reason"] == "UnexpectedAdmissionError"
    assert "no set of running pods found to reclaim resources: [(res: cpu, q: " in told["message"]
    assert status(alone, "large")["phase"] == "Running"
    # One that is not critical is told what is missing, and nobody goes.
    make(alone, "default", "plain", requesting(3 * crowd), **on_node(alone))
    eventually(lambda: status(alone, "plain").get("reason") == "OutOfcpu", seconds=PATIENCE)
    assert status(alone, "small")["phase"] == "Running"
