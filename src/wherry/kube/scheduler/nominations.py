"""Pods for which others were asked to leave a node: until they are there, their room is theirs."""

from __future__ import annotations

from wherry.kube.scheduler.snapshot import PodInfo


class Nominations:
    """Waiting pods and the node that each has been promised."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[PodInfo, str]] = {}
        self._on: dict[str, dict[str, PodInfo]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def put(self, pod: PodInfo, node: str) -> None:
        """The pod waits for room on the node, and nowhere else any more."""
        self.remove(pod.uid)
        self._places[pod.uid] = pod, node
        self._on.setdefault(node, {})[pod.uid] = pod

    def remove(self, uid: str) -> None:
        """The pod has found a place, or is promised none any more."""
        known = self._places.pop(uid, None)
        if known is not None:
            pods = self._on[known[1]]
            del pods[uid]
            if not pods:
                del self._on[known[1]]

    def node_of(self, uid: str) -> str:
        """The node that the pod is promised; empty where there is none."""
        known = self._places.get(uid)
        return known[1] if known is not None else ""

    def before(self, pod: PodInfo, node: str) -> list[PodInfo]:
        """Other pods with a claim on the node that this pod must leave room for."""
        return [
            other
            for other in self._on.get(node, {}).values()
            if other.priority >= pod.priority and other.uid != pod.uid
        ]

    def behind(self, pod: PodInfo, node: str) -> list[PodInfo]:
        """Less important pods that may lose their promise when this one goes to the node."""
        return [o for o in self._on.get(node, {}).values() if o.priority < pod.priority]
