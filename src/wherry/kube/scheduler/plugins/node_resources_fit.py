"""NodeResourcesFit: a node must have what the pod requests; better one that keeps more free.

The score follows ``scoringStrategy`` in the arguments: LeastAllocated (the default), MostAllocated
or RequestedToCapacityRatio; its ``resources`` say what counts and with which weight (default: cpu
and memory alike).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from wherry.kube.client.transport import Object
from wherry.kube.scheduler import requests
from wherry.kube.scheduler.config import ConfigurationError
from wherry.kube.scheduler.framework import (
    MAX_SCORE,
    Change,
    Cycle,
    Filter,
    Handle,
    Hint,
    Score,
    Verdict,
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


def _least(used: int, allocatable: int) -> int:
    """More for a node that keeps more free."""
    return max(0, allocatable - used) * MAX_SCORE // allocatable


def _most(used: int, allocatable: int) -> int:
    """More for a node that is fuller, so that others stay empty."""
    return min(used, allocatable) * MAX_SCORE // allocatable


def _by_shape(shape: Sequence[Mapping[str, int]]) -> Callable[[int, int], int]:
    """The score that a line through points of utilisation (in percent) and score (0 … 10) gives."""
    points = [(p["utilization"], p["score"] * MAX_SCORE // 10) for p in shape]

    def score(used: int, allocatable: int) -> int:
        utilization = min(used, allocatable) * 100 // allocatable
        before = points[0]
        for point in points:
            if utilization <= point[0]:
                if point[0] == before[0]:
                    return point[1]
                rise = (point[1] - before[1]) * (utilization - before[0])
                return before[1] + int(rise / (point[0] - before[0]))
            before = point
        return before[1]

    return score


class NodeResourcesFit(Filter, Score):
    name = "NodeResourcesFit"

    def __init__(self, handle: Handle, arguments: Mapping[str, Any]) -> None:
        super().__init__(handle, arguments)
        strategy = arguments.get("scoringStrategy") or {}
        resources: Sequence[Mapping[str, Any]] = strategy.get("resources") or _RESOURCES
        self.weights: dict[str, int] = {
            resource["name"]: resource.get("weight") or 1 for resource in resources
        }
        self._ignored = frozenset(arguments.get("ignoredResources") or ())
        self._ignored_groups = frozenset(arguments.get("ignoredResourceGroups") or ())
        self._shaped = False
        self._score: Callable[[int, int], int]
        match strategy.get("type") or "LeastAllocated":
            case "LeastAllocated":
                self._score = _least
            case "MostAllocated":
                self._score = _most
            case "RequestedToCapacityRatio":
                shape = (strategy.get("requestedToCapacityRatio") or {}).get("shape")
                if not shape:
                    raise ConfigurationError("at least one point must be specified")
                self._score, self._shaped = _by_shape(shape), True
            case unknown:
                raise ConfigurationError(
                    f'scoringStrategy.type: Unsupported value: "{unknown}": supported values: '
                    '"LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"'
                )

    def signature(self, pod: PodInfo) -> Hashable:
        return tuple(sorted(pod.requests.items())), tuple(pod.assumed.values())

    def filter(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> Verdict:
        requested, there = node.requested, node.allocatable
        if len(node.pods) < node.max_pods:
            for name, amount in pod.requests.items():
                if amount and amount > there.get(name, 0) - requested.get(name, 0):
                    break
            else:
                return None
        reasons = []
        resolvable = True
        if len(node.pods) + 1 > node.max_pods:
            reasons.append("Too many pods")
        for name, amount in pod.requests.items():
            allocatable = there.get(name, 0)
            if amount and amount > allocatable - requested.get(name, 0):
                if self._is_ignored(name):
                    continue
                reasons.append(f"Insufficient {name}")
                resolvable = resolvable and amount <= allocatable
        return reject(*reasons, resolvable=resolvable) if reasons else None

    def _is_ignored(self, name: str) -> bool:
        """Whether somebody else looks after an extended resource."""
        if "/" not in name:
            return False
        return name in self._ignored or name.partition("/")[0] in self._ignored_groups

    def score(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> int:
        total = weights = 0
        for resource, weight in self.weights.items():
            allocatable = node.allocatable.get(resource, 0)
            if not allocatable:
                continue
            if resource not in pod.assumed and not pod.requests.get(resource):
                continue  # an extended resource that the pod has no use for
            score = self._score(requested_after(pod, node, resource), allocatable)
            if score or not self._shaped:
                total += weight * score
                weights += weight
        if not weights:
            return 0
        return round(total / weights) if self._shaped else total // weights

    def helped_by(self) -> Mapping[Change, Hint]:
        def could_fit(pod: PodInfo, there: Mapping[str, int]) -> bool:
            return all(
                amount <= there.get(name, 0) or self._is_ignored(name)
                for name, amount in pod.requests.items()
            )

        def is_large_enough(pod: PodInfo, old: Object | None, new: Object | None) -> bool:
            status = (new or {}).get("status") or {}
            there = requests.read(status.get("allocatable") or status.get("capacity"))
            return could_fit(pod, there)

        def is_smaller(pod: PodInfo, old: Object | None, new: Object | None) -> bool:
            if old is None or new is None:
                return True
            before, after = requests.of_pod(old["spec"]), requests.of_pod(new["spec"])
            return any(after.get(name, 0) < before.get(name, 0) for name in pod.requests)

        def gives_back(pod: PodInfo, old: Object | None, new: Object | None) -> bool:
            """Whether there is more now of what the pod lacks, where it could fit at all; if it
            does not fit yet, less important pods may now be enough to make room."""
            if old is None:
                return True
            node = self.handle.snapshot.nodes.get(old["spec"].get("nodeName") or "")
            if node is None:
                return True
            if len(node.pods) + 1 >= node.max_pods:
                return True  # a pod less is what it takes
            freed, _ = requests.requested_and_assumed(old["spec"])
            lacking = any(freed.get(name) for name, amount in pod.requests.items() if amount)
            return lacking and could_fit(pod, node.allocatable)

        return {
            Change.NODE_ADDED: is_large_enough,
            Change.NODE_ALLOCATABLE: is_large_enough,
            Change.POD_CHANGED: is_smaller,
            Change.POD_REMOVED: gives_back,
        }
