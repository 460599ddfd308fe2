"""InterPodAffinity: near to pods that are placed already, or apart from them
(https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#inter-pod-affinity-and-anti-affinity).

Both ways: what the pod demands of those that are there, and what those demand of it. All of it is
counted by domains (``population``); where each node is a domain of its own, the count belongs to
the node's facet, elsewhere the domain does.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.resources import NAMESPACES
from wherry.kube.client.transport import Object
from wherry.kube.scheduler.affinity_terms import Kind, Term, terms_of
from wherry.kube.scheduler.framework import (
    IDLE,
    MAX_SCORE,
    Change,
    Cycle,
    Faceted,
    Handle,
    Hint,
    PreFilter,
    Verdict,
    always,
    reject,
)
from wherry.kube.scheduler.selection import Reach
from wherry.kube.scheduler.snapshot import NodeInfo, PodInfo

_NOT_NEAR = reject("node(s) didn't match pod affinity rules", resolvable=False)
_NOT_APART = reject("node(s) didn't match pod anti-affinity rules")
_OTHERS_APART = reject("node(s) didn't satisfy existing pods anti-affinity rules")


@dataclass(slots=True)
class _Counted:
    """A term and the pods by domain that it concerns; ``weight`` for preferences."""

    key: str
    counts: Mapping[str, int]
    own: bool
    """Whether the pod has the term, not those that are placed."""
    terms: tuple[Term, ...]
    unique: bool
    """Whether each node is a domain of its own."""
    weight: int = 0

    def facet(self, node: NodeInfo) -> Hashable:
        value = node.labels.get(self.key)
        if value is None:
            return None
        return self.counts.get(value, 0) if self.unique else value

    def of_facet(self, facet: Any) -> int | None:
        """How many pods there are, None where the node has no such label."""
        if facet is None:
            return None
        return int(facet) if self.unique else self.counts.get(facet, 0)


@dataclass(slots=True)
class _State:
    """What concerns one pod."""

    near: list[_Counted] = field(default_factory=list)
    apart: list[_Counted] = field(default_factory=list)
    against: list[_Counted] = field(default_factory=list)
    preferred: list[_Counted] = field(default_factory=list)
    first_of_its_kind: bool = False
    identity: Hashable = IDLE

    def hard(self) -> list[_Counted]:
        return [*self.near, *self.apart, *self.against]

    def all(self) -> list[_Counted]:
        return [*self.near, *self.apart, *self.against, *self.preferred]


class InterPodAffinity(PreFilter, Faceted):
    name = "InterPodAffinity"
    lasting_signature = False

    def __init__(self, handle: Handle, arguments: Mapping[str, Any]) -> None:
        super().__init__(handle, arguments)
        self._hard_weight = int(arguments.get("hardPodAffinityWeight", 1))
        self._ignore_others = bool(arguments.get("ignorePreferredTermsOfExistingPods"))
        self._namespaces = handle.informers.informer(NAMESPACES)
        self._namespaces.add_handlers(
            on_add=lambda new: self._namespace_changed(None, new),
            on_update=self._namespace_changed,
        )
        self._last: tuple[PodInfo | None, _State] = None, _State()

    def _namespace_changed(self, old: Object | None, new: Object) -> None:
        if old is None or meta.labels(old) != meta.labels(new):
            self.handle.snapshot.population.forget_tallies()
            self.handle.wake(Change.NAMESPACE, old, new)

    def _namespace_labels(self, name: str) -> Mapping[str, str]:
        found = self._namespaces.get(None, name)
        return meta.labels(found) if found is not None else {}

    def _selects(self, term: Term, namespace: str, labels: Mapping[str, str]) -> bool:
        return term.selects(namespace, labels, self._namespace_labels)

    # -- what concerns the pod

    def pre_filter(self, cycle: Cycle, pod: PodInfo) -> Verdict | frozenset[str]:
        state = self._state(pod)
        self._last = pod, state
        cycle.data[self.name] = state
        return None

    def signature(self, pod: PodInfo) -> Hashable:
        known, state = self._last
        return (state if known is pod else self._state(pod)).identity

    def _state(self, pod: PodInfo) -> _State:
        state = _State()
        by_kind: dict[Kind, list[Term]] = {}
        for term in pod.terms:
            by_kind.setdefault(term.kind, []).append(term)
        near = tuple(by_kind.get(Kind.NEAR, ()))
        for term in near:
            state.near.append(self._count(term.key, near))
        if near:
            nowhere = not any(each.counts for each in state.near)
            itself = all(self._selects(term, pod.namespace, pod.labels) for term in near)
            state.first_of_its_kind = nowhere and itself
        for term in by_kind.get(Kind.APART, ()):
            state.apart.append(self._count(term.key, (term,)))
        state.against = self._held(pod, Kind.APART, 0)
        for kind, sign in ((Kind.RATHER_NEAR, 1), (Kind.RATHER_APART, -1)):
            for term in by_kind.get(kind, ()):
                state.preferred.append(self._count(term.key, (term,), sign * term.weight))
        has_preferences = bool(state.preferred)
        if not self._ignore_others or has_preferences:
            if self._hard_weight:
                state.preferred += self._held(pod, Kind.NEAR, 0, self._hard_weight)
            state.preferred += self._held(pod, Kind.RATHER_NEAR, 1)
            state.preferred += self._held(pod, Kind.RATHER_APART, -1)
        found = state.all()
        if found:
            state.identity = tuple([(c.own, c.terms, c.unique, c.weight) for c in found])
        return state

    def _count(self, key: str, terms: tuple[Term, ...], weight: int = 0) -> _Counted:
        """Placed pods that all the terms select, by the domains of ``key``."""

        def selects(namespace: str, labels: Mapping[str, str]) -> bool:
            return all(self._selects(term, namespace, labels) for term in terms)

        population = self.handle.snapshot.population
        topology = population.topology(key)
        by_labels = any(term.namespace_selector is not None for term in terms)
        reach = Reach(None if by_labels else terms[0].namespaces, terms[0].reach.labels)
        tally = population.tally(("affinity", key, terms), topology, selects, reach)
        return _Counted(key, tally.counts, True, terms, topology.unique, weight)

    def _held(self, pod: PodInfo, kind: Kind, sign: int, weight: int = 0) -> list[_Counted]:
        """Terms of placed pods that concern this one."""
        population = self.handle.snapshot.population
        return [
            _Counted(
                held.term.key,
                held.domains,
                False,
                (held.term,),
                population.is_unique(held.term.key),
                weight or sign * held.term.weight,
            )
            for held in population.held(kind, pod)
            if self._selects(held.term, pod.namespace, pod.labels)
        ]

    # -- judging

    def facet(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> Hashable:
        state: _State = cycle.data[self.name]
        return tuple([counted.facet(node) for counted in state.all()])

    def facet_verdict(self, cycle: Cycle, pod: PodInfo, facet: Any) -> Verdict:
        state: _State = cycle.data[self.name]
        hard = state.hard()
        return _judge(state, [c.of_facet(part) for c, part in zip(hard, facet, strict=False)])

    def facet_scores(
        self, cycle: Cycle, pod: PodInfo, facets: Sequence[tuple[Any, int]]
    ) -> list[int]:
        state: _State = cycle.data[self.name]
        begin = len(state.hard())
        if not state.preferred:
            return [0] * len(facets)
        raw = [
            sum(
                c.weight * (c.of_facet(part) or 0)
                for c, part in zip(state.preferred, facet[begin:], strict=True)
            )
            for facet, _ in facets
        ]
        lowest, highest = min(raw, default=0), max(raw, default=0)
        if highest == lowest:
            return [0] * len(raw)
        return [MAX_SCORE * (score - lowest) // (highest - lowest) for score in raw]

    def filter(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> Verdict:
        state: _State | None = cycle.data.get(self.name)
        if state is None:
            return None
        counts: list[int | None] = []
        for counted in state.hard():
            value = node.labels.get(counted.key)
            if value is None:
                counts.append(None)
                continue
            count = counted.counts.get(value, 0)
            if node.removed or node.added:
                count += self._moved(counted, pod, node)
            counts.append(count)
        return _judge(state, counts)

    def _moved(self, counted: _Counted, pod: PodInfo, node: NodeInfo) -> int:
        """The difference that pods make which are on the node, or not, in thought."""

        def concerned(other: PodInfo) -> int:
            if counted.own:
                return all(
                    self._selects(term, other.namespace, other.labels) for term in counted.terms
                )
            return other.terms.count(counted.terms[0])

        return sum(map(concerned, node.added.values())) - sum(map(concerned, node.removed.values()))

    # -- waking

    def helped_by(self) -> Mapping[Change, Hint]:
        def came(pod: PodInfo, old: Object | None, new: Object | None) -> bool:
            """One that the pod wants to be near to."""
            near = [term for term in pod.terms if term.kind is Kind.NEAR]
            return (
                new is not None
                and all(self._selects(term, meta.namespace(new), meta.labels(new)) for term in near)
                and bool(near)
            )

        def went(pod: PodInfo, old: Object | None, new: Object | None) -> bool:
            """One from which the pod must be apart, or which must be from the pod."""
            if old is None:
                return False
            namespace, labels = meta.namespace(old), meta.labels(old)
            if any(
                term.kind is Kind.APART and self._selects(term, namespace, labels)
                for term in pod.terms
            ):
                return True
            return any(
                term.kind is Kind.APART and self._selects(term, pod.namespace, pod.labels)
                for term in terms_of(namespace, labels, old["spec"].get("affinity"))
            )

        def changed(pod: PodInfo, old: Object | None, new: Object | None) -> bool:
            return came(pod, old, new) or went(pod, old, new)

        return {
            Change.POD_ADDED: came,
            Change.POD_REMOVED: went,
            Change.POD_CHANGED: changed,
            Change.NAMESPACE: always,
            Change.NODE_ADDED: always,
            Change.NODE_LABELS: always,
        }


def _judge(state: _State, counts: Sequence[int | None]) -> Verdict:
    """What follows from the counts of a node's domains, in the order of ``state.hard``."""
    there = True
    for number in range(len(state.near)):
        count = counts[number]
        if count is None:
            return _NOT_NEAR
        if count <= 0:
            there = False
    if not there and not state.first_of_its_kind:
        return _NOT_NEAR
    behind = len(state.near) + len(state.apart)
    for number in range(len(state.near), behind):
        if (counts[number] or 0) > 0:
            return _NOT_APART
    for number in range(behind, len(counts)):
        if (counts[number] or 0) > 0:
            return _OTHERS_APART
    return None
