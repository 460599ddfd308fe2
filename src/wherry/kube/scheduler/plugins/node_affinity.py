"""NodeAffinity: nodes by their labels, demanded (``nodeSelector``, required terms) or preferred
(https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import orjson

from wherry.kube.api import meta
from wherry.kube.client.transport import Object
from wherry.kube.scheduler.framework import (
    Change,
    Cycle,
    Filter,
    Hint,
    PreFilter,
    Score,
    Verdict,
    normalize,
    reject,
)
from wherry.kube.scheduler.snapshot import NodeInfo, PodInfo

_REJECTED = reject("node(s) didn't match Pod's node affinity/selector", resolvable=False)

Term = Mapping[str, Any]


def _affinity(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    return (spec.get("affinity") or {}).get("nodeAffinity") or {}


def _required(spec: Mapping[str, Any]) -> Sequence[Term] | None:
    required = _affinity(spec).get("requiredDuringSchedulingIgnoredDuringExecution")
    return None if required is None else required.get("nodeSelectorTerms") or ()


def _preferred(spec: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return _affinity(spec).get("preferredDuringSchedulingIgnoredDuringExecution") or ()


def term_matches(term: Term, labels: Mapping[str, str], name: str) -> bool:
    """Whether all of the term's requirements hold; a term without any matches nothing."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    return all(_holds(e, labels) for e in expressions) and all(
        _holds(e, {"metadata.name": name}) for e in fields
    )


def _holds(requirement: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement["key"])
    values: Sequence[str] = requirement.get("values") or ()
    match requirement["operator"]:
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value is None or value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            try:
                have, limit = int(value or ""), int(values[0])
            except (ValueError, IndexError):
                return False
            return have > limit if operator == "Gt" else have < limit
    return False


def matches(spec: Mapping[str, Any], labels: Mapping[str, str], name: str) -> bool:
    """Whether a pod of this spec may be on a node of that name with those labels."""
    for key, value in (spec.get("nodeSelector") or {}).items():
        if labels.get(key) != value:
            return False
    terms = _required(spec)
    return terms is None or any(term_matches(term, labels, name) for term in terms)


def _named_nodes(spec: Mapping[str, Any]) -> frozenset[str] | None:
    """The only nodes that can match, where every term names its nodes."""
    terms = _required(spec)
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

    def signature(self, pod: PodInfo) -> Hashable:
        selector, affinity = pod.spec.get("nodeSelector"), _affinity(pod.spec)
        return orjson.dumps([selector, affinity]) if selector or affinity else b""

    def pre_filter(self, cycle: Cycle, pod: PodInfo) -> Verdict | frozenset[str]:
        names = _named_nodes(pod.spec)
        if names is None:
            return None
        return names or reject("pod affinity terms conflict", resolvable=False)

    def filter(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> Verdict:
        return None if matches(pod.spec, node.labels, node.name) else _REJECTED

    def score(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> int:
        return sum(
            preference["weight"]
            for preference in _preferred(pod.spec)
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
