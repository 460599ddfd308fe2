"""ImageLocality: rather a node that has the pod's images already.

How far an image has spread over the nodes counts, too, so that the first node to have it does not
get all pods; it counts as it was when the node was last looked at.
"""

from __future__ import annotations

from collections.abc import Hashable

from wherry.kube.scheduler.framework import IDLE, MAX_SCORE, Cycle, Score
from wherry.kube.scheduler.snapshot import NodeInfo, PodInfo

_LEAST = 23 * 1024 * 1024
_MOST = 1000 * 1024 * 1024


def _names(pod: PodInfo) -> tuple[str, ...]:
    parts = (*(pod.spec.get("initContainers") or ()), *(pod.spec.get("containers") or ()))
    return tuple(_normalized(part.get("image") or "") for part in parts)


def _normalized(name: str) -> str:
    return name if name.rfind(":") > name.rfind("/") else f"{name}:latest"


class ImageLocality(Score):
    name = "ImageLocality"

    def signature(self, pod: PodInfo) -> Hashable:
        return _names(pod) or IDLE

    def score(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> int:
        if not node.images:
            return 0
        names = _names(pod)
        nodes = len(cycle.snapshot.nodes) or 1
        spread = cycle.snapshot.image_nodes
        found = sum(
            node.images[name] * spread.get(name, 0) // nodes
            for name in names
            if name in node.images
        )
        most = _MOST * len(names)
        found = max(_LEAST, min(found, most))
        return MAX_SCORE * (found - _LEAST) // (most - _LEAST)
