"""The last two samples of every node, and what was used between them.

Held is what the kubelets last told of and nothing else: a pod or a node that is told of no more is
forgotten. Upstream: metrics-server/pkg/storage.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from wherry.kube.api import meta, spans
from wherry.kube.api.quantity import Quantity, from_int
from wherry.kube.client.transport import Object
from wherry.kube.metrics.samples import Pod, Point, Sample

_FRESH = 10.0  # seconds that something must have run to be judged by its start alone


@dataclass(frozen=True, slots=True)
class Usage:
    """Cores of CPU over ``window`` seconds before ``at``, and bytes of memory at that moment."""

    cpu: float
    memory: int
    window: float
    at: float

    def usage(self) -> Object:
        return {
            "cpu": str(Quantity(round(self.cpu * 10**9))),
            "memory": str(from_int(self.memory, "BinarySI")),
        }

    def times(self) -> Object:
        """When that was, as the API has it."""
        moment = datetime.fromtimestamp(self.at, UTC)
        window = spans.text(round(self.window * 1000) * 10**6)
        return {"timestamp": meta.format_time(moment), "window": window}


@dataclass(frozen=True, slots=True)
class _Pair:
    last: Point
    before: Point | None = None

    def usage(self) -> Usage | None:
        if self.before is None:
            return None
        window = self.last.at - self.before.at
        spent = (self.last.cpu - self.before.cpu) / window
        return Usage(spent, self.last.memory, window, self.last.at)


@dataclass(slots=True)
class _Node:
    node: _Pair | None
    pods: dict[Pod, dict[str, _Pair]]


class Usages:
    """What is known of all nodes. ``resolution`` is the time between samples, in seconds."""

    def __init__(self, resolution: float) -> None:
        self._resolution = resolution
        self._nodes: dict[str, _Node] = {}
        self._place: dict[Pod, str] = {}

    def put(self, node: str, sample: Sample) -> None:
        """What the kubelet of ``node`` told now."""
        before = self._nodes.get(node)
        self.forget(node)
        whole = None
        if sample.node is not None:
            whole = self._pair(before.node if before else None, sample.node)
        pods = {}
        for key, containers in sample.pods.items():
            known = before.pods.get(key, {}) if before else {}
            pods[key] = {
                name: self._pair(known.get(name), point) for name, point in containers.items()
            }
            self._place[key] = node
        self._nodes[node] = _Node(whole, pods)

    def forget(self, node: str) -> None:
        """Nobody tells of it."""
        gone = self._nodes.pop(node, None)
        for key in gone.pods if gone else ():
            if self._place.get(key) == node:
                del self._place[key]

    def keep(self, nodes: set[str]) -> None:
        """Forget all other nodes."""
        for name in set(self._nodes) - nodes:
            self.forget(name)

    def node(self, name: str) -> Usage | None:
        found = self._nodes.get(name)
        return found.node.usage() if found and found.node else None

    def pod(self, namespace: str, name: str) -> dict[str, Usage] | None:
        """By container; None as long as one of them has no figure."""
        place = self._place.get((namespace, name))
        if place is None:
            return None
        usages = {}
        for container, pair in self._nodes[place].pods[namespace, name].items():
            usage = pair.usage()
            if usage is None:
                return None
            usages[container] = usage
        return usages

    def _pair(self, known: _Pair | None, point: Point) -> _Pair:
        if known is not None:
            if point.at <= known.last.at:  # the kubelet has not looked again
                return known
            if point.cpu >= known.last.cpu and point.started <= known.last.at:
                return _Pair(point, known.last)
        if point.started and _FRESH <= point.at - point.started < self._resolution:
            return _Pair(point, Point(0.0, 0, point.started))
        return _Pair(point)
