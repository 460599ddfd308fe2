"""A node that is short of something, by thresholds that no machine can meet."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import Instance, eventually

CONFIG = """
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
maxPods: 50
evictionHard: {memory.available: 99.9%}
evictionPressureTransitionPeriod: 1s
"""


def test_a_node_without_memory_says_so_and_takes_no_best_effort_pods(
    new_instance: Callable[[], Instance], tmp_path: Path
) -> None:
    file = tmp_path / "kubelet.yaml"
    file.write_text(CONFIG)
    instance = new_instance()
    instance.wherry("up", "--kubelet-config", str(file))
    (node,) = instance.get("nodes")["items"]
    conditions = {c["type"]: c for c in node["status"]["conditions"]}
    assert conditions["MemoryPressure"]["status"] == "True"
    assert conditions["MemoryPressure"]["reason"] == "KubeletHasInsufficientMemory"
    assert node["status"]["capacity"]["pods"] == "50"

    def taints() -> list[str]:
        (found,) = instance.get("nodes")["items"]
        return [t["key"] for t in found["spec"].get("taints") or ()]

    eventually(lambda: "node.kubernetes.io/memory-pressure" in taints())
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "poor"},
        "spec": {
            "nodeName": node["metadata"]["name"],
            "containers": [{"name": "c", "image": "wherry.io/busybox:1"}],
        },
    }
    eventually(lambda: instance.kubectl("get", "sa", "default", ok=False).code == 0)
    instance.kubectl("apply", "-f", "-", stdin=json.dumps(pod))

    def status() -> dict[str, Any]:
        return instance.get("pod", "poor")["status"]

    eventually(lambda: status()["phase"] == "Failed")
    assert status()["reason"] == "Evicted"
    expected = "Pod was rejected: The node had condition: [MemoryPressure]. "
    assert status()["message"] == expected
