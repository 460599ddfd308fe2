"""Labels of nodes that have newer names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from wherry.kube.api.names import is_label_value

DEPRECATED_LABELS = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": (
        'deprecated since v1.17; use "topology.kubernetes.io/region" instead'
    ),
    "failure-domain.beta.kubernetes.io/zone": (
        'deprecated since v1.17; use "topology.kubernetes.io/zone" instead'
    ),
    "beta.kubernetes.io/instance-type": (
        'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead'
    ),
    "app.kubernetes.io/created-by": "deprecated since v1.9",
    "scheduler.alpha.kubernetes.io/preferAvoidPods": (
        "deprecated since v1.22; use Taints and Tolerations instead"
    ),
    "node-role.kubernetes.io/master": 'use "node-role.kubernetes.io/control-plane" instead',
}


def in_expressions(
    expressions: Iterable[Mapping[str, Any]], path: str, *, values: bool = False
) -> list[str]:
    """Deprecated keys of match expressions, and (``values``) values that are no label's."""
    told = []
    for i, expression in enumerate(expressions):
        key = expression.get("key", "")
        if why := DEPRECATED_LABELS.get(key):
            told.append(f"{path}[{i}].key: {key} is {why}")
        if values:
            for j, value in enumerate(expression.get("values") or ()):
                told += [
                    f"{path}[{i}].values[{j}]: {value} is invalid, {why}"
                    for why in is_label_value(value)
                ]
    return told


def in_terms(terms: Iterable[Mapping[str, Any]], path: str) -> list[str]:
    """Deprecated keys in terms of a node selector."""
    return [
        text
        for i, term in enumerate(terms)
        for text in in_expressions(
            term.get("matchExpressions") or (), f"{path}[{i}].matchExpressions"
        )
    ]
