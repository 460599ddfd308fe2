"""NodeResourcesBalancedAllocation: better a node on which cpu and memory are used up alike, so that
neither is left over."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from wherry.kube.scheduler.framework import MAX_SCORE, Cycle, Handle, Score
from wherry.kube.scheduler.snapshot import NodeInfo, PodInfo

_RESOURCES = ("cpu", "memory")


class NodeResourcesBalancedAllocation(Score):
    name = "NodeResourcesBalancedAllocation"

    def __init__(self, handle: Handle, arguments: Mapping[str, Any]) -> None:
        super().__init__(handle, arguments)
        named = [resource["name"] for resource in arguments.get("resources") or ()]
        self._resources: Sequence[str] = named or _RESOURCES

    def signature(self, pod: PodInfo) -> Hashable:
        return tuple([pod.requests.get(resource, 0) for resource in self._resources])

    def score(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> int:
        requests = pod.requests
        if not any(requests.get(resource) for resource in self._resources):
            return 0  # a pod that requests nothing shifts no balance
        fractions = []
        for resource in self._resources:
            allocatable = node.allocatable.get(resource, 0)
            if allocatable:
                used = requests.get(resource, 0) + node.requested.get(resource, 0)
                fractions.append(min(1.0, used / allocatable))
        if len(fractions) == 2:
            return int((1 - abs(fractions[0] - fractions[1]) / 2) * MAX_SCORE)
        if not fractions:
            return 0
        mean = sum(fractions) / len(fractions)
        deviation = math.sqrt(sum((f - mean) ** 2 for f in fractions) / len(fractions))
        return int((1 - deviation) * MAX_SCORE)
