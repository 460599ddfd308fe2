"""The cluster as the scheduler sees it: nodes, and the pods on each with what they take.

It is kept up to date change by change and never rebuilt. A pod that was given a node is *assumed*
there at once, before the server knows; the informer confirms it later, or the scheduler forgets it.
Every change gives the node a new ``generation`` and a line in ``changes``, so that what was found
out about the node as it was before is not mistaken for what it is.
"""

from __future__ import annotations

from wherry.kube.api import meta
from wherry.kube.client.transport import Object
from wherry.kube.scheduler.node_info import NodeInfo, PodInfo
from wherry.kube.scheduler.population import Population

_LONGEST_LOG = 100_000


class ChangeLog:
    """Names of nodes that changed, in order; readers remember up to where they have read."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._first = 0

    @property
    def end(self) -> int:
        """Where a reader is who has read everything."""
        return self._first + len(self._names)

    def add(self, name: str) -> None:
        if len(self._names) >= _LONGEST_LOG:
            self._first += len(self._names) // 2
            del self._names[: len(self._names) // 2]
        self._names.append(name)

    def since(self, position: int) -> list[str] | None:
        """What changed behind ``position``; None where that is not kept any more."""
        if position < self._first:
            return None
        return self._names[position - self._first :]


class Snapshot:
    """All nodes that exist, and where each pod is."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeInfo] = {}
        self._order: list[NodeInfo] = []
        self._ordered = True
        # Nodes that pods are on although we have not heard of them (yet, or any more).
        self._unknown: dict[str, NodeInfo] = {}
        self._places: dict[str, str] = {}
        self.changes = ChangeLog()
        self.population = Population(self.nodes)
        self.image_nodes: dict[str, int] = {}
        """How many nodes have an image, by each of its names."""

    def ordered(self) -> list[NodeInfo]:
        """The nodes as a list, the same one until nodes come or go."""
        if not self._ordered:
            self._order = list(self.nodes.values())
            self._ordered = True
        return self._order

    def set_node(self, node: Object) -> None:
        """A node was made or changed."""
        name = meta.name(node)
        info = self.nodes.get(name)
        if info is None:
            info = self._unknown.pop(name, None) or NodeInfo(name)
            info.set_object(node)
            self.nodes[name] = info
            self._ordered = False
            self.population.node_changed(info, {})
            self._count_images(info, {})
        else:
            before = info.labels, info.taints, info.unschedulable
            images = info.images
            info.set_object(node)
            if (info.labels, info.taints, info.unschedulable) != before:
                self.population.node_changed(info, before[0])
            self._count_images(info, images)
        self.changes.add(name)

    def _count_images(self, info: NodeInfo, before: dict[str, int]) -> None:
        if info.images.keys() == before.keys():
            return
        for name in info.images.keys() - before.keys():
            self.image_nodes[name] = self.image_nodes.get(name, 0) + 1
        for name in before.keys() - info.images.keys():
            self.image_nodes[name] -= 1

    def remove_node(self, name: str) -> None:
        """A node is gone; pods on it may yet linger."""
        info = self.nodes.pop(name, None)
        if info is None:
            return
        self._ordered = False
        self.population.node_gone(info)
        images, info.images = info.images, {}
        self._count_images(info, images)
        if info.pods:
            self._unknown[name] = info
        self.changes.add(name)

    def place_of(self, uid: str) -> str | None:
        """The node a pod is on, assumed or confirmed."""
        return self._places.get(uid)

    def pod(self, uid: str) -> PodInfo | None:
        """A pod that is on a node."""
        name = self._places.get(uid, "")
        info = self.nodes.get(name) or self._unknown.get(name)
        return info.pods.get(uid) if info is not None else None

    def put(self, pod: PodInfo, node: str) -> None:
        """The pod is on the node, or is assumed to be; it is nowhere else any more."""
        if pod.uid in self._places:
            self.remove(pod.uid)
        self._places[pod.uid] = node
        info = self.nodes.get(node)
        if info is None:
            info = self._unknown.setdefault(node, NodeInfo(node))
        info.add(pod)
        self.population.add(pod, node)
        self.changes.add(node)

    def remove(self, uid: str) -> PodInfo | None:
        """The pod is on no node any more."""
        name = self._places.pop(uid, None)
        if name is None:
            return None
        info = self.nodes.get(name) or self._unknown[name]
        pod = info.remove(uid)
        if pod is not None:
            self.population.remove(pod, name)
        if name in self._unknown and not info.pods:
            del self._unknown[name]
        self.changes.add(name)
        return pod


__all__ = ["ChangeLog", "NodeInfo", "PodInfo", "Snapshot"]
