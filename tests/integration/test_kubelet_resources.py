"""What pods may use on a real node: cgroups, resizes, refusals, evictions for what they wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Instance, eventually

FOREVER = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


def make(cluster: Instance, namespace: str, name: str, **container: Any) -> None:
    spec = container.pop("spec", {})
    main = {"name": "main", "image": "hello:1", "command": ["sh", "-c", FOREVER], **container}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [main], **spec},
    }
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(pod))


def ready(cluster: Instance, namespace: str, name: str) -> dict[str, Any]:
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", f"pod/{name}")
    return cluster.get("pod", name, "-n", namespace)


def group(pod: dict[str, Any], controller: str, file: tuple[str, str]) -> str:
    """A file of the pod's own cgroup, by its name in v1 or v2."""
    uid = pod["metadata"]["uid"]
    for root, name in ((f"/sys/fs/cgroup/{controller}", file[0]), ("/sys/fs/cgroup", file[1])):
        for found in Path(root).glob(f"wherry*/kubepods/**/pod{uid}"):
            if (found / name).exists():
                return (found / name).read_text().strip()
    pytest.fail(f"the pod has no cgroup with {file}")


MEMORY = ("memory.limit_in_bytes", "memory.max")


def test_a_pod_is_limited_as_a_whole_and_resized_while_it_runs(
    cluster: Instance, namespace: str
) -> None:
    resources = {
        "requests": {"cpu": "100m", "memory": "32Mi"},
        "limits": {"cpu": "200m", "memory": "64Mi"},
    }
    make(cluster, namespace, "one", resources=resources)
    pod = ready(cluster, namespace, "one")
    assert pod["status"]["qosClass"] == "Burstable"
    assert group(pod, "memory", MEMORY) == str(64 << 20)
    started = pod["status"]["containerStatuses"][0]["containerID"]
    wanted = {
        "requests": {"cpu": "150m", "memory": "48Mi"},
        "limits": {"cpu": "300m", "memory": "96Mi"},
    }
    patch = {"spec": {"containers": [{"name": "main", "resources": wanted}]}}
    cluster.kubectl(
        *("-n", namespace, "patch", "pod", "one", "--subresource", "resize"),
        *("-p", json.dumps(patch)),
    )

    def status() -> dict[str, Any]:
        found = cluster.get("pod", "one", "-n", namespace)["status"]
        return found["containerStatuses"][0]

    eventually(lambda: status().get("resources") == wanted)
    assert status()["containerID"] == started and status()["restartCount"] == 0
    assert status()["allocatedResources"] == wanted["requests"]
    assert group(pod, "memory", MEMORY) == str(96 << 20)
    limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || " + (
        "cat /sys/fs/cgroup/memory.max"
    )
    inside = cluster.kubectl("-n", namespace, "exec", "one", "--", "sh", "-c", limit).out
    assert inside.strip() == str(96 << 20)

    # More than the node has is told, and nothing changes.
    patch["spec"]["containers"][0]["resources"] = {
        "requests": {"cpu": "150m", "memory": "48Mi"},
        "limits": {"cpu": "300m", "memory": "96Mi"},
    }
    patch["spec"]["containers"][0]["resources"] = {
        "requests": {"cpu": "1000"},
        "limits": {"cpu": "1000"},
    }
    cluster.kubectl(
        *("-n", namespace, "patch", "pod", "one", "--subresource", "resize"),
        *("-p", json.dumps(patch)),
    )

    def pending() -> dict[str, Any]:
        conditions = cluster.get("pod", "one", "-n", namespace)["status"]["conditions"]
        return next((c for c in conditions if c["type"] == "PodResizePending"), {})

    eventually(lambda: pending().get("reason") == "Infeasible")
    assert "Node didn't have enough capacity: cpu" in pending()["message"]
    assert status()["resources"] == wanted


def test_a_pod_for_which_there_is_no_room_is_refused(cluster: Instance, namespace: str) -> None:
    node = cluster.get("nodes")["items"][0]["metadata"]["name"]
    make(
        *(cluster, namespace, "large"),
        resources={"requests": {"cpu": "1000"}},
        spec={"nodeName": node},
    )

    def status() -> dict[str, Any]:
        return cluster.get("pod", "large", "-n", namespace)["status"]

    eventually(lambda: status()["phase"] == "Failed")
    assert status()["reason"] == "OutOfcpu"
    text = "Pod was rejected: Node didn't have enough resource: cpu, requested: 1000000, used: "
    assert status()["message"].startswith(text)
    row = cluster.kubectl("-n", namespace, "get", "pod", "large", "--no-headers").out.split()
    assert row[1:3] == ["0/1", "OutOfcpu"]
    make(
        *(cluster, namespace, "elsewhere"),
        spec={"nodeName": node, "nodeSelector": {"place": "moon"}},
    )
    eventually(
        lambda: (
            cluster.get("pod", "elsewhere", "-n", namespace)["status"].get("reason")
            == "NodeAffinity"
        )
    )


def test_who_writes_more_than_it_may_is_put_off(cluster: Instance, namespace: str) -> None:
    write = f"dd if=/dev/zero of=/data/x bs=1M count=3 2>/dev/null; {FOREVER}"
    make(
        *(cluster, namespace, "full"),
        command=["sh", "-c", write],
        volumeMounts=[{"name": "data", "mountPath": "/data"}],
        spec={"volumes": [{"name": "data", "emptyDir": {"sizeLimit": "1Mi"}}]},
    )

    def status() -> dict[str, Any]:
        return cluster.get("pod", "full", "-n", namespace)["status"]

    eventually(lambda: status()["phase"] == "Failed")
    assert status()["reason"] == "Evicted"
    assert status()["message"] == 'Usage of EmptyDir volume "data" exceeds the limit "1Mi". '
    target = next(c for c in status()["conditions"] if c["type"] == "DisruptionTarget")
    assert (target["status"], target["reason"]) == ("True", "TerminationByKubelet")


def test_cpu_memory_and_the_order_of_kills_follow_the_class(
    cluster: Instance, namespace: str
) -> None:
    """Where the pod's group lies, its weight and its limits, and whom the kernel kills first."""
    full = {"cpu": "500m", "memory": "64Mi"}
    make(cluster, namespace, "guaranteed", resources={"requests": full, "limits": full})
    make(
        *(cluster, namespace, "burstable"),
        resources={"requests": {"cpu": "250m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
    )
    make(cluster, namespace, "besteffort")
    shares = {"guaranteed": 512, "burstable": 256, "besteffort": 2}
    place = {"guaranteed": "kubepods/", "burstable": "burstable/", "besteffort": "besteffort/"}
    limit = {"guaranteed": str(64 << 20), "burstable": str(128 << 20)}
    scores = {}
    for name, wanted in shares.items():
        pod = ready(cluster, namespace, name)
        assert pod["status"]["qosClass"].lower() == name
        weight = 1 + (wanted - 2) * 9999 // 262142
        told = group(pod, "cpu", ("cpu.shares", "cpu.weight"))
        assert int(told) in (wanted, weight), name
        if name in limit:
            assert group(pod, "memory", MEMORY) == limit[name]
        id_ = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("docker://")
        pid = cluster.docker("inspect", "-f", "{{.State.Pid}}", id_).out.strip()
        groups = Path(f"/proc/{pid}/cgroup").read_text()
        assert f"{place[name]}pod{pod['metadata']['uid']}/" in groups
        scores[name] = int(Path(f"/proc/{pid}/oom_score_adj").read_text())
    assert scores["besteffort"] == 1000
    assert scores["guaranteed"] < scores["burstable"] < 1000
    quota = group(
        cluster.get("pod", "guaranteed", "-n", namespace),
        *("cpu", ("cpu.cfs_quota_us", "cpu.max")),
    )
    assert quota.split()[0] == "50000"
