"""Which pods are where, counted so that nobody needs to walk over them.

Pods of one namespace with the same labels are a *cohort*: a selector is asked once for each cohort,
not for each pod. A *tally* counts the pods that a selector selects by domain of a topology key
(``zone=a``: 7), and is kept up to date with every pod that comes and goes. A *held term* is the
other way round: an affinity that pods which are placed already have to those that come, counted by
the domains these are in. So what affinity and spreading cost for one pod does not grow with the
number of pods.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field

from wherry.kube.scheduler.affinity_terms import Kind, Term
from wherry.kube.scheduler.node_info import NodeInfo, PodInfo

_REMEMBERED_TALLIES = 128

Selects = Callable[[str, Mapping[str, str]], bool]
"""Whether pods of a namespace with such labels are meant."""


class Cohort:
    """Pods of one namespace with the same labels, by node; those that leave also on their own."""

    __slots__ = ("labels", "leaving", "namespace", "nodes", "tallies")

    def __init__(self, namespace: str, labels: Mapping[str, str]) -> None:
        self.namespace = namespace
        self.labels = labels
        self.nodes: dict[str, int] = {}
        self.leaving: dict[str, int] = {}
        self.tallies: list[Tally] = []


class Tally:
    """How many of the selected pods are in each domain of ``key``.

    ``domains`` has all values of the key on nodes that are ``eligible``, also those without pods.
    """

    __slots__ = ("_values", "_with_value", "domains", "eligible", "key", "selects", "with_leaving")

    def __init__(
        self,
        key: str,
        selects: Selects,
        eligible: Callable[[NodeInfo], bool] | None,
        *,
        with_leaving: bool,
    ) -> None:
        self.key = key
        self.selects = selects
        self.eligible = eligible
        self.with_leaving = with_leaving
        self.domains: dict[str, int] = {}
        self._values: dict[str, str | None] = {}
        self._with_value = 0

    @property
    def unique(self) -> bool:
        """Whether each node is a domain of its own."""
        return self._with_value == len(self.domains)

    def admit(self, node: NodeInfo) -> None:
        """A node that has not counted yet."""
        value = self.value(node)
        if value is not None:
            self._with_value += 1
            self.domains.setdefault(value, 0)

    def value(self, node: NodeInfo) -> str | None:
        """The domain that the node is in, None where it does not count."""
        try:
            return self._values[node.name]
        except KeyError:
            value = node.labels.get(self.key)
            if value is not None and self.eligible is not None and not self.eligible(node):
                value = None
            self._values[node.name] = value
            return value

    def count(self, node: NodeInfo, number: int) -> None:
        value = self.value(node)
        if value is not None:
            self.domains[value] = self.domains.get(value, 0) + number


@dataclass(slots=True)
class Held:
    """A term that pods have which are placed: by node and by domain, how many."""

    term: Term
    nodes: dict[str, int] = field(default_factory=dict)
    domains: dict[str, int] = field(default_factory=dict)


class Population:
    """All pods that have a node."""

    def __init__(self, nodes: Mapping[str, NodeInfo]) -> None:
        self._nodes = nodes
        self._cohorts: dict[str, dict[frozenset[tuple[str, str]], Cohort]] = {}
        self._tallies: OrderedDict[Hashable, Tally] = OrderedDict()
        self._unique: dict[str, bool] = {}
        self._users: dict[str, dict[str, int]] = {}
        self._held: dict[Kind, dict[Term, Held]] = {kind: {} for kind in Kind}

    # -- coming and going

    def add(self, pod: PodInfo, node: str) -> None:
        """The pod is on the node."""
        self._count(pod, node, 1)

    def remove(self, pod: PodInfo, node: str) -> None:
        """It is there no more; ``pod`` must be what was added."""
        self._count(pod, node, -1)

    def _count(self, pod: PodInfo, node: str, sign: int) -> None:
        of_namespace = self._cohorts.setdefault(pod.namespace, {})
        cohort = of_namespace.get(pod.label_set)
        if cohort is None:
            cohort = of_namespace[pod.label_set] = Cohort(pod.namespace, pod.labels)
            cohort.tallies = [
                t for t in self._tallies.values() if t.selects(pod.namespace, pod.labels)
            ]
        info = self._nodes.get(node)
        _shift(cohort.nodes, node, sign)
        if pod.is_leaving:
            _shift(cohort.leaving, node, sign)
        if info is not None:
            for tally in cohort.tallies:
                if tally.with_leaving or not pod.is_leaving:
                    tally.count(info, sign)
        if not cohort.nodes:
            del of_namespace[pod.label_set]
            if not of_namespace:
                del self._cohorts[pod.namespace]
        for claim in pod.claim_keys:
            users = self._users.setdefault(claim, {})
            _shift(users, node, sign)
            if not users:
                del self._users[claim]
        for term in pod.terms:
            self._hold(term, node, info, sign)

    def _hold(self, term: Term, node: str, info: NodeInfo | None, sign: int) -> None:
        terms = self._held[term.kind]
        held = terms.get(term)
        if held is None:
            held = terms[term] = Held(term)
        _shift(held.nodes, node, sign)
        value = info.labels.get(term.key) if info is not None else None
        if value is not None:
            _shift(held.domains, value, sign)
        if not held.nodes:
            del terms[term]

    # -- nodes

    def node_added(self, node: NodeInfo) -> None:
        """A node that is new; pods may be on it already."""
        if node.pods:
            self.nodes_changed()
            return
        self._unique.clear()
        for tally in self._tallies.values():
            tally.admit(node)

    def nodes_changed(self) -> None:
        """Labels or taints of nodes changed, or a node is gone: what is where is counted anew."""
        self.forget_tallies()
        self._unique.clear()
        for terms in self._held.values():
            for held in terms.values():
                held.domains = {}
                for name, number in held.nodes.items():
                    info = self._nodes.get(name)
                    value = info.labels.get(held.term.key) if info is not None else None
                    if value is not None:
                        _shift(held.domains, value, number)

    def forget_tallies(self) -> None:
        """What selectors select has changed (labels of namespaces)."""
        self._tallies.clear()
        for of_namespace in self._cohorts.values():
            for cohort in of_namespace.values():
                cohort.tallies = []

    # -- asking

    def held(self, kind: Kind) -> Mapping[Term, Held]:
        """The terms of one kind that placed pods have."""
        return self._held[kind]

    def users(self, claim: str) -> Mapping[str, int]:
        """How many pods use a claim (``namespace/name``), by node."""
        return self._users.get(claim, {})

    def is_unique(self, key: str) -> bool:
        """Whether no two nodes have the same value of the label."""
        known = self._unique.get(key)
        if known is None:
            values = [n.labels[key] for n in self._nodes.values() if key in n.labels]
            known = self._unique[key] = len(values) == len(set(values))
        return known

    def tally(
        self,
        identity: Hashable,
        key: str,
        selects: Selects,
        *,
        eligible: Callable[[NodeInfo], bool] | None = None,
        with_leaving: bool = True,
    ) -> Tally:
        """The tally of that identity, which stands for all other arguments; kept while in use."""
        tally = self._tallies.get(identity)
        if tally is not None:
            self._tallies.move_to_end(identity)
            return tally
        tally = Tally(key, selects, eligible, with_leaving=with_leaving)
        for node in self._nodes.values():
            tally.admit(node)
        for of_namespace in self._cohorts.values():
            for cohort in of_namespace.values():
                if selects(cohort.namespace, cohort.labels):
                    cohort.tallies.append(tally)
                    self._count_cohort(tally, cohort)
        self._tallies[identity] = tally
        if len(self._tallies) > _REMEMBERED_TALLIES:
            self._forget(self._tallies.popitem(last=False)[1])
        return tally

    def _count_cohort(self, tally: Tally, cohort: Cohort) -> None:
        for name, number in cohort.nodes.items():
            node = self._nodes.get(name)
            if node is None:
                continue
            if not tally.with_leaving:
                number -= cohort.leaving.get(name, 0)
            tally.count(node, number)

    def _forget(self, tally: Tally) -> None:
        for of_namespace in self._cohorts.values():
            for cohort in of_namespace.values():
                if tally in cohort.tallies:
                    cohort.tallies.remove(tally)


def _shift(counts: dict[str, int], key: str, number: int) -> None:
    total = counts.get(key, 0) + number
    if total:
        counts[key] = total
    else:
        counts.pop(key, None)
