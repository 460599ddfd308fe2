"""A pod and a node as the scheduler looks at them: what is worked out from each once."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

from wherry.kube.api import meta
from wherry.kube.client.transport import Object
from wherry.kube.scheduler import requests
from wherry.kube.scheduler.affinity_terms import Term, terms_of
from wherry.kube.scheduler.requests import Port, Resources

_generations = itertools.count(1)


class PodInfo:
    """A pod with what is worked out from its spec once."""

    __slots__ = (
        "assumed",
        "claim_keys",
        "claims",
        "is_leaving",
        "label_set",
        "labels",
        "namespace",
        "object",
        "ports",
        "priority",
        "requests",
        "signatures",
        "spec",
        "spread",
        "terms",
        "uid",
    )

    def __init__(self, object: Object) -> None:
        spec = object["spec"]
        self.object = object
        self.spec: dict[str, Any] = spec
        self.uid: str = meta.uid(object)
        self.namespace: str = meta.namespace(object)
        self.labels: dict[str, str] = meta.labels(object)
        self.label_set = frozenset(self.labels.items())
        self.is_leaving = meta.is_deleting(object)
        self.requests, self.assumed = requests.requested_and_assumed(spec)
        self.ports: list[Port] = requests.host_ports(spec)
        self.priority: int = spec.get("priority") or 0
        self.terms: tuple[Term, ...] = terms_of(self.namespace, self.labels, spec.get("affinity"))
        self.claims: tuple[tuple[str, bool], ...] = _claims(object)
        """Names of claims, and whether each is made for the pod itself."""
        self.claim_keys = tuple([f"{self.namespace}/{name}" for name, _ in self.claims])
        self.signatures: Any = None
        """For the scheduler's own use: see ``algorithm``."""
        self.spread: Any = None
        """The same for ``pod_topology_spread``: the constraints, once they were read."""

    @property
    def key(self) -> str:
        return meta.key(self.object)


def _claims(pod: Object) -> tuple[tuple[str, bool], ...]:
    found = []
    for volume in pod["spec"].get("volumes") or ():
        if "persistentVolumeClaim" in volume:
            found.append((volume["persistentVolumeClaim"]["claimName"], False))
        elif "ephemeral" in volume:
            found.append((f"{meta.name(pod)}-{volume['name']}", True))
    return tuple(found)


class NodeInfo:
    """A node, its pods, and sums over them."""

    __slots__ = (
        "added",
        "allocatable",
        "assumed",
        "generation",
        "images",
        "labels",
        "max_pods",
        "name",
        "object",
        "pods",
        "ports",
        "removed",
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
        self.images: dict[str, int] = {}
        """Sizes of the images that the node has, by each of their names."""
        self.allocatable: Resources = {}
        self.max_pods = 0
        self.pods: dict[str, PodInfo] = {}
        self.requested: Resources = {}
        self.assumed: Resources = {"cpu": 0, "memory": 0}
        self.ports: Counter[Port] = Counter()
        self.generation = next(_generations)
        self.removed: dict[str, PodInfo] = {}
        """In a copy: the pods that are not there although the snapshot has them."""
        self.added: dict[str, PodInfo] = {}
        """In a copy: the pods that are there although the snapshot has them not."""

    def set_object(self, node: Object) -> None:
        """The node was made or changed."""
        spec, status = node.get("spec") or {}, node.get("status") or {}
        self.object = node
        self.labels = meta.labels(node)
        self.taints = spec.get("taints") or []
        self.unschedulable = bool(spec.get("unschedulable"))
        self.images = {
            name: image.get("sizeBytes") or 0
            for image in status.get("images") or ()
            for name in image.get("names") or ()
        }
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

    # -- what if

    def copy(self) -> NodeInfo:
        """One with which pods can be moved in thought, by ``take`` and ``give``."""
        copy = NodeInfo(self.name)
        for name in ("object", "labels", "taints", "unschedulable", "images", "max_pods"):
            setattr(copy, name, getattr(self, name))
        copy.allocatable = self.allocatable
        copy.pods = dict(self.pods)
        copy.requested, copy.assumed = dict(self.requested), dict(self.assumed)
        copy.ports = Counter(self.ports)
        copy.removed, copy.added = dict(self.removed), dict(self.added)
        return copy

    def take(self, pod: PodInfo) -> None:
        """As if the pod were not on the node; only for copies."""
        self.remove(pod.uid)
        if self.added.pop(pod.uid, None) is None:
            self.removed[pod.uid] = pod

    def give(self, pod: PodInfo) -> None:
        """As if the pod were on the node; only for copies."""
        self.add(pod)
        if self.removed.pop(pod.uid, None) is None:
            self.added[pod.uid] = pod
