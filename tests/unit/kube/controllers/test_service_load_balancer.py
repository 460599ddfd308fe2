"""Services of type LoadBalancer: pure choice of addresses, and the controller's words and waits."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from cluster import Cluster, change
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.api import meta
from wherry.kube.api.resources import ENDPOINT_SLICES, EVENTS, NODES, SERVICES
from wherry.kube.client.transport import Object
from wherry.kube.controllers.load_balancing import Unavailable, changes, from_pool

NAME = "service-lb-controller"


def node(name: str, ip: str, *, ready: bool = True, **labels: str) -> Object:
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {},
        "status": {
            "addresses": [{"type": "InternalIP", "address": ip}],
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        },
    }


def service(name: str, *ports: int, **spec: Any) -> Object:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "type": "LoadBalancer",
            "ipFamilies": ["IPv4"],
            "ports": [{"port": port, "protocol": "TCP"} for port in ports or (80,)],
            **spec,
        },
    }


def ips(cluster: Cluster, name: str) -> list[str]:
    found = cluster.api.get(SERVICES, name, "default")
    balancer = (found.get("status") or {}).get("loadBalancer") or {}
    return [entry["ip"] for entry in balancer.get("ingress") or ()]


def reasons(cluster: Cluster, name: str) -> list[str]:
    return [e["reason"] for e in cluster.api.find(EVENTS) if e["involvedObject"]["name"] == name]


async def test_it_gets_the_addresses_of_the_nodes_and_says_so():
    async with Cluster(NAME, kubelet=False) as cluster:
        await cluster.client.create(NODES, node("a", "192.0.2.1"))
        await cluster.client.create(SERVICES, service("web"))
        await cluster.until(lambda: ips(cluster, "web") == ["192.0.2.1"])
        await cluster.until(lambda: len(reasons(cluster, "web")) == 2)
        assert reasons(cluster, "web") == ["EnsuringLoadBalancer", "EnsuredLoadBalancer"]
        await change(cluster, SERVICES, "web", externalTrafficPolicy="Local")
        await cluster.until(lambda: "ExternalTrafficPolicy" in reasons(cluster, "web"))
        await cluster.client.create(NODES, node("b", "192.0.2.2"))
        await cluster.until(lambda: ips(cluster, "web") == ["192.0.2.1", "192.0.2.2"])
        await cluster.client.delete(NODES, "a")
        await cluster.until(lambda: ips(cluster, "web") == ["192.0.2.2"])
        await cluster.until(lambda: "UpdatedLoadBalancer" in reasons(cluster, "web"))
        await change(cluster, SERVICES, "web", type="ClusterIP")
        await cluster.until(lambda: ips(cluster, "web") == [])
        await cluster.until(lambda: "DeletedLoadBalancer" in reasons(cluster, "web"))
        assert "Type" in reasons(cluster, "web")


def test_what_changed_of_a_service_is_told() -> None:
    old = {"externalIPs": ["192.0.2.1"], "loadBalancerSourceRanges": ["10.0.0.0/8"]}
    new = {"externalIPs": ["192.0.2.2"], "loadBalancerIP": "192.0.2.9"}
    assert list(changes(old, new)) == [
        ("LoadBalancerSourceRanges", "[10.0.0.0/8] -> "),
        ("LoadbalancerIP", " -> 192.0.2.9"),
        ("ExternalIP", "Added: 192.0.2.2"),
    ]
    assert list(changes(old, {**old, "externalIPs": []})) == [("ExternalIP", "Count: 1 -> 0")]


async def test_without_nodes_it_is_said_that_there_are_none():
    async with Cluster(NAME, kubelet=False) as cluster:
        await cluster.client.create(SERVICES, service("web"))
        await cluster.until(lambda: "UnAvailableLoadBalancer" in reasons(cluster, "web"))


async def test_a_port_that_is_taken_is_told_and_had_when_it_is_free():
    async with Cluster(NAME, kubelet=False) as cluster:
        await cluster.client.create(NODES, node("a", "192.0.2.1"))
        await cluster.client.create(SERVICES, service("first"))
        await cluster.until(lambda: ips(cluster, "first"))
        await cluster.client.create(SERVICES, service("second", 80, 443))
        await cluster.client.create(SERVICES, service("third", 443))
        await cluster.until(lambda: ips(cluster, "third"))
        await cluster.until(lambda: reasons(cluster, "second"))
        (event,) = [e for e in cluster.api.find(EVENTS) if e["involvedObject"]["name"] == "second"]
        assert event["reason"] == "SyncLoadBalancerFailed"
        assert event["message"] == (
            "Error syncing load balancer: failed to ensure load balancer: port 80/TCP of "
            "192.0.2.1 is taken by service default/first"
        )
        await cluster.settle()
        assert ips(cluster, "second") == []
        await cluster.client.delete(SERVICES, "third", "default")
        await change(cluster, SERVICES, "first", ports=[{"port": 81, "protocol": "TCP"}])
        await cluster.until(lambda: ips(cluster, "second") == ["192.0.2.1"])


async def test_the_ports_of_the_cluster_itself_are_not_to_be_had():
    async with Cluster(NAME, kubelet=False) as cluster:
        await cluster.client.create(NODES, node("a", "192.0.2.1"))
        slice: Object = {
            "metadata": {
                "name": "kubernetes",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.1"]}],
            "ports": [{"port": 6443}],
        }
        await cluster.client.create(ENDPOINT_SLICES, slice)
        await cluster.client.create(SERVICES, service("kubelets", 10250))
        await cluster.client.create(SERVICES, service("servers", 6443))
        for name, owner in (("kubelets", "the kubelet"), ("servers", "the API server")):
            await cluster.until(lambda name=name: reasons(cluster, name))
            (event,) = [e for e in cluster.api.find(EVENTS) if e["involvedObject"]["name"] == name]
            assert event["message"].endswith(f"is taken by {owner}")


async def test_a_class_of_somebody_elses_is_left_alone():
    async with Cluster(NAME, kubelet=False) as cluster:
        await cluster.client.create(NODES, node("a", "192.0.2.1"))
        theirs = service("theirs", loadBalancerClass="example.com/lb")
        await cluster.client.create(SERVICES, theirs)
        ours = service("ours", loadBalancerClass="wherry.io/node-addresses")
        await cluster.client.create(SERVICES, ours)
        await cluster.until(lambda: ips(cluster, "ours"))
        assert ips(cluster, "theirs") == [] and reasons(cluster, "theirs") == []


async def test_where_traffic_stays_local_only_nodes_that_serve_take_it_in():
    async with Cluster(NAME, kubelet=False) as cluster:
        await cluster.client.create(NODES, node("a", "192.0.2.1"))
        await cluster.client.create(NODES, node("b", "192.0.2.2"))
        away = {"node.kubernetes.io/exclude-from-external-load-balancers": ""}
        await cluster.client.create(NODES, node("c", "192.0.2.3", **away))
        await cluster.client.create(SERVICES, service("web", externalTrafficPolicy="Local"))
        await cluster.until(lambda: ips(cluster, "web") == ["192.0.2.1", "192.0.2.2"])
        slice: Object = {
            "metadata": {
                "name": "web-1",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": "web"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "b"}],
        }
        await cluster.client.create(ENDPOINT_SLICES, slice)
        await cluster.until(lambda: ips(cluster, "web") == ["192.0.2.2"])


async def test_of_a_pool_each_gets_an_address_of_its_own():
    pool = ("198.51.100.0/30",)
    async with Cluster(NAME, kubelet=False, load_balancer_pool=pool) as cluster:
        await cluster.client.create(SERVICES, service("a"))
        await cluster.until(lambda: ips(cluster, "a"))
        await cluster.client.create(SERVICES, service("b"))
        await cluster.until(lambda: ips(cluster, "b"))
        assert {*ips(cluster, "a"), *ips(cluster, "b")} == {"198.51.100.1", "198.51.100.2"}
        await cluster.client.create(SERVICES, service("c"))
        await cluster.until(lambda: reasons(cluster, "c"))
        await cluster.client.delete(SERVICES, "a", "default")
        await cluster.until(lambda: ips(cluster, "c") == ["198.51.100.1"])


POOL = [ipaddress.ip_network("198.51.100.0/28")]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=60))
def test_no_two_services_share_an_address_of_the_pool_whatever_comes_and_goes(history):
    held: dict[int, str] = {}
    for comes, name in history:
        if not comes:
            held.pop(name, None)
            continue
        status = {"loadBalancer": {"ingress": [{"ip": held[name]}]}} if name in held else {}
        before = held.get(name)
        others = [ip for other, ip in held.items() if other != name]
        (held[name],) = from_pool({**service(str(name)), "status": status}, POOL, others)
        assert before in (None, held[name]), "an address is kept"
        assert len(set(held.values())) == len(held)


def test_an_address_that_is_asked_for_is_had_or_refused():
    asked = service("a", loadBalancerIP="198.51.100.9")
    assert from_pool(asked, POOL, ()) == ["198.51.100.9"]
    with pytest.raises(Unavailable, match="taken by another"):
        from_pool(asked, POOL, ["198.51.100.9"])
    with pytest.raises(Unavailable, match="not in the pool"):
        from_pool(service("a", loadBalancerIP="192.0.2.9"), POOL, ())
    assert meta.name(asked) == "a"
