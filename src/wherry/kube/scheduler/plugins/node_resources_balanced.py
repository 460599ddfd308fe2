"""NodeResourcesBalancedAllocation: better a node on which cpu and memory are used up alike, so that
neither is left over."""

from __future__ import annotations

import math
from collections.abc import Hashable

from wherry.kube.scheduler.framework import MAX_SCORE, Cycle, Score
from wherry.kube.scheduler.snapshot import NodeInfo, PodInfo

_RESOURCES = ("cpu", "memory")


class NodeResourcesBalancedAllocation(Score):
    name = "NodeResourcesBalancedAllocation"

    def signature(self, pod: PodInfo) -> Hashable:
        return tuple(pod.requests.get(resource, 0) for resource in _RESOURCES)

    def score(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> int:
        if not any(pod.requests.get(resource) for resource in _RESOURCES):
            return 0  # a pod that requests nothing shifts no balance
        fractions = []
        for resource in _RESOURCES:
            allocatable = node.allocatable.get(resource, 0)
            if allocatable:
                used = pod.requests.get(resource, 0) + node.requested.get(resource, 0)
                fractions.append(min(1.0, used / allocatable))
        if not fractions:
            return 0
        mean = sum(fractions) / len(fractions)
        deviation = math.sqrt(sum((f - mean) ** 2 for f in fractions) / len(fractions))
        return int((1 - deviation) * MAX_SCORE)
