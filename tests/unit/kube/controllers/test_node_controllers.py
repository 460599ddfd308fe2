from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

from cluster import READY, Cluster
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.api import meta
from wherry.kube.api.resources import EVENTS, LEASES, NODES, PODS
from wherry.kube.client.transport import Object
from wherry.kube.controllers import pod_gc
from wherry.kube.controllers.node_ipam import allocate, ranges_of
from wherry.kube.controllers.node_lifecycle import taints
from wherry.kube.controllers.taint_eviction import leaves_in

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def node(name: str, ready: str = "True", **spec: object) -> Object:
    conditions = [{"type": "Ready", "status": ready, "lastTransitionTime": meta.now()}]
    return {"metadata": {"name": name}, "spec": spec, "status": {"conditions": conditions}}


def pod(name: str, on: str = "n1", **spec: object) -> Object:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": on, "containers": [], **spec},
        "status": READY(),
    }


async def beat(cluster: Cluster, name: str) -> None:
    if cluster.api.get(LEASES, name, "kube-node-lease") is None:
        metadata = {"name": name, "namespace": "kube-node-lease"}
        await cluster.client.create(LEASES, {"metadata": metadata, "spec": {}})
    patch = {"spec": {"renewTime": meta.now_micro()}}
    await cluster.client.patch(LEASES, name, patch, "kube-node-lease")


def ready(cluster: Cluster, name: str = "n1") -> Object:
    return next(
        c for c in cluster.api.get(NODES, name)["status"]["conditions"] if c["type"] == "Ready"
    )


def keys(cluster: Cluster, name: str = "n1") -> set[tuple[str, str]]:
    spec = cluster.api.get(NODES, name).get("spec") or {}
    return {(t["key"], t["effect"]) for t in spec.get("taints") or ()}


async def test_a_silent_node_becomes_unknown_and_recovers():
    async with Cluster("node-lifecycle-controller", kubelet=False, node_grace=1.0) as cluster:
        await cluster.client.create(NODES, node("n1"))
        await cluster.client.create(PODS, pod("p"))
        for _ in range(12):
            await asyncio.sleep(0.1)
            await beat(cluster, "n1")
        assert ready(cluster)["status"] == "True"
        await cluster.until(lambda: ready(cluster)["status"] == "Unknown")
        assert ready(cluster)["reason"] == "NodeStatusUnknown"
        assert ready(cluster)["message"] == "Kubelet stopped posting node status."
        key = "node.kubernetes.io/unreachable"
        await cluster.until(lambda: keys(cluster) == {(key, "NoSchedule"), (key, "NoExecute")})
        await cluster.until(
            lambda: (
                cluster.api.get(PODS, "p", "default")["status"]["conditions"][0]["status"]
                == "False"
            )
        )
        back = cluster.api.get(NODES, "n1")
        await cluster.client.update_status(NODES, {**back, "status": node("n1")["status"]})
        await cluster.until(lambda: keys(cluster) == set())
        assert ready(cluster)["status"] == "True"


async def test_a_controller_that_was_stalled_does_not_take_its_deafness_for_silence():
    async with Cluster("node-lifecycle-controller", kubelet=False, node_grace=1.0) as cluster:
        await cluster.client.create(NODES, node("n1"))
        await beat(cluster, "n1")
        await cluster.until(lambda: any(key[0] == EVENTS for key in cluster.api.objects))
        time.sleep(1.5)  # noqa: ASYNC251 - the process stands still
        await asyncio.sleep(0.3)
        assert ready(cluster)["status"] == "True"
        await cluster.until(lambda: ready(cluster)["status"] == "Unknown")


async def test_a_node_that_never_reported_is_unknown_after_its_first_grace():
    async with Cluster("node-lifecycle-controller", kubelet=False, node_start_grace=0.1) as cluster:
        await cluster.client.create(NODES, {"metadata": {"name": "n1"}})
        await cluster.until(lambda: cluster.api.get(NODES, "n1").get("status"))
        assert ready(cluster)["reason"] == "NodeStatusNeverUpdated"


async def test_conditions_and_cordons_become_taints():
    own = {"key": "gpu", "effect": "NoSchedule"}
    cordoned = node("n1", "False", unschedulable=True, taints=[own])
    cordoned["status"]["conditions"].append({"type": "DiskPressure", "status": "True"})
    found = taints(cordoned, NOW)
    assert found[0] == own
    assert {(t["key"].rpartition("/")[2], t["effect"]) for t in found[1:]} == {
        ("not-ready", "NoSchedule"),
        ("not-ready", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    }
    again = taints({**cordoned, "spec": {**cordoned["spec"], "taints": found}}, NOW)
    assert again == found
    healthy = node("n1", taints=found)
    assert taints(healthy, NOW) == [own]


async def test_pods_leave_when_they_do_not_tolerate():
    async with Cluster("taint-eviction-controller", kubelet=False) as cluster:
        client = cluster.client
        taint = {"key": "k", "effect": "NoExecute"}
        await client.create(NODES, node("n1"))
        await client.create(PODS, pod("goes"))
        forever = [{"key": "k", "operator": "Exists"}]
        await client.create(PODS, pod("stays", tolerations=forever))
        soon = [{"key": "k", "operator": "Exists", "tolerationSeconds": 1}]
        await client.create(PODS, pod("later", tolerations=soon))
        await client.patch(NODES, "n1", {"spec": {"taints": [taint]}})

        def leaving(name: str) -> bool:
            return meta.is_deleting(cluster.api.get(PODS, name, "default"))

        await cluster.until(lambda: leaving("goes"))
        assert not leaving("later")
        conditions = cluster.api.get(PODS, "goes", "default")["status"]["conditions"]
        assert conditions[-1]["reason"] == "DeletionByTaintManager"
        await cluster.until(lambda: leaving("later"))
        await cluster.settle()
        assert not leaving("stays")
        said = [e["message"] for e in cluster.api.find(EVENTS)]
        assert "Marking for deletion Pod default/goes" in said


async def test_a_taint_that_is_taken_back_in_time_harms_nobody():
    async with Cluster("taint-eviction-controller", kubelet=False) as cluster:
        client = cluster.client
        taint = {"key": "k", "effect": "NoExecute"}
        soon = [{"key": "k", "operator": "Exists", "tolerationSeconds": 1}]
        await client.create(NODES, node("n1", taints=[taint]))
        await client.create(PODS, pod("p", tolerations=soon))
        await cluster.settle()
        await client.patch(NODES, "n1", {"spec": {"taints": None}})
        await asyncio.sleep(1.1)
        assert not meta.is_deleting(cluster.api.get(PODS, "p", "default"))
        said = [e["message"] for e in cluster.api.find(EVENTS)]
        assert said == ["Cancelling deletion of Pod default/p"]


def test_the_shortest_toleration_counts_from_when_the_taint_was_set():
    taint = {"key": "k", "effect": "NoExecute", "timeAdded": "2026-03-01T11:59:50Z"}
    assert leaves_in([taint], [], NOW, NOW) == 0
    tolerations = [
        {"key": "k", "operator": "Exists", "tolerationSeconds": 300},
        {"operator": "Exists", "tolerationSeconds": 30},
    ]
    assert leaves_in([taint], tolerations, NOW, NOW) == 20
    assert leaves_in([taint], [{"operator": "Exists"}], NOW, NOW) is None
    assert leaves_in([taint], [{"key": "k", "value": "other"}], NOW, NOW) == 0
    assert leaves_in([], [], NOW, NOW) is None
    unsaid = {"key": "k", "effect": "NoExecute"}
    assert leaves_in([unsaid], tolerations, NOW - timedelta(seconds=5), NOW) == 25


async def test_pods_of_a_node_that_is_gone_are_failed_and_removed(monkeypatch):
    monkeypatch.setattr(pod_gc, "QUARANTINE", 0.1)
    async with Cluster("pod-garbage-collector-controller", kubelet=False) as cluster:
        client = cluster.client
        await client.create(NODES, node("n1"))
        await client.create(NODES, node("n2"))
        await client.create(PODS, pod("p1", "n1"))
        await client.create(PODS, pod("p2", "n2"))
        phases = []
        cluster.api.after = lambda *_: phases.append(
            (cluster.api.get(PODS, "p1", "default") or {}).get("status", {}).get("phase")
        )
        await client.delete(NODES, "n1")
        await cluster.until(lambda: cluster.api.get(PODS, "p1", "default") is None)
        assert "Failed" in phases
        await cluster.settle()
        assert cluster.api.get(PODS, "p2", "default") is not None


async def test_a_node_that_is_replaced_in_time_keeps_its_pods(monkeypatch):
    monkeypatch.setattr(pod_gc, "QUARANTINE", 0.1)
    async with Cluster("pod-garbage-collector-controller", kubelet=False) as cluster:
        client = cluster.client
        await client.create(NODES, node("n1"))
        await client.create(PODS, pod("p1", "n1"))
        await client.delete(NODES, "n1")
        await client.create(NODES, node("n1"))
        await asyncio.sleep(0.2)
        assert cluster.api.get(PODS, "p1", "default") is not None


async def test_pods_that_were_deleted_go_from_a_node_that_is_out_of_service():
    taint = {"key": pod_gc.OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoExecute"}
    async with Cluster("pod-garbage-collector-controller", kubelet=False) as cluster:
        client = cluster.client
        for name, ready in (("n1", "Unknown"), ("n2", "True"), ("n3", "Unknown")):
            await client.create(NODES, node(name, ready))
            for kind in ("early", "late", "kept"):
                await client.create(PODS, pod(f"{kind}-{name}", name))
            await client.delete(PODS, f"early-{name}", "default", grace=30)
        await cluster.settle()
        for name in ("n1", "n2"):
            await client.patch(NODES, name, {"spec": {"taints": [taint]}})
        await cluster.until(lambda: cluster.api.get(PODS, "early-n1", "default") is None)
        for name in ("n1", "n2", "n3"):
            await client.delete(PODS, f"late-{name}", "default", grace=30)
        await cluster.until(lambda: cluster.api.get(PODS, "late-n1", "default") is None)
        await cluster.settle()
        left = {meta.name(each) for each in cluster.api.find(PODS)}
        assert left == {
            "kept-n1",
            *(f"{k}-{n}" for k in ("early", "late", "kept") for n in ("n2", "n3")),
        }


async def test_the_oldest_finished_pods_beyond_the_limit_are_removed():
    async with Cluster(
        "pod-garbage-collector-controller", kubelet=False, terminated_pods=2
    ) as cluster:
        client = cluster.client
        await client.create(NODES, node("n1"))
        for number in range(4):
            body = pod(f"p{number}")
            body["status"] = {"phase": "Succeeded"}
            await client.create(PODS, body)
        await cluster.until(lambda: {meta.name(p) for p in cluster.api.find(PODS)} == {"p2", "p3"})


async def test_nodes_get_ranges_of_their_own():
    async with Cluster(
        "node-ipam-controller", kubelet=False, cluster_cidr="10.244.0.0/22"
    ) as cluster:
        for number in range(5):
            await cluster.client.create(NODES, {"metadata": {"name": f"n{number}"}})

        def ranges() -> list[str]:
            return sorted(r for n in cluster.api.find(NODES) for r in ranges_of(n))

        all_four = [f"10.244.{number}.0/24" for number in range(4)]
        await cluster.until(lambda: ranges() == all_four)
        await cluster.settle()
        (without,) = [meta.name(n) for n in cluster.api.find(NODES) if not ranges_of(n)]
        assert any(e["reason"] == "CIDRNotAvailable" for e in cluster.api.find(EVENTS))
        taken = next(n for n in cluster.api.find(NODES) if ranges_of(n))
        await cluster.client.delete(NODES, meta.name(taken))
        await cluster.until(lambda: ranges() == all_four)
        node = cluster.api.get(NODES, without)
        assert node["spec"]["podCIDR"] == node["spec"]["podCIDRs"][0]


@given(st.lists(st.integers(0, 15), unique=True, max_size=16), st.integers(26, 30))
def test_a_range_never_overlaps_another(taken: list[int], mask: int):
    import ipaddress

    nodes = [{"spec": {"podCIDRs": [f"10.0.0.{number * 16}/28"]}} for number in taken]
    found = allocate(["10.0.0.0/24"], mask, nodes)
    used = [ipaddress.ip_network(r) for n in nodes for r in ranges_of(n)]
    if found is None:
        free = [
            subnet
            for subnet in ipaddress.ip_network("10.0.0.0/24").subnets(new_prefix=mask)
            if not any(subnet.overlaps(other) for other in used)
        ]
        assert free == []
    else:
        network = ipaddress.ip_network(found[0])
        assert network.prefixlen == mask
        assert not any(network.overlaps(other) for other in used)
        assert network.subnet_of(ipaddress.ip_network("10.0.0.0/24"))


def test_each_family_of_the_cluster_gives_a_range():
    assert allocate(["10.244.0.0/16", "fd00::/48"], 24, []) == ["10.244.0.0/24", "fd00::/64"]


async def test_finished_pods_are_sorted_by_age():
    pods = [
        {
            "metadata": {"name": n, "creationTimestamp": meta.format_time(NOW + timedelta(d))},
            "status": {"phase": "Failed"},
        }
        for n, d in (("young", 2), ("old", 0), ("middle", 1))
    ]
    assert [meta.name(p) for p in pod_gc.surplus(pods, 1)] == ["old", "middle"]
