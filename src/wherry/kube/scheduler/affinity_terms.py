"""The terms of pod affinity and anti-affinity, read once
(https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#inter-pod-affinity-and-anti-affinity).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Any

import orjson

from wherry.kube.api.selectors import LabelSelector, Requirement, labels_from_object
from wherry.kube.scheduler.selection import Reach

NamespaceLabels = Callable[[str], Mapping[str, str]]
"""The labels of a namespace, empty where it is not known."""


class Kind(Enum):
    """What a term says of the pods that it selects."""

    NEAR = "required affinity"
    APART = "required anti-affinity"
    RATHER_NEAR = "preferred affinity"
    RATHER_APART = "preferred anti-affinity"


@dataclass(frozen=True, slots=True)
class Term:
    """One term; ``namespaces`` are those it names, ``namespace_selector`` selects more."""

    kind: Kind
    key: str
    namespaces: frozenset[str]
    namespace_selector: LabelSelector | None
    selector: LabelSelector
    weight: int = 0
    reach: Reach = field(init=False, compare=False, repr=False)
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        parts = (self.kind, self.key, self.namespaces, self.namespace_selector, self.selector)
        object.__setattr__(self, "_hash", hash((parts, self.weight)))
        within = self.namespaces if self.namespace_selector is None else None
        object.__setattr__(self, "reach", Reach.of(within, self.selector))

    def __hash__(self) -> int:
        return self._hash

    def selects(
        self, namespace: str, labels: Mapping[str, str], namespace_labels: NamespaceLabels
    ) -> bool:
        """Whether pods of the namespace with such labels are meant."""
        if namespace not in self.namespaces:
            wanted = self.namespace_selector
            if wanted is None:
                return False
            if not wanted.empty and not wanted.matches(namespace_labels(namespace)):
                return False
        return self.selector.matches(labels)


_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def terms_of(
    namespace: str, labels: Mapping[str, str], affinity: Mapping[str, Any] | None
) -> tuple[Term, ...]:
    """All terms of pod affinity and anti-affinity in ``spec.affinity``."""
    if not affinity or not (affinity.get("podAffinity") or affinity.get("podAntiAffinity")):
        return ()
    keys = sorted(_label_keys(affinity))
    used = tuple((key, labels[key]) for key in keys if key in labels)
    return _parse(namespace, used, orjson.dumps(affinity))


def _label_keys(affinity: Mapping[str, Any]) -> set[str]:
    keys: set[str] = set()
    for side in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(side) or {}
        terms = list(rules.get(_REQUIRED) or ())
        terms += [
            preferred.get("podAffinityTerm") or {} for preferred in rules.get(_PREFERRED) or ()
        ]
        for term in terms:
            keys.update(term.get("matchLabelKeys") or ())
            keys.update(term.get("mismatchLabelKeys") or ())
    return keys


@lru_cache(4096)
def _parse(namespace: str, labels: tuple[tuple[str, str], ...], text: bytes) -> tuple[Term, ...]:
    affinity = orjson.loads(text)
    own = dict(labels)
    terms = []
    sides = (
        ("podAffinity", Kind.NEAR, Kind.RATHER_NEAR),
        ("podAntiAffinity", Kind.APART, Kind.RATHER_APART),
    )
    for side, required, preferred in sides:
        rules = affinity.get(side) or {}
        terms += [_term(required, t, namespace, own, 0) for t in rules.get(_REQUIRED) or ()]
        terms += [
            _term(preferred, t.get("podAffinityTerm") or {}, namespace, own, t.get("weight") or 0)
            for t in rules.get(_PREFERRED) or ()
        ]
    return tuple(terms)


def _term(
    kind: Kind, term: Mapping[str, Any], namespace: str, labels: Mapping[str, str], weight: int
) -> Term:
    named = term.get("namespaces") or ()
    selector = term.get("namespaceSelector")
    if not named and selector is None:
        named = (namespace,)
    return Term(
        kind,
        term.get("topologyKey") or "",
        frozenset(named),
        None if selector is None else labels_from_object(selector),
        with_label_keys(
            labels_from_object(term.get("labelSelector")),
            labels,
            term.get("matchLabelKeys") or (),
            term.get("mismatchLabelKeys") or (),
        ),
        weight,
    )


def with_label_keys(
    selector: LabelSelector,
    labels: Mapping[str, str],
    match: tuple[str, ...] | list[str],
    mismatch: tuple[str, ...] | list[str] = (),
) -> LabelSelector:
    """The selector that also demands the pod's own values of some labels, or others than them."""
    more = [Requirement(key, "in", (labels[key],)) for key in match if key in labels]
    more += [Requirement(key, "notin", (labels[key],)) for key in mismatch if key in labels]
    if selector.nothing or not more:
        return selector
    return LabelSelector(tuple(dict.fromkeys((*selector.requirements, *more))))
