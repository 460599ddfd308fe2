"""NodeResourcesFit: a node must have what the pod requests; better one that keeps more free.

The score is upstream's LeastAllocated strategy; ``resources`` in the arguments names what it counts
and with which weight (default: cpu and memory alike).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from wherry.kube.client.transport import Object
from wherry.kube.scheduler import requests
from wherry.kube.scheduler.framework import (
    MAX_SCORE,
    Change,
    Cycle,
    Filter,
    Handle,
    Hint,
    Score,
    Verdict,
    always,
    reject,
)
from wherry.kube.scheduler.snapshot import NodeInfo, PodInfo

_RESOURCES = ({"name": "cpu", "weight": 1}, {"name": "memory", "weight": 1})


def requested_after(pod: PodInfo, node: NodeInfo, resource: str) -> int:
    """What is requested of the node with the pod on it; pods that request no cpu or memory count
    with what is assumed for them."""
    if resource in pod.assumed:
        return pod.assumed[resource] + node.assumed[resource]
    return pod.requests.get(resource, 0) + node.requested.get(resource, 0)


class NodeResourcesFit(Filter, Score):
    name = "NodeResourcesFit"

    def __init__(self, handle: Handle, arguments: Mapping[str, Any]) -> None:
        super().__init__(handle, arguments)
        strategy = arguments.get("scoringStrategy") or {}
        resources: Sequence[Mapping[str, Any]] = strategy.get("resources") or _RESOURCES
        self.weights: dict[str, int] = {
            resource["name"]: resource.get("weight") or 1 for resource in resources
        }

    def signature(self, pod: PodInfo) -> Hashable:
        return tuple(sorted(pod.requests.items())), tuple(pod.assumed.values())

    def filter(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> Verdict:
        reasons = []
        resolvable = True
        if len(node.pods) + 1 > node.max_pods:
            reasons.append("Too many pods")
        for name, amount in pod.requests.items():
            allocatable = node.allocatable.get(name, 0)
            if amount and amount > allocatable - node.requested.get(name, 0):
                reasons.append(f"Insufficient {name}")
                resolvable = resolvable and amount <= allocatable
        return reject(*reasons, resolvable=resolvable) if reasons else None

    def score(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> int:
        total = weights = 0
        for resource, weight in self.weights.items():
            allocatable = node.allocatable.get(resource, 0)
            if not allocatable:
                continue
            free = allocatable - requested_after(pod, node, resource)
            total += weight * (max(0, free) * MAX_SCORE // allocatable)
            weights += weight
        return total // weights if weights else 0

    def helped_by(self) -> Mapping[Change, Hint]:
        def is_large_enough(pod: PodInfo, old: Object | None, new: Object | None) -> bool:
            status = (new or {}).get("status") or {}
            there = requests.read(status.get("allocatable") or status.get("capacity"))
            return all(amount <= there.get(name, 0) for name, amount in pod.requests.items())

        return {
            Change.NODE_ADDED: is_large_enough,
            Change.NODE_ALLOCATABLE: is_large_enough,
            Change.POD_REMOVED: always,
        }
