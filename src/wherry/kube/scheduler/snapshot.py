"""The cluster as the scheduler sees it: nodes, and the pods on each with what they take.

It is kept up to date change by change and never rebuilt. A pod that was given a node is *assumed*
there at once, before the server knows; the informer confirms it later, or the scheduler forgets it.
Every change gives the node a new ``generation``, so that what was found out about the node as it
was before is not mistaken for what it is.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

from wherry.kube.api import meta
from wherry.kube.client.transport import Object
from wherry.kube.scheduler import requests
from wherry.kube.scheduler.requests import Port, Resources

_generations = itertools.count(1)


class PodInfo:
    """A pod with what is worked out from its spec once."""

    __slots__ = ("assumed", "object", "ports", "priority", "requests", "signatures")

    def __init__(self, object: Object) -> None:
        spec = object["spec"]
        self.object = object
        self.requests: Resources = requests.of_pod(spec)
        self.assumed: Resources = requests.assumed(spec)
        self.ports: list[Port] = requests.host_ports(spec)
        self.priority: int = spec.get("priority") or 0
        self.signatures: Any = None
        """For the scheduler's own use: see ``algorithm``."""

    @property
    def uid(self) -> str:
        return meta.uid(self.object)

    @property
    def key(self) -> str:
        return meta.key(self.object)

    @property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.object["spec"]
        return spec


class NodeInfo:
    """A node, its pods, and sums over them."""

    __slots__ = (
        "allocatable",
        "assumed",
        "generation",
        "labels",
        "max_pods",
        "name",
        "object",
        "pods",
        "ports",
        "requested",
        "taints",
        "unschedulable",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.object: Object | None = None
        self.labels: dict[str, str] = {}
        self.taints: list[dict[str, Any]] = []
        self.unschedulable = False
        self.allocatable: Resources = {}
        self.max_pods = 0
        self.pods: dict[str, PodInfo] = {}
        self.requested: Resources = {}
        self.assumed: Resources = {"cpu": 0, "memory": 0}
        self.ports: Counter[Port] = Counter()
        self.generation = next(_generations)

    def set_object(self, node: Object) -> None:
        """The node was made or changed."""
        spec, status = node.get("spec") or {}, node.get("status") or {}
        self.object = node
        self.labels = meta.labels(node)
        self.taints = spec.get("taints") or []
        self.unschedulable = bool(spec.get("unschedulable"))
        self.allocatable = requests.read(status.get("allocatable") or status.get("capacity"))
        self.max_pods = self.allocatable.pop("pods", 0)
        self.generation = next(_generations)

    def add(self, pod: PodInfo) -> None:
        self.pods[pod.uid] = pod
        self._count(pod, 1)

    def remove(self, uid: str) -> PodInfo | None:
        pod = self.pods.pop(uid, None)
        if pod is not None:
            self._count(pod, -1)
        return pod

    def _count(self, pod: PodInfo, sign: int) -> None:
        for name, amount in pod.requests.items():
            self.requested[name] = self.requested.get(name, 0) + sign * amount
        for name, amount in pod.assumed.items():
            self.assumed[name] += sign * amount
        for port in pod.ports:
            self.ports[port] += sign
            if not self.ports[port]:
                del self.ports[port]
        self.generation = next(_generations)

    def without(self, uids: set[str]) -> NodeInfo:
        """The node as it would be without these pods; a copy."""
        copy = NodeInfo(self.name)
        if self.object is not None:
            copy.set_object(self.object)
        for uid, pod in self.pods.items():
            if uid not in uids:
                copy.add(pod)
        return copy


class Snapshot:
    """All nodes that exist, and where each pod is."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeInfo] = {}
        self._order: list[NodeInfo] = []
        self._ordered = True
        # Nodes that pods are on although we have not heard of them (yet, or any more).
        self._unknown: dict[str, NodeInfo] = {}
        self._places: dict[str, str] = {}

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
            known = self._unknown.pop(name) if name in self._unknown else None
            info = self.nodes[name] = known or NodeInfo(name)
            self._ordered = False
        info.set_object(node)

    def remove_node(self, name: str) -> None:
        """A node is gone; pods on it may yet linger."""
        info = self.nodes.pop(name, None)
        if info is None:
            return
        self._ordered = False
        if info.pods:
            self._unknown[name] = info

    def place_of(self, uid: str) -> str | None:
        """The node a pod is on, assumed or confirmed."""
        return self._places.get(uid)

    def put(self, pod: PodInfo, node: str) -> None:
        """The pod is on the node, or is assumed to be; it is nowhere else any more."""
        if pod.uid in self._places:
            self.remove(pod.uid)
        self._places[pod.uid] = node
        info = self.nodes.get(node)
        if info is None:
            info = self._unknown.setdefault(node, NodeInfo(node))
        info.add(pod)

    def remove(self, uid: str) -> PodInfo | None:
        """The pod is on no node any more."""
        name = self._places.pop(uid, None)
        if name is None:
            return None
        info = self.nodes.get(name) or self._unknown[name]
        pod = info.remove(uid)
        if name in self._unknown and not info.pods:
            del self._unknown[name]
        return pod
