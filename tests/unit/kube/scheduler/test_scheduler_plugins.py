from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scheduler_parts import handle

from wherry.kube.scheduler import requests
from wherry.kube.scheduler.framework import Change, Cycle, normalize
from wherry.kube.scheduler.plugins import PLUGINS
from wherry.kube.scheduler.plugins.node_affinity import NodeAffinity, matches
from wherry.kube.scheduler.plugins.node_ports import conflict
from wherry.kube.scheduler.plugins.node_resources_balanced import NodeResourcesBalancedAllocation
from wherry.kube.scheduler.plugins.node_resources_fit import NodeResourcesFit
from wherry.kube.scheduler.plugins.taint_toleration import TaintToleration
from wherry.kube.scheduler.snapshot import NodeInfo, PodInfo, Snapshot

MI = 1024 * 1024


def container(cpu: str = "", memory: str = "", **more: Any) -> dict[str, Any]:
    asked = {k: v for k, v in (("cpu", cpu), ("memory", memory)) if v}
    return {"resources": {"requests": asked}, **more}


def pod(*containers: dict[str, Any], **spec: Any) -> PodInfo:
    metadata = {"name": "p", "namespace": "default", "uid": spec.pop("uid", "u")}
    return PodInfo({"metadata": metadata, "spec": {"containers": list(containers), **spec}})


def node(cpu: str = "4", memory: str = "8Gi", **spec: Any) -> NodeInfo:
    info = NodeInfo("n1")
    labels = spec.pop("labels", {})
    allocatable = {"cpu": cpu, "memory": memory, "pods": "10", **spec.pop("extra", {})}
    info.set_object(
        {
            "metadata": {"name": "n1", "labels": labels},
            "spec": spec,
            "status": {"allocatable": allocatable},
        }
    )
    return info


def plugin(kind: type, **arguments: Any) -> Any:
    return kind(handle(), arguments)


CYCLE = Cycle(Snapshot())


def test_names_in_the_table_are_unique():
    names = [p.name for p in PLUGINS]
    assert len(names) == len(set(names))


# -- requests


def test_containers_add_up_and_init_containers_count_one_by_one():
    spec = {
        "containers": [container("100m", "64Mi"), container("200m", "64Mi")],
        "initContainers": [container("250m", "512Mi"), container("1", "32Mi")],
    }
    assert requests.of_pod(spec) == {"cpu": 1000, "memory": 512 * MI}


def test_a_sidecar_runs_beside_what_comes_after_it():
    spec = {
        "containers": [container("100m")],
        "initContainers": [
            container("500m"),
            container("300m", restartPolicy="Always"),
            container("400m"),
        ],
    }
    assert requests.of_pod(spec) == {"cpu": 700}


def test_overhead_is_added_and_pod_level_requests_replace_those_of_containers():
    spec = {
        "containers": [container("100m", "64Mi")],
        "resources": {"requests": {"cpu": "2"}},
        "overhead": {"cpu": "50m", "memory": "10Mi"},
    }
    assert requests.of_pod(spec) == {"cpu": 2050, "memory": 74 * MI}


def test_a_pod_without_requests_counts_for_scores():
    assert requests.assumed({"containers": [{}, container("1")]}) == {
        "cpu": 1100,
        "memory": 400 * MI,
    }


def test_extended_resources_are_counted_whole():
    spec = {"containers": [{"resources": {"requests": {"nvidia.com/gpu": "2"}}}]}
    assert requests.of_pod(spec) == {"nvidia.com/gpu": 2}


# -- fit


def test_each_missing_resource_is_named():
    fit = plugin(NodeResourcesFit)
    verdict = fit.filter(CYCLE, pod(container("5", "9Gi")), node())
    assert verdict.reasons == ("Insufficient cpu", "Insufficient memory")
    assert not verdict.resolvable
    full = node()
    full.add(pod(container("3"), uid="other"))
    verdict = fit.filter(CYCLE, pod(container("2")), full)
    assert verdict.reasons == ("Insufficient cpu",)
    assert verdict.resolvable
    gpu = {"resources": {"requests": {"x.io/gpu": "1"}}}
    assert fit.filter(CYCLE, pod(gpu), node()).reasons == ("Insufficient x.io/gpu",)
    assert fit.filter(CYCLE, pod(gpu), node(extra={"x.io/gpu": "1"})) is None


def test_a_pod_that_goes_helps_whom_it_gives_what_is_lacking():
    snapshot = Snapshot()
    snapshot.set_node(node(extra={"x.io/gpu": "1"}).object)
    fit = NodeResourcesFit(handle(snapshot), {})
    hint = fit.helped_by()[Change.POD_REMOVED]

    def gone(own: dict[str, Any]) -> dict[str, Any]:
        there = pod(own, uid="gone").object
        return {**there, "spec": {**there["spec"], "nodeName": "n1"}}

    gpu = {"resources": {"requests": {"x.io/gpu": "1"}}}
    assert hint(pod(gpu), gone(gpu), None)
    assert not hint(pod(gpu), gone(container("1")), None)
    assert hint(pod(container("3")), gone(container("1")), None), "others may be put off"
    assert not hint(pod(container("9")), gone(container("1")), None), "it never fits there"
    assert hint(pod(gpu), {"spec": {"containers": []}}, None), "nobody knows where it was"


def test_an_emptier_node_scores_higher():
    fit = plugin(NodeResourcesFit)
    used = node()
    used.add(pod(container("2", "4Gi"), uid="other"))
    asked = pod(container("1", "2Gi"))
    assert fit.score(CYCLE, asked, node()) == 75
    assert fit.score(CYCLE, asked, used) == 25
    only_cpu = plugin(
        NodeResourcesFit, scoringStrategy={"resources": [{"name": "cpu", "weight": 1}]}
    )
    assert only_cpu.score(CYCLE, pod(container("3", "1Gi")), node()) == 25


def test_even_use_scores_highest():
    balanced = plugin(NodeResourcesBalancedAllocation)
    assert balanced.score(CYCLE, pod(container("2", "4Gi")), node()) == 100
    assert balanced.score(CYCLE, pod(container("4", "0")), node()) == 50
    assert balanced.score(CYCLE, pod({}), node()) == 0


resource = st.integers(0, 4000)


@given(st.lists(st.tuples(resource, resource), max_size=8), st.data())
def test_sums_on_a_node_are_those_of_its_pods_after_any_history(sizes, data):
    info = node()
    present: dict[str, PodInfo] = {}
    for number, (cpu, memory) in enumerate(sizes):
        added = pod(container(f"{cpu}m", f"{memory}Mi"), uid=str(number))
        info.add(added)
        present[added.uid] = added
        if present and data.draw(st.booleans()):
            gone = data.draw(st.sampled_from(sorted(present)))
            info.remove(gone)
            del present[gone]
    for name in ("cpu", "memory"):
        assert info.requested.get(name, 0) == sum(p.requests[name] for p in present.values())
        assert info.assumed[name] == sum(p.assumed[name] for p in present.values())


# -- taints


def test_hard_taints_keep_away_and_soft_ones_cost():
    taints = plugin(TaintToleration)
    hard = node(taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}])
    assert taints.filter(CYCLE, pod(), hard).reasons == ("node(s) had untolerated taint {k: v}",)
    tolerant = pod(tolerations=[{"key": "k", "value": "v", "effect": "NoSchedule"}])
    assert taints.filter(CYCLE, tolerant, hard) is None
    soft = node(taints=[{"key": "k", "effect": "PreferNoSchedule"}])
    assert taints.filter(CYCLE, pod(), soft) is None
    scores = [taints.score(CYCLE, pod(), n) for n in (soft, node())]
    assert taints.normalize(scores) == [0, 100]


# -- affinity


def required(*terms: dict[str, Any]) -> dict[str, Any]:
    field = "requiredDuringSchedulingIgnoredDuringExecution"
    return {"affinity": {"nodeAffinity": {field: {"nodeSelectorTerms": list(terms)}}}}


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, True),
        ({"nodeSelector": {"disk": "ssd"}}, True),
        ({"nodeSelector": {"disk": "hdd"}}, False),
        (required(expression("disk", "In", "ssd", "nvme")), True),
        (required(expression("disk", "NotIn", "ssd")), False),
        (required(expression("gpu", "NotIn", "yes")), True),
        (required(expression("disk", "Exists")), True),
        (required(expression("gpu", "Exists")), False),
        (required(expression("gpu", "DoesNotExist")), True),
        (required(expression("cores", "Gt", "7")), True),
        (required(expression("cores", "Gt", "8")), False),
        (required(expression("cores", "Lt", "9")), True),
        (required(expression("disk", "Gt", "1")), False),
        (required(expression("gpu", "Exists"), expression("disk", "Exists")), True),
        (required({}), False),
        (required(), False),
        (
            required(
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
            ),
            True,
        ),
        ({"nodeSelector": {"disk": "ssd"}, **required(expression("gpu", "Exists"))}, False),
    ],
)
def test_selectors_and_required_terms(spec, expected):
    assert matches(spec, {"disk": "ssd", "cores": "8"}, "n1") is expected


def test_preferred_terms_add_their_weights():
    field = "preferredDuringSchedulingIgnoredDuringExecution"
    terms = [
        {"weight": 10, "preference": expression("disk", "In", "ssd")},
        {"weight": 5, "preference": expression("zone", "Exists")},
    ]
    asked = pod(affinity={"nodeAffinity": {field: terms}})
    affinity = plugin(NodeAffinity)
    scores = [
        affinity.score(CYCLE, asked, node(labels=labels))
        for labels in ({"disk": "ssd", "zone": "a"}, {"zone": "b"}, {})
    ]
    assert scores == [15, 5, 0]
    assert affinity.normalize(scores) == [100, 33, 0]


def test_terms_that_name_their_nodes_limit_the_search():
    fields = [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]
    affinity = plugin(NodeAffinity)
    assert affinity.pre_filter(CYCLE, pod(**required({"matchFields": fields}))) == {"n1"}
    mixed = required({"matchFields": fields}, expression("disk", "Exists"))
    assert affinity.pre_filter(CYCLE, pod(**mixed)) is None


# -- ports


def test_ports_conflict_on_one_address_or_all():
    assert conflict([("0.0.0.0", "TCP", 80)], [("127.0.0.1", "TCP", 80)])
    assert conflict([("127.0.0.1", "TCP", 80)], [("0.0.0.0", "TCP", 80)])
    assert not conflict([("127.0.0.1", "TCP", 80)], [("127.0.0.2", "TCP", 80)])
    assert not conflict([("0.0.0.0", "UDP", 80)], [("0.0.0.0", "TCP", 80)])


@given(st.lists(st.integers(0, 10_000), max_size=20), st.booleans())
def test_normalised_scores_are_in_range_and_keep_their_order(scores, reverse):
    result = normalize(scores, reverse=reverse)
    assert all(0 <= score <= 100 for score in result)
    for a, x in zip(scores, result, strict=True):
        for b, y in zip(scores, result, strict=True):
            if a < b:
                assert x >= y if reverse else x <= y
