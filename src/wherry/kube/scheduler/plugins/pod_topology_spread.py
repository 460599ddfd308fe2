"""PodTopologySpread: pods of one kind evenly over zones, nodes or whatever a label names
(https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/).

``DoNotSchedule`` filters, ``ScheduleAnyway`` scores. Pods without constraints that belong to a
Service or an owner with a selector are spread softly by the defaults. Pods are counted by domain
(``population``), once for all pods with the same constraint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson

from wherry.kube.api import meta
from wherry.kube.api.node_selection import affinity as node_affinity
from wherry.kube.api.node_selection import matches
from wherry.kube.api.resources import (
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    SERVICES,
    STATEFUL_SETS,
    Resource,
)
from wherry.kube.api.selectors import LabelSelector, labels_from_object, labels_from_set
from wherry.kube.api.taints import NO_EXECUTE, NO_SCHEDULE, untolerated
from wherry.kube.client.transport import Object
from wherry.kube.scheduler.affinity_terms import with_label_keys
from wherry.kube.scheduler.config import ConfigurationError
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
from wherry.kube.scheduler.topology import Tally

_UNEVEN = reject("node(s) didn't match pod topology spread constraints")
_NO_LABEL = reject(
    "node(s) didn't match pod topology spread constraints (missing required label)",
    resolvable=False,
)
_HARD, _SOFT = "DoNotSchedule", "ScheduleAnyway"

_SYSTEM_DEFAULTS = (
    {"topologyKey": "kubernetes.io/hostname", "maxSkew": 3, "whenUnsatisfiable": _SOFT},
    {"topologyKey": "topology.kubernetes.io/zone", "maxSkew": 5, "whenUnsatisfiable": _SOFT},
)


@dataclass(frozen=True, slots=True)
class Constraint:
    """One constraint as it is read."""

    key: str
    max_skew: int
    hard: bool
    min_domains: int
    selector: LabelSelector
    honor_affinity: bool
    honor_taints: bool


@lru_cache(4096)
def _read(text: bytes, labels: tuple[tuple[str, str], ...]) -> tuple[Constraint, ...]:
    own = dict(labels)
    return tuple(
        Constraint(
            constraint["topologyKey"],
            constraint["maxSkew"],
            constraint.get("whenUnsatisfiable") != _SOFT,
            constraint.get("minDomains") or 1,
            with_label_keys(
                labels_from_object(constraint.get("labelSelector")),
                own,
                constraint.get("matchLabelKeys") or (),
            ),
            constraint.get("nodeAffinityPolicy") != "Ignore",
            constraint.get("nodeTaintsPolicy") == "Honor",
        )
        for constraint in orjson.loads(text)
    )


def constraints_of(pod: PodInfo) -> tuple[Constraint, ...]:
    """The constraints that the pod itself has."""
    found: tuple[Constraint, ...] | None = pod.spread
    if found is None:
        stated = pod.spec.get("topologySpreadConstraints")
        found = pod.spread = _constraints(pod, stated) if stated else ()
    return found


def _constraints(pod: PodInfo, stated: Sequence[Mapping[str, Any]]) -> tuple[Constraint, ...]:
    keys = {key for constraint in stated for key in constraint.get("matchLabelKeys") or ()}
    used = tuple((key, pod.labels[key]) for key in sorted(keys) if key in pod.labels)
    return _read(orjson.dumps(stated), used)


@dataclass(slots=True)
class _Counted:
    """A constraint and the pods that count for it."""

    constraint: Constraint
    tally: Tally
    itself: int
    """1 where the pod is one of those it is to be spread among."""
    unique: bool
    lowest: int | None = None

    def least(self, value: str | None = None, moved: int = 0) -> int:
        """The count of the emptiest domain; with ``moved`` more pods in ``value``, in thought."""
        if len(self.tally.topology.domains) < self.constraint.min_domains:
            return 0
        if moved and value is not None:
            return self.tally.least_with(value, moved)
        if self.lowest is None:
            self.lowest = self.tally.least()
        return self.lowest


@dataclass(slots=True)
class _State:
    hard: list[_Counted] = field(default_factory=list)
    soft: list[_Counted] = field(default_factory=list)
    all_keys: bool = True
    """Whether nodes without one of the soft constraints' labels are left out of the scores."""
    identity: Hashable = IDLE


class PodTopologySpread(PreFilter, Faceted):
    name = "PodTopologySpread"
    lasting_signature = False

    def __init__(self, handle: Handle, arguments: Mapping[str, Any]) -> None:
        super().__init__(handle, arguments)
        kind = arguments.get("defaultingType") or "System"
        defaults = arguments.get("defaultConstraints") or ()
        if kind == "System" and defaults:
            raise ConfigurationError(
                "defaultConstraints: Invalid value: when .defaultingType is System, "
                "constraints must be empty"
            )
        self._system = kind == "System"
        self._defaults = _SYSTEM_DEFAULTS if self._system else tuple(defaults)
        self._owners: dict[tuple[str, str], _Selectors] = {}
        self._default_selectors: dict[Hashable, LabelSelector | None] = {}
        if self._defaults:
            self._services = handle.informers.informer(SERVICES)
            self._services.add_indexer("namespace", lambda o: (meta.namespace(o),))
            self._hear(SERVICES)
            for resource in (REPLICATION_CONTROLLERS, REPLICA_SETS, STATEFUL_SETS):
                informer = handle.informers.informer(resource)
                of_set = resource is REPLICATION_CONTROLLERS
                self._owners[resource.api_version, resource.kind] = informer.get, of_set
                self._hear(resource)
        self._last: tuple[PodInfo | None, _State] = None, _State()

    def _hear(self, resource: Resource) -> None:
        def forget(*objects: Object) -> None:
            if len(objects) == 1 or objects[0]["spec"] != objects[1]["spec"]:
                self._default_selectors.clear()

        self.handle.informers.informer(resource).add_handlers(
            on_add=forget, on_update=forget, on_delete=forget
        )

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
        constraints = constraints_of(pod)
        if not constraints and self._defaults:
            constraints = self._default(pod)
            state.all_keys = not self._system
        if not constraints:
            return state
        for hard, found in ((True, state.hard), (False, state.soft)):
            chosen = [c for c in constraints if c.hard is hard]
            keys = tuple(sorted({c.key for c in chosen})) if hard or state.all_keys else ()
            found += [self._count(pod, constraint, keys) for constraint in chosen]
        every = (*state.hard, *state.soft)
        state.identity = tuple([(c.constraint, c.unique, c.itself) for c in every]), pod.namespace
        return state

    def _count(self, pod: PodInfo, constraint: Constraint, keys: tuple[str, ...]) -> _Counted:
        """Pods of the pod's namespace that count for the constraint, on nodes that do."""
        selector, own = constraint.selector, pod.namespace
        where, tolerations = b"", b""
        if constraint.honor_affinity and (pod.spec.get("nodeSelector") or node_affinity(pod.spec)):
            where = orjson.dumps([pod.spec.get("nodeSelector"), node_affinity(pod.spec)])
        if constraint.honor_taints:
            tolerations = orjson.dumps(pod.spec.get("tolerations") or [])
        population = self.handle.snapshot.population
        topology = population.topology(
            constraint.key,
            keys,
            eligibility=(where, tolerations) if where or tolerations else None,
            eligible=_eligible(pod, bool(where), constraint.honor_taints),
        )

        def selects(namespace: str, labels: Mapping[str, str]) -> bool:
            return namespace == own and selector.matches(labels)

        tally = population.tally(
            ("spread", own, constraint, keys, where, tolerations),
            topology,
            selects,
            Reach.of((own,), selector),
            with_leaving=False,
        )
        itself = int(selector.matches(pod.labels))
        return _Counted(constraint, tally, itself, topology.unique)

    def _default(self, pod: PodInfo) -> tuple[Constraint, ...]:
        """The constraints of the configuration, for the pods that the pod's owner means."""
        owner = meta.controller_of(pod.object) or {}
        key = pod.namespace, pod.label_set, owner.get("uid")
        if key not in self._default_selectors:
            if len(self._default_selectors) > 4096:
                self._default_selectors.clear()
            self._default_selectors[key] = self._default_selector(pod, owner)
        selector = self._default_selectors[key]
        if selector is None:
            return ()
        return tuple(
            Constraint(
                c["topologyKey"],
                c["maxSkew"],
                c.get("whenUnsatisfiable") != _SOFT,
                1,
                selector,
                honor_affinity=True,
                honor_taints=False,
            )
            for c in self._defaults
        )

    def _default_selector(self, pod: PodInfo, owner: Object) -> LabelSelector | None:
        demanded: dict[str, str] = {}
        for service in self._services.by_index("namespace", pod.namespace):
            wanted = service["spec"].get("selector")
            if wanted and labels_from_set(wanted).matches(pod.labels):
                demanded.update(wanted)
        selector = labels_from_set(demanded)
        known = self._owners.get((owner.get("apiVersion", ""), owner.get("kind", "")))
        if known is not None:
            get, is_set = known
            found = get(pod.namespace, owner["name"])
            if found is not None:
                wanted = found["spec"].get("selector")
                more = labels_from_set(wanted) if is_set else labels_from_object(wanted)
                parts = dict.fromkeys((*selector.requirements, *more.requirements))
                selector = LabelSelector(tuple(parts))
        return None if selector.empty else selector

    # -- judging

    def facet(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> Hashable:
        state: _State = cycle.data[self.name]
        facet: list[Hashable] = []
        for counted in (*state.hard, *state.soft):
            value = node.labels.get(counted.constraint.key)
            if value is not None and counted.unique:
                facet.append(counted.tally.counts.get(value, 0))
            else:
                facet.append(value)
        return tuple(facet)

    def facet_verdict(self, cycle: Cycle, pod: PodInfo, facet: Any) -> Verdict:
        state: _State = cycle.data[self.name]
        for counted, part in zip(state.hard, facet, strict=False):
            if part is None:
                return _NO_LABEL
            count = part if counted.unique else counted.tally.counts.get(part, 0)
            if count + counted.itself - counted.least() > counted.constraint.max_skew:
                return _UNEVEN
        return None

    def filter(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> Verdict:
        state: _State | None = cycle.data.get(self.name)
        if state is None:
            return None
        for counted in state.hard:
            value = node.labels.get(counted.constraint.key)
            if value is None:
                return _NO_LABEL
            moved = _moved(counted, node) if node.removed or node.added else 0
            count = counted.tally.counts.get(value, 0) + moved
            least = counted.least(value, moved)
            if count + counted.itself - least > counted.constraint.max_skew:
                return _UNEVEN
        return None

    def facet_scores(
        self, cycle: Cycle, pod: PodInfo, facets: Sequence[tuple[Any, int]]
    ) -> list[int]:
        state: _State = cycle.data[self.name]
        if not state.soft:
            return [0] * len(facets)
        begin = len(state.hard)
        rows: list[Sequence[Any] | None] = []
        nodes = 0
        for facet, number in facets:
            soft = facet[begin:]
            if state.all_keys and None in soft:
                rows.append(None)
            else:
                rows.append(soft)
                nodes += number
        weights = [
            math.log(
                2 + (nodes if c.unique else len({r[i] for r in rows if r and r[i] is not None}))
            )
            for i, c in enumerate(state.soft)
        ]
        raw: list[int | None] = []
        for row in rows:
            if row is None:
                raw.append(None)
                continue
            total = 0.0
            for part, weight, counted in zip(row, weights, state.soft, strict=True):
                if part is not None:
                    count = part if counted.unique else counted.tally.counts.get(part, 0)
                    total += count * weight + counted.constraint.max_skew - 1
            raw.append(round(total))
        known = [score for score in raw if score is not None]
        highest, lowest = max(known, default=0), min(known, default=0)
        if highest == 0:
            return [0 if score is None else MAX_SCORE for score in raw]
        return [
            0 if score is None else MAX_SCORE * (highest + lowest - score) // highest
            for score in raw
        ]

    # -- waking

    def helped_by(self) -> Mapping[Change, Hint]:
        def concerns(pod: PodInfo, old: Object | None, new: Object | None) -> bool:
            return any(
                o is not None
                and meta.namespace(o) == pod.namespace
                and any(c.hard and c.selector.matches(meta.labels(o)) for c in self._stated(pod))
                for o in (old, new)
            )

        def has_keys(pod: PodInfo, old: Object | None, new: Object | None) -> bool:
            keys = {c.key for c in self._stated(pod) if c.hard}
            return any(o is not None and keys <= meta.labels(o).keys() for o in (old, new))

        return {
            Change.POD_ADDED: concerns,
            Change.POD_CHANGED: concerns,
            Change.POD_REMOVED: concerns,
            Change.NODE_ADDED: has_keys,
            Change.NODE_LABELS: has_keys,
            Change.NODE_REMOVED: has_keys,
            Change.NODE_TAINTS: always,
        }

    def _stated(self, pod: PodInfo) -> tuple[Constraint, ...]:
        return constraints_of(pod) or (self._default(pod) if self._defaults else ())


_Selectors = tuple[Callable[[str, str], Object | None], bool]


def _moved(counted: _Counted, node: NodeInfo) -> int:
    """The difference that pods make which are on the node, or not, in thought."""
    if node.name not in counted.tally.topology.values:
        return 0

    def count(pods: Mapping[str, PodInfo]) -> int:
        selects = counted.tally.selects
        return sum(
            not pod.is_leaving and selects(pod.namespace, pod.labels) for pod in pods.values()
        )

    return count(node.added) - count(node.removed)


def _eligible(
    pod: PodInfo, by_affinity: bool, by_taints: bool
) -> Callable[[NodeInfo], bool] | None:
    """Whether pods on a node count, and the node's domain as one."""
    if not by_affinity and not by_taints:
        return None
    spec = pod.spec

    def eligible(node: NodeInfo) -> bool:
        if by_affinity and not matches(spec, node.labels, node.name):
            return False
        if not by_taints:
            return True
        tolerations = spec.get("tolerations") or ()
        return untolerated(node.taints, tolerations, (NO_SCHEDULE, NO_EXECUTE)) is None

    return eligible
