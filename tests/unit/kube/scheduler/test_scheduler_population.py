"""What is counted along the way is what a walk over all nodes and pods finds."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from wherry.kube.api.selectors import LabelSelector, Requirement, labels_from_object
from wherry.kube.scheduler.affinity_terms import Kind
from wherry.kube.scheduler.selection import Index, Reach
from wherry.kube.scheduler.snapshot import NodeInfo, PodInfo, Snapshot
from wherry.kube.scheduler.topology import Tally

ZONE = "zone"
APART = {
    "podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": ZONE, "labelSelector": {"matchLabels": {"app": "a"}}}
        ]
    }
}


def pod(name: str, namespace: str, labels: dict[str, str], **more: Any) -> PodInfo:
    spec: dict[str, Any] = {"containers": [{}]}
    if more.get("apart"):
        spec["affinity"] = APART
    metadata = {"name": name, "namespace": namespace, "uid": name, "labels": labels}
    if more.get("leaving"):
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return PodInfo({"metadata": metadata, "spec": spec})


def node(name: str, zone: str | None, tainted: bool) -> dict[str, Any]:
    labels = {"host": name} if zone is None else {"host": name, ZONE: zone}
    taints = [{"key": "t", "effect": "NoSchedule"}] if tainted else []
    return {"metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}}


def untainted(node: NodeInfo) -> bool:
    return not node.taints


requirements = st.one_of(
    st.builds(
        Requirement,
        st.sampled_from(["app", "tier"]),
        st.sampled_from(["in", "=", "notin"]),
        st.sampled_from([("a",), ("b",)]),
    ),
    st.builds(lambda: Requirement("app", "in", ("a", "b"))),
    st.builds(lambda: Requirement("tier", "exists")),
)
selectors = st.one_of(
    st.builds(lambda r: LabelSelector(tuple(r)), st.lists(requirements, max_size=2)),
    st.just(LabelSelector(nothing=True)),
)
label_sets = st.dictionaries(
    st.sampled_from(["app", "tier", "more"]), st.sampled_from(["a", "b", "c"]), max_size=3
)
namespaces = st.sampled_from(["one", "two"])
names = st.integers(0, 3)
zones = st.sampled_from(["x", "y", None])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("pod"), names, namespaces, label_sets, st.booleans(), st.booleans()),
        st.tuples(st.just("gone"), names),
        st.tuples(st.just("node"), names, zones, st.booleans()),
        st.tuples(st.just("lost"), names),
        st.tuples(st.just("ask"), namespaces, selectors, st.booleans()),
    ),
    max_size=40,
)


class Asked:
    """Tallies that somebody wants again and again, as plugins do."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.wanted: list[tuple[str, LabelSelector, bool]] = []

    def check(self, namespace: str, selector: LabelSelector, picky: bool) -> None:
        tally = self._tally(namespace, selector, picky)
        nodes = [
            n
            for n in self.snapshot.nodes.values()
            if ZONE in n.labels and (not picky or untainted(n))
        ]
        counts = Counter({n.labels[ZONE]: 0 for n in nodes})
        for each in nodes:
            for p in each.pods.values():
                if p.namespace == namespace and selector.matches(p.labels):
                    counts[each.labels[ZONE]] += not (picky and p.is_leaving)
        assert tally.counts == +counts
        assert set(tally.topology.domains) == set(counts)
        assert tally.least() == min(counts.values(), default=0)
        for value in counts:
            for moved in (1, -counts[value]):
                wanted = {**counts, value: counts[value] + moved}
                assert tally.least_with(value, moved) == min(wanted.values())
        distinct = len({n.labels[ZONE] for n in nodes}) == len(nodes)
        assert tally.topology.unique is distinct

    def _tally(self, namespace: str, selector: LabelSelector, picky: bool) -> Tally:
        population = self.snapshot.population
        topology = population.topology(
            ZONE, eligibility=picky or None, eligible=untainted if picky else None
        )
        return population.tally(
            (namespace, selector, picky),
            topology,
            lambda ns, labels: ns == namespace and selector.matches(labels),
            Reach.of((namespace,), selector),
            with_leaving=not picky,
        )


@settings(max_examples=200, deadline=None)
@given(steps)
def test_tallies_and_terms_are_what_a_walk_finds(history: list[Any]) -> None:
    snapshot = Snapshot()
    asked = Asked(snapshot)
    for number, (what, *told) in enumerate(history):
        match what:
            case "pod":
                which, namespace, labels, leaving, apart = told
                made = pod(f"p{number}", namespace, labels, leaving=leaving, apart=apart)
                snapshot.put(made, f"n{which}")
            case "gone":
                snapshot.remove(f"p{told[0]}")
            case "node":
                snapshot.set_node(node(f"n{told[0]}", told[1], told[2]))
            case "lost":
                snapshot.remove_node(f"n{told[0]}")
            case "ask":
                asked.wanted.append(tuple(told))
        for each in asked.wanted:
            asked.check(*each)
        terms_are_right(snapshot)


def terms_are_right(snapshot: Snapshot) -> None:
    """Of the one term there is: by domain, how many hold it."""
    there = Counter(
        (p.namespace, n.labels[ZONE])
        for n in snapshot.nodes.values()
        if ZONE in n.labels
        for p in n.pods.values()
        if p.terms
    )
    for namespace in ("one", "two"):
        meant = pod("asking", namespace, {"app": "a", "tier": "b"})
        wanted = {zone: n for (ns, zone), n in there.items() if ns == namespace}
        found = {}
        for held in snapshot.population.held(Kind.APART, meant):
            found.update(held.domains)
        assert found == wanted
        other = pod("asking", namespace, {"app": "c"})
        assert not list(snapshot.population.held(Kind.APART, other))


@given(
    st.lists(st.tuples(st.one_of(st.none(), st.sets(namespaces, min_size=1)), selectors)),
    namespaces,
    label_sets,
)
def test_an_index_finds_once_all_that_may_mean_a_pod(
    things: list[tuple[set[str] | None, LabelSelector]], namespace: str, labels: dict[str, str]
) -> None:
    index: Index[int] = Index()
    reaches = [Reach.of(within, selector) for within, selector in things]
    for number, reach in enumerate(reaches):
        index.add(reach, number)
    found = list(index.find(namespace, labels))
    assert len(found) == len(set(found))
    for number, (within, selector) in enumerate(things):
        if (within is None or namespace in within) and selector.matches(labels):
            assert number in found
    for number, reach in enumerate(reaches):
        index.discard(reach, number)
    assert not index


def test_a_term_about_one_app_is_not_looked_at_for_another() -> None:
    index: Index[str] = Index()
    for app in ("a", "b"):
        selector = labels_from_object({"matchLabels": {"app": app}})
        index.add(Reach.of(("one",), selector), app)
    assert list(index.find("one", {"app": "a", "x": "y"})) == ["a"]
    assert not list(index.find("two", {"app": "a"}))
