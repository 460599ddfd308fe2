"""Where clients reach a controller in pods, and what a cluster needs for one."""

from __future__ import annotations

import pytest

from wherry.kube.ingress.addresses import of_nodes, of_service
from wherry.kube.ingress.manifests import KINDS, manifests


def test_a_service_says_where_it_is_reached():
    assigned = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "x.y"}]}}}
    balancer = {"spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.9"}, **assigned}
    assert of_service(balancer) == [{"ip": "192.0.2.1"}, {"hostname": "x.y"}]
    assert of_service({"spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.9"}}) == []
    port = {"type": "NodePort", "clusterIP": "10.96.0.9"}
    assert of_service({"spec": port}) == [{"ip": "10.96.0.9"}]
    assert of_service({"spec": {**port, "externalIPs": ["192.0.2.3"]}}) == [{"ip": "192.0.2.3"}]
    assert of_service({"spec": {"clusterIP": "None"}}) == []
    named = {"type": "ExternalName", "externalName": "edge.example.com"}
    assert of_service({"spec": named}) == [{"hostname": "edge.example.com"}]


def test_nodes_with_a_running_pod_are_where_it_is_reached():
    def node(name: str, **addresses: str) -> dict:
        listed = [{"type": kind, "address": address} for kind, address in addresses.items()]
        return {"metadata": {"name": name}, "status": {"addresses": listed}}

    def pod(node: str, phase: str = "Running", ready: str = "True", **metadata: str) -> dict:
        status = {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}
        return {"metadata": metadata, "spec": {"nodeName": node}, "status": status}

    nodes = [
        node("a", InternalIP="10.0.0.1", Hostname="a"),
        node("b", InternalIP="10.0.0.2", ExternalIP="192.0.2.2"),
        node("c", InternalIP="10.0.0.3"),
        node("d", InternalIP="10.0.0.4"),
    ]
    pods = [
        *(pod("a"), pod("b"), pod("b", ready="False"), pod("c", ready="False")),
        *(pod("c", "Pending"), pod("d", deletionTimestamp="now")),
    ]
    assert of_nodes(pods, nodes) == [{"ip": "10.0.0.1"}, {"ip": "192.0.2.2"}]
    assert of_nodes(pods, nodes, internal=True) == [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]


@pytest.mark.parametrize("kind", KINDS)
def test_a_cluster_gets_what_its_kind_needs(kind: str):
    objects = manifests(kind, "image:1", http=8080, selector={"edge": "true"})
    kinds = [o["kind"] for o in objects]
    workload = objects[kinds.index("DaemonSet" if kind == "daemonset" else "Deployment")]
    pod = workload["spec"]["template"]["spec"]
    assert pod["nodeSelector"]["edge"] == "true" and pod["containers"][0]["image"] == "image:1"
    assert pod.get("hostNetwork", False) == (kind == "daemonset")
    (_, lease) = objects[kinds.index("Role")]["rules"]
    assert f"--election-id={lease['resourceNames'][0]}" in pod["containers"][0]["args"]
    assert objects[kinds.index("RoleBinding")]["roleRef"]["kind"] == "Role"
    if kind == "daemonset":
        assert "Service" not in kinds
    else:
        service = objects[kinds.index("Service")]["spec"]
        assert service["type"].lower() == kind
        assert {port["targetPort"] for port in service["ports"]} == {"http", "https"}
