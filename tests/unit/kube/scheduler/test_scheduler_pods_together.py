"""Affinity, anti-affinity and spreading: what is counted is what a walk would find."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_parts import IdleInformers

from wherry.kube.api.resources import NAMESPACES, REPLICA_SETS
from wherry.kube.scheduler.algorithm import Algorithm, Unfit
from wherry.kube.scheduler.config import Profile
from wherry.kube.scheduler.snapshot import PodInfo, Snapshot

ZONE, HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def pod(name: str, app: str = "a", namespace: str = "default", **spec: Any) -> PodInfo:
    more = spec.pop("metadata", {})
    metadata = {"name": name, "namespace": namespace, "uid": name, "labels": {"app": app}, **more}
    return PodInfo({"metadata": metadata, "spec": {"containers": [{}], **spec}})


def term(app: str, key: str = HOST, **more: Any) -> dict[str, Any]:
    return {"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}, **more}


def near(*terms: dict[str, Any]) -> dict[str, Any]:
    return {"affinity": {"podAffinity": {REQUIRED: list(terms)}}}


def apart(*terms: dict[str, Any]) -> dict[str, Any]:
    return {"affinity": {"podAntiAffinity": {REQUIRED: list(terms)}}}


def spread(key: str, skew: int = 1, app: str = "a", **more: Any) -> dict[str, Any]:
    constraint = {
        "topologyKey": key,
        "maxSkew": skew,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": app}},
        **more,
    }
    return {"topologySpreadConstraints": [constraint]}


class Cluster:
    """Nodes in zones, and an algorithm on them; ``n0`` is in zone 0, ``n1`` in zone 1, …"""

    def __init__(self, nodes: int = 4, zones: int = 2, **labels: str) -> None:
        self.informers = IdleInformers()
        self.snapshot = Snapshot()
        for number in range(nodes):
            self.node(number, zones, **labels)
        self.algorithm = Algorithm(Profile(), None, self.snapshot, self.informers)

    def node(self, number: int, zones: int = 2, **labels: str) -> None:
        own = {HOST: f"n{number}", ZONE: f"z{number % zones}", **labels}
        allocatable = {"cpu": "64", "memory": "64Gi", "pods": "110"}
        metadata = {"name": f"n{number}", "labels": own}
        self.snapshot.set_node({"metadata": metadata, "status": {"allocatable": allocatable}})

    def put(self, chosen: PodInfo, node: str) -> None:
        self.snapshot.put(chosen, node)

    def place(self, chosen: PodInfo) -> str:
        node, _ = self.algorithm.choose(chosen)
        self.put(chosen, node.name)
        return node.name

    def refusal(self, chosen: PodInfo) -> str:
        with pytest.raises(Unfit) as caught:
            self.algorithm.choose(chosen)
        return str(caught.value)


def test_a_pod_goes_where_its_friends_are():
    cluster = Cluster()
    cluster.put(pod("db", "db"), "n1")
    assert cluster.place(pod("web", **near(term("db")))) == "n1"
    assert cluster.place(pod("far", **near(term("db", ZONE)))) in ("n1", "n3")
    assert cluster.refusal(pod("lost", **near(term("none")))) == (
        "0/4 nodes are available: 4 node(s) didn't match pod affinity rules."
    )


def test_the_first_of_a_kind_that_wants_its_like_goes_anywhere():
    cluster = Cluster()
    first = cluster.place(pod("a0", **near(term("a", ZONE))))
    zone = int(first[1:]) % 2
    for number in range(1, 6):
        assert int(cluster.place(pod(f"a{number}", **near(term("a", ZONE))))[1:]) % 2 == zone


def test_pods_keep_apart_also_from_those_that_came_before():
    cluster = Cluster(3)
    names = {cluster.place(pod(f"a{number}", **apart(term("a")))) for number in range(3)}
    assert names == {"n0", "n1", "n2"}
    assert cluster.refusal(pod("a3", **apart(term("a")))) == (
        "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules."
    )
    assert cluster.refusal(pod("plain")) == (
        "0/3 nodes are available: 3 node(s) didn't satisfy existing pods anti-affinity rules."
    )
    cluster.snapshot.remove("a1")
    assert cluster.place(pod("a3", **apart(term("a")))) in names
    assert cluster.place(pod("other", "b"))


def test_namespaces_are_named_or_selected():
    cluster = Cluster(1)
    team = {"metadata": {"name": "other", "labels": {"team": "x"}}}
    cluster.informers.informer(NAMESPACES).put({**team, "spec": {}})
    cluster.put(pod("a0", namespace="other"), "n0")
    assert cluster.algorithm.choose(pod("own", **apart(term("a"))))
    assert cluster.refusal(pod("named", **apart(term("a", namespaces=["other"]))))
    selected = term("a", namespaceSelector={"matchLabels": {"team": "x"}})
    assert cluster.refusal(pod("selected", **apart(selected)))
    assert cluster.refusal(pod("all", **apart(term("a", namespaceSelector={}))))
    missed = term("a", namespaceSelector={"matchLabels": {"team": "y"}})
    assert cluster.algorithm.choose(pod("missed", **apart(missed)))


def test_label_keys_compare_with_the_pods_own():
    cluster = Cluster(1)
    old = {"labels": {"app": "a", "version": "1"}}
    new = {"labels": {"app": "a", "version": "2"}}
    cluster.put(pod("old", metadata=old), "n0")
    match = apart(term("a", matchLabelKeys=["version"]))
    assert cluster.refusal(pod("same", metadata=old, **match))
    assert cluster.algorithm.choose(pod("newer", metadata=new, **match))
    mismatch = apart(term("a", mismatchLabelKeys=["version"]))
    assert cluster.algorithm.choose(pod("like", metadata=old, **mismatch))
    assert cluster.refusal(pod("unlike", metadata=new, **mismatch))


def test_preferences_draw_and_repel():
    cluster = Cluster()
    cluster.put(pod("db", "db"), "n2")
    draw = {
        "affinity": {"podAffinity": {PREFERRED: [{"weight": 50, "podAffinityTerm": term("db")}]}}
    }
    assert cluster.algorithm.choose(pod("web", **draw))[0].name == "n2"
    few = Cluster(2)
    few.put(pod("db", "db"), "n0")
    repel = {
        "affinity": {
            "podAntiAffinity": {PREFERRED: [{"weight": 50, "podAffinityTerm": term("db")}]}
        }
    }
    assert few.algorithm.choose(pod("web", **repel))[0].name == "n1"


def test_pods_are_spread_evenly_over_zones():
    cluster = Cluster(5, 2)  # three nodes in one zone, two in the other
    zones = [int(cluster.place(pod(f"a{n}", **spread(ZONE)))[1:]) % 2 for n in range(10)]
    for count in range(1, 11):
        assert abs(zones[:count].count(0) - zones[:count].count(1)) <= 1


def test_a_zone_that_is_full_holds_up_the_others():
    cluster = Cluster(2, 2)
    cluster.put(pod("a0"), "n0")
    hard = spread(ZONE, nodeAffinityPolicy="Ignore")
    assert cluster.refusal(pod("a1", nodeSelector={HOST: "n0"}, **hard)) == (
        "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, "
        "1 node(s) didn't match pod topology spread constraints."
    )
    # By default nodes on which the pod cannot be do not count.
    assert cluster.place(pod("a2", nodeSelector={HOST: "n0"}, **spread(ZONE))) == "n0"


def test_nodes_without_the_label_take_no_such_pods():
    cluster = Cluster(2)
    assert cluster.refusal(pod("a0", **spread("rack"))) == (
        "0/2 nodes are available: 2 node(s) didn't match pod topology spread constraints "
        "(missing required label)."
    )


def test_min_domains_wait_for_more_zones():
    cluster = Cluster(2, 2)
    wanted = spread(ZONE, minDomains=3)
    cluster.place(pod("a0", **wanted))
    cluster.place(pod("a1", **wanted))
    assert "topology spread constraints" in cluster.refusal(pod("a2", **wanted))
    cluster.node(2, 3)
    assert cluster.place(pod("a2", **wanted)) == "n2"


def test_pods_of_an_owner_are_spread_by_default():
    cluster = Cluster(4, 2)
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "a", "uid": "r"}
    metadata = {"name": "a", "namespace": "default", "uid": "r"}
    selector = {"matchLabels": {"app": "a"}}
    replicas = {"metadata": metadata, "spec": {"selector": selector}}
    cluster.informers.informer(REPLICA_SETS).put(replicas)
    more = {"ownerReferences": [{**owner, "controller": True}]}
    places = [
        cluster.place(pod(f"a{n}", metadata=dict(more, labels={"app": "a"}))) for n in range(8)
    ]
    assert sorted(places) == ["n0", "n0", "n1", "n1", "n2", "n2", "n3", "n3"]


# -- invariants over random histories


def count(cluster: Cluster, key: str, value: str, namespace: str, app: str) -> int:
    """How many pods of an app are in a domain, by walking over all."""
    return sum(
        other.namespace == namespace and other.labels.get("app") == app
        for node in cluster.snapshot.nodes.values()
        if node.labels.get(key) == value
        for other in node.pods.values()
    )


steps = st.lists(
    st.tuples(
        st.sampled_from(["apart", "near", "spread", "plain", "gone", "node", "lost"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from([ZONE, HOST]),
        st.integers(0, 5),
    ),
    max_size=50,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_whatever_happens_the_rules_hold(history):
    cluster = Cluster(3, 2)
    rules: dict[str, tuple[str, str, str]] = {}
    for number, (what, app, key, which) in enumerate(history):
        nodes = cluster.snapshot.nodes
        if what == "node":
            cluster.node(which, 2 + number % 2)
        elif what == "lost":
            if len(nodes) > 1:
                cluster.snapshot.remove_node(f"n{which}")
        elif what == "gone":
            there = [uid for node in nodes.values() for uid in node.pods]
            if there:
                cluster.snapshot.remove(sorted(there)[which % len(there)])
        else:
            spec = {
                "apart": apart(term(app, key)),
                "near": near(term(app, key)),
                "spread": spread(key, app=app),
                "plain": {},
            }[what]
            asked = pod(f"p{number}", app, **spec)
            domains = {node.labels[key] for node in nodes.values()}
            before = {d: count(cluster, key, d, "default", app) for d in domains}
            try:
                node = nodes[cluster.place(asked)]
            except Unfit:
                if what == "spread":
                    # Only those that keep others away can have left none.
                    assert any(rule == "apart" for rule, _, _ in rules.values())
                continue
            rules[asked.uid] = what, app, key
            value = node.labels[key]
            if what == "apart":
                assert before[value] == 0
            elif what == "near":
                assert before[value] > 0 or not any(before.values())
            elif what == "spread":
                assert before[value] + 1 - min(before.values()) <= 1
