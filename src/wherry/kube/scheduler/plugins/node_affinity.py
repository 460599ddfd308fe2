"""NodeAffinity: nodes by their labels, demanded (``nodeSelector``, required terms) or preferred
(https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import orjson

from wherry.kube.api import meta
from wherry.kube.api.node_selection import affinity as node_affinity
from wherry.kube.api.node_selection import matches, required_terms, term_matches
from wherry.kube.client.transport import Object
from wherry.kube.scheduler.framework import (
    Change,
    Cycle,
    Filter,
    Handle,
    Hint,
    PreFilter,
    Score,
    Verdict,
    normalize,
    reject,
)
from wherry.kube.scheduler.snapshot import NodeInfo, PodInfo

_REJECTED = reject("node(s) didn't match Pod's node affinity/selector", resolvable=False)

_NOT_ENFORCED = reject("node(s) didn't match scheduler-enforced node affinity", resolvable=False)


def _preferred(spec: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return node_affinity(spec).get("preferredDuringSchedulingIgnoredDuringExecution") or ()


def _named_nodes(spec: Mapping[str, Any]) -> frozenset[str] | None:
    """The only nodes that can match, where every term names its nodes."""
    terms = required_terms(spec)
    if not terms:
        return None
    names: set[str] = set()
    for term in terms:
        named = [
            set(field.get("values") or ())
            for field in term.get("matchFields") or ()
            if field.get("key") == "metadata.name" and field.get("operator") == "In"
        ]
        if not named:
            return None
        names |= set.intersection(*named)
    return frozenset(names)


class NodeAffinity(PreFilter, Filter, Score):
    name = "NodeAffinity"

    def __init__(self, handle: Handle, arguments: Mapping[str, Any]) -> None:
        super().__init__(handle, arguments)
        added = arguments.get("addedAffinity")
        self._added = {"affinity": {"nodeAffinity": added}} if added else None
        """What the configuration demands of the nodes of all pods."""

    def signature(self, pod: PodInfo) -> Hashable:
        selector, affinity = pod.spec.get("nodeSelector"), node_affinity(pod.spec)
        return orjson.dumps([selector, affinity]) if selector or affinity else b""

    def pre_filter(self, cycle: Cycle, pod: PodInfo) -> Verdict | frozenset[str]:
        names = _named_nodes(pod.spec)
        if names is None:
            return None
        return names or reject("pod affinity terms conflict", resolvable=False)

    def filter(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> Verdict:
        if self._added is not None and not matches(self._added, node.labels, node.name):
            return _NOT_ENFORCED
        return None if matches(pod.spec, node.labels, node.name) else _REJECTED

    def score(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> int:
        return sum(
            preference["weight"]
            for preference in (*_preferred(pod.spec), *_preferred(self._added or {}))
            if term_matches(preference.get("preference") or {}, node.labels, node.name)
        )

    def normalize(self, scores: list[int]) -> list[int]:
        return normalize(scores)

    def helped_by(self) -> Mapping[Change, Hint]:
        def now_matches(pod: PodInfo, old: Object | None, new: Object | None) -> bool:
            if new is None or not matches(pod.spec, meta.labels(new), meta.name(new)):
                return False
            return old is None or not matches(pod.spec, meta.labels(old), meta.name(old))

        return {Change.NODE_ADDED: now_matches, Change.NODE_LABELS: now_matches}
