"""Which pods are where, counted so that nobody needs to walk over them.

Pods of one namespace with the same labels are a *cohort*: a selector is asked once for each cohort,
not for each pod. A *tally* counts the pods that a selector selects by domain of a topology key
(``zone=a``: 7), and is kept up to date with every pod that comes and goes. A *held term* is the
other way round: an affinity that pods which are placed already have to those that come, counted by
the domains these are in. So what affinity and spreading cost for one pod does not grow with the
number of pods; nor does the first pod of its kind walk over them, since cohorts, tallies and terms
are found by labels (``selection``), and tallies with the same domains share them (``topology``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field

from wherry.kube.scheduler.affinity_terms import Kind, Term
from wherry.kube.scheduler.node_info import NodeInfo, PodInfo
from wherry.kube.scheduler.selection import Index, Reach
from wherry.kube.scheduler.topology import Selects, Tally, Topology, shift

_REMEMBERED_TALLIES = 1024
_REMEMBERED_TOPOLOGIES = 128

_LabelSet = frozenset[tuple[str, str]]


class Cohort:
    """Pods of one namespace with the same labels, by node; those that leave also on their own."""

    __slots__ = ("labels", "leaving", "namespace", "nodes", "tallies")

    def __init__(self, namespace: str, labels: Mapping[str, str]) -> None:
        self.namespace = namespace
        self.labels = labels
        self.nodes: dict[str, int] = {}
        self.leaving: dict[str, int] = {}
        self.tallies: dict[Tally, None] = {}


class _Cohorts:
    """Those of one namespace."""

    __slots__ = ("all", "by_label")

    def __init__(self) -> None:
        self.all: dict[_LabelSet, Cohort] = {}
        self.by_label: dict[tuple[str, str], dict[_LabelSet, Cohort]] = {}

    def add(self, label_set: _LabelSet, cohort: Cohort) -> None:
        self.all[label_set] = cohort
        for label in label_set:
            self.by_label.setdefault(label, {})[label_set] = cohort

    def drop(self, label_set: _LabelSet) -> None:
        del self.all[label_set]
        for label in label_set:
            found = self.by_label[label]
            del found[label_set]
            if not found:
                del self.by_label[label]

    def reached(self, reach: Reach) -> Iterator[Cohort]:
        if reach.labels is None:
            yield from self.all.values()
            return
        for label in reach.labels:
            yield from self.by_label.get(label, {}).values()


@dataclass(slots=True, eq=False)
class Held:
    """A term that pods have which are placed: by node and by domain, how many."""

    term: Term
    nodes: dict[str, int] = field(default_factory=dict)
    domains: dict[str, int] = field(default_factory=dict)


class Population:
    """All pods that have a node."""

    def __init__(self, nodes: Mapping[str, NodeInfo]) -> None:
        self._nodes = nodes
        self._cohorts: dict[str, _Cohorts] = {}
        self._topologies: OrderedDict[Hashable, Topology] = OrderedDict()
        self._tallies: OrderedDict[Hashable, Tally] = OrderedDict()
        self._identities: dict[Tally, Hashable] = {}
        self._selecting: Index[Tally] = Index()
        self._users: dict[str, dict[str, int]] = {}
        self._held: dict[Term, Held] = {}
        self._holding: dict[Kind, Index[Held]] = {kind: Index() for kind in Kind}

    # -- coming and going

    def add(self, pod: PodInfo, node: str) -> None:
        """The pod is on the node."""
        self._count(pod, node, 1)

    def remove(self, pod: PodInfo, node: str) -> None:
        """It is there no more; ``pod`` must be what was added."""
        self._count(pod, node, -1)

    def _count(self, pod: PodInfo, node: str, sign: int) -> None:
        of_namespace = self._cohorts.get(pod.namespace)
        if of_namespace is None:
            of_namespace = self._cohorts[pod.namespace] = _Cohorts()
        cohort = of_namespace.all.get(pod.label_set)
        if cohort is None:
            cohort = Cohort(pod.namespace, pod.labels)
            of_namespace.add(pod.label_set, cohort)
            for tally in self._selecting.find(pod.namespace, pod.labels):
                if tally.selects(pod.namespace, pod.labels):
                    cohort.tallies[tally] = None
        shift(cohort.nodes, node, sign)
        if pod.is_leaving:
            shift(cohort.leaving, node, sign)
        for tally in cohort.tallies:
            if tally.with_leaving or not pod.is_leaving:
                tally.count(node, sign)
        if not cohort.nodes:
            of_namespace.drop(pod.label_set)
            if not of_namespace.all:
                del self._cohorts[pod.namespace]
        for claim in pod.claim_keys:
            users = self._users.setdefault(claim, {})
            shift(users, node, sign)
            if not users:
                del self._users[claim]
        if pod.terms:
            info = self._nodes.get(node)
            for term in pod.terms:
                self._hold(term, node, info, sign)

    def _hold(self, term: Term, node: str, info: NodeInfo | None, sign: int) -> None:
        held = self._held.get(term)
        if held is None:
            held = self._held[term] = Held(term)
            self._holding[term.kind].add(term.reach, held)
        shift(held.nodes, node, sign)
        value = info.labels.get(term.key) if info is not None else None
        if value is not None:
            shift(held.domains, value, sign)
        if not held.nodes:
            del self._held[term]
            self._holding[term.kind].discard(term.reach, held)

    # -- nodes

    def node_changed(self, node: NodeInfo, before: Mapping[str, str]) -> None:
        """A node came, or its labels or taints changed; pods may be on it already.

        Args:
            before: the labels that it had, none where it is new.
        """
        for topology in list(self._topologies.values()):
            if topology.put(node) and node.pods:
                self._count_anew(topology)
        self._move(node, before, node.labels)

    def node_gone(self, node: NodeInfo) -> None:
        """A node is gone; pods on it may yet linger."""
        for topology in list(self._topologies.values()):
            if topology.drop(node.name) and node.pods:
                self._count_anew(topology)
        self._move(node, node.labels, {})

    def _move(self, node: NodeInfo, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        """The terms that the node's pods hold go with it into other domains."""
        for pod in node.pods.values():
            for term in pod.terms:
                old, new = before.get(term.key), after.get(term.key)
                if old == new:
                    continue
                domains = self._held[term].domains
                if old is not None:
                    shift(domains, old, -1)
                if new is not None:
                    shift(domains, new, 1)

    def _count_anew(self, topology: Topology) -> None:
        """Pods have gone to another domain with their node: their tallies are made again."""
        for tally in list(topology.tallies):
            self._forget(tally)

    def forget_tallies(self) -> None:
        """What selectors select by the labels of namespaces has changed."""
        for tally in list(self._tallies.values()):
            if tally.reach.namespaces is None:
                self._forget(tally)

    # -- asking

    def held(self, kind: Kind, pod: PodInfo) -> Iterator[Held]:
        """The terms of one kind that placed pods have, and that may mean this pod."""
        return self._holding[kind].find(pod.namespace, pod.labels)

    def users(self, claim: str) -> Mapping[str, int]:
        """How many pods use a claim (``namespace/name``), by node."""
        return self._users.get(claim, {})

    def is_unique(self, key: str) -> bool:
        """Whether no two nodes have the same value of the label."""
        return self.topology(key).unique

    def topology(
        self,
        key: str,
        keys: tuple[str, ...] = (),
        *,
        eligibility: Hashable = None,
        eligible: Callable[[NodeInfo], bool] | None = None,
    ) -> Topology:
        """The domains of ``key``; ``eligibility`` stands for ``eligible``."""
        demanded = frozenset((key, *keys))
        identity = key, demanded, eligibility
        found = self._topologies.get(identity)
        if found is not None:
            self._topologies.move_to_end(identity)
            return found
        found = Topology(key, demanded, eligible, self._nodes.values())
        self._topologies[identity] = found
        if len(self._topologies) > _REMEMBERED_TOPOLOGIES:
            self._count_anew(self._topologies.popitem(last=False)[1])
        return found

    def tally(
        self,
        identity: Hashable,
        topology: Topology,
        selects: Selects,
        reach: Reach,
        *,
        with_leaving: bool = True,
    ) -> Tally:
        """The tally of that identity, which stands for all other arguments; kept while in use."""
        tally = self._tallies.get(identity)
        if tally is not None:
            self._tallies.move_to_end(identity)
            return tally
        tally = Tally(topology, selects, reach, with_leaving=with_leaving)
        for cohort in self._reached(reach):
            if selects(cohort.namespace, cohort.labels):
                cohort.tallies[tally] = None
                self._count_cohort(tally, cohort)
        self._tallies[identity] = tally
        self._identities[tally] = identity
        self._selecting.add(reach, tally)
        topology.tallies[tally] = None
        if len(self._tallies) > _REMEMBERED_TALLIES:
            self._forget(next(iter(self._tallies.values())))
        return tally

    def _reached(self, reach: Reach) -> Iterator[Cohort]:
        if reach.namespaces is None:
            for of_namespace in self._cohorts.values():
                yield from of_namespace.reached(reach)
            return
        for name in reach.namespaces:
            found = self._cohorts.get(name)
            if found is not None:
                yield from found.reached(reach)

    @staticmethod
    def _count_cohort(tally: Tally, cohort: Cohort) -> None:
        for name, number in cohort.nodes.items():
            leaving = 0 if tally.with_leaving else cohort.leaving.get(name, 0)
            tally.count(name, number - leaving)

    def _forget(self, tally: Tally) -> None:
        del self._tallies[self._identities.pop(tally)]
        self._selecting.discard(tally.reach, tally)
        tally.topology.tallies.pop(tally, None)
        for cohort in self._reached(tally.reach):
            cohort.tallies.pop(tally, None)
