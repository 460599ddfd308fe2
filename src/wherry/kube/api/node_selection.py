"""Which nodes a pod may be on: ``nodeSelector`` and required node affinity
(https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Term = Mapping[str, Any]


def affinity(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """The pod's ``nodeAffinity``, empty where it has none."""
    return (spec.get("affinity") or {}).get("nodeAffinity") or {}


def required_terms(spec: Mapping[str, Any]) -> Sequence[Term] | None:
    """The terms of which one must match; None where nothing is demanded."""
    required = affinity(spec).get("requiredDuringSchedulingIgnoredDuringExecution")
    return None if required is None else required.get("nodeSelectorTerms") or ()


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
    terms = required_terms(spec)
    return terms is None or any(term_matches(term, labels, name) for term in terms)
