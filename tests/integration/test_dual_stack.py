"""Clusters of both families: three machines, one behind a router, and one where IPv6 is first."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import eventually
from dnslib import DNSRecord
from families import (
    addresses,
    answer,
    apply,
    assert_all_answer,
    client,
    daemon_set,
    family,
    from_node,
    from_pod,
    heard,
    service,
    web_pods,
)
from machines import V6, Machines, NodeInstance, join, machines

from wherry.net import namespaces

pytestmark = pytest.mark.skipif(not V6, reason="this kernel has no IPv6")

FAMILIES = ("IPv4", "IPv6")
NODES = ("a", "b", "c")


@pytest.fixture(scope="module")
def bench() -> Iterator[Machines]:
    with machines() as made:
        yield made


@pytest.fixture(scope="module")
def cluster(bench: Machines) -> NodeInstance:
    """Three nodes, a pod of a server on each, and a client."""
    server, *others = (bench.instance(name) for name in NODES)
    server.wherry("up", "--node-name", "a", "--ip-families", "IPv4,IPv6")
    command = server.wherry("token create", "--print-join-command").out.strip()
    by_ipv6 = command.replace(server.machine.address, f"[{server.machine.address6}]")
    for name, node, words in zip(NODES[1:], others, (command, by_ipv6), strict=True):
        join(node, words, "--node-name", name)
    for node in (server, *others):
        node.wherry("images bootstrap", "busybox")
    apply(server, daemon_set("web"), client("client", "a"))
    apply(server, client("hosted", "b", hostNetwork=True))
    apply(server, service("web", type="LoadBalancer", ipFamilyPolicy="PreferDualStack"))
    server.kubectl("rollout", "status", "ds/web", "--timeout=110s")
    server.kubectl("wait", "--for=condition=Ready", "pod/client", "pod/hosted", "--timeout=110s")
    return server


def test_a_cluster_may_lead_with_ipv6_and_leaves_nothing_behind(bench: Machines) -> None:
    one = bench.instance("d")
    one.wherry("up", "--node-name", "d", "--ip-families", "IPv6,IPv4")
    one.wherry("images bootstrap", "busybox")
    apply(one, daemon_set("web"), client("client", "d"))
    apply(one, service("web"), service("both", ipFamilyPolicy="RequireDualStack"))
    one.kubectl("rollout", "status", "ds/web", "--timeout=110s")
    one.kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=110s")
    pod = web_pods(one)["d"]
    assert [family(ip) for ip in addresses(pod)] == ["IPv6", "IPv4"]
    assert one.get("service", "web")["spec"]["ipFamilies"] == ["IPv6"]
    both = one.get("service", "both")["spec"]["clusterIPs"]
    assert [family(ip) for ip in both] == ["IPv6", "IPv4"]
    for ip in (*both, one.get("service", "web")["spec"]["clusterIP"]):
        eventually(lambda ip=ip: from_pod(one, "client", ip))  # type: ignore[misc]
    script = "echo $KUBERNETES_SERVICE_HOST; nslookup both.default.svc.cluster.local"
    inside = one.kubectl("exec", "client", "--", "sh", "-c", script).out
    assert family(inside.splitlines()[0]) == "IPv6" and both[0] in inside and both[1] in inside
    forwarded = one.start("kubectl", "port-forward", "ds/web", ":8080")
    assert forwarded.stdout is not None
    port = int(forwarded.stdout.readline().split(" -> ")[0].rpartition(":")[2])
    assert answer(from_node, one, "127.0.0.1", port)[1] == "d"
    forwarded.terminate()
    forwarded.wait()
    one.wherry("down", "--purge", "--grace", "1")
    left = one.machine.run("ip", "-6", "route").out + one.machine.run("nft", "list", "tables").out
    assert "fd" not in left and "wherry" not in left


def test_a_node_has_an_address_and_a_range_of_each_family(
    cluster: NodeInstance, bench: Machines
) -> None:
    ranges = set()
    for node in cluster.get("nodes")["items"]:
        machine = bench.by_name[node["metadata"]["name"]]
        found = [e["address"] for e in node["status"]["addresses"] if e["type"] == "InternalIP"]
        assert found == [machine.address, machine.address6]
        spec = node["spec"]
        assert spec["podCIDR"] == spec["podCIDRs"][0]
        assert [ipaddress.ip_network(cidr).version for cidr in spec["podCIDRs"]] == [4, 6]
        ranges |= set(spec["podCIDRs"])
    assert len(ranges) == 6
    again = cluster.wherry("up", "--ip-families", "IPv6", ok=False)
    assert again.code != 0 and "has the ranges" in again.err


def test_a_pod_has_an_address_of_each_family_and_is_told_so(cluster: NodeInstance) -> None:
    pod = cluster.get("pod", "client")
    own = addresses(pod)
    assert [family(ip) for ip in own] == list(FAMILIES) and pod["status"]["podIP"] == own[0]
    hosts = [entry["ip"] for entry in pod["status"]["hostIPs"]]
    assert hosts == ["198.18.0.1", "2001:db8::1"] and pod["status"]["hostIP"] == hosts[0]
    inside = cluster.kubectl("exec", "client", "--", "sh", "-c", "echo $IPS $HOSTS; cat /etc/hosts")
    assert inside.out.splitlines()[0] == f"{','.join(own)} {','.join(hosts)}"
    assert [f"{ip}\tclient" in inside.out.splitlines() for ip in own] == [True, True]
    hosted = cluster.get("pod", "hosted")
    assert addresses(hosted) == ["198.18.0.2", "2001:db8::2"]
    assert hosted["status"]["podIPs"] == hosted["status"]["hostIPs"]
    described = cluster.kubectl("describe", "pod", "client").out
    assert all(f"  IP:  {ip}\n" in described for ip in own)


def test_pods_reach_each_other_by_either_address_and_are_seen_by_their_own(
    cluster: NodeInstance,
) -> None:
    own = dict(zip(FAMILIES, addresses(cluster.get("pod", "client")), strict=True))
    for node, pod in web_pods(cluster).items():
        for ip in addresses(pod):
            assert answer(from_pod, cluster, "client", ip, 8080) == (own[family(ip)], node)


def test_a_service_of_both_families_is_reached_at_both_of_its_addresses(
    cluster: NodeInstance,
) -> None:
    spec = cluster.get("service", "web")["spec"]
    assert spec["ipFamilies"] == list(FAMILIES)
    assert [family(ip) for ip in spec["clusterIPs"]] == list(FAMILIES)
    ips = [ip for pod in web_pods(cluster).values() for ip in addresses(pod)]
    wanted = {f: {ip for ip in ips if family(ip) == f} for f in FAMILIES}

    def listed() -> dict[str, set[str]]:
        slices = cluster.get("endpointslices", "-l", "kubernetes.io/service-name=web")["items"]
        return {
            s["addressType"]: {a for e in s["endpoints"] or () for a in e["addresses"]}
            for s in slices
        }

    eventually(lambda: listed() == wanted)
    for ip in spec["clusterIPs"]:
        assert_all_answer(NODES, lambda ip=ip: from_pod(cluster, "client", ip))  # type: ignore[misc]
        assert_all_answer(NODES, lambda ip=ip: from_node(cluster, ip))  # type: ignore[misc]
    free = str(ipaddress.ip_address(spec["clusterIPs"][1]) + 1)
    assert from_pod(cluster, "client", free) == from_node(cluster, free) == ""


def test_node_ports_and_host_ports_are_open_on_addresses_of_both_families(
    cluster: NodeInstance, bench: Machines
) -> None:
    nodes = [bench.by_name[name] for name in NODES]
    wanted = {a for m in nodes for a in (m.address, m.address6)}

    def balancer() -> set[str]:
        told = cluster.get("service", "web")["status"]["loadBalancer"].get("ingress") or ()
        return {entry["ip"] for entry in told}

    eventually(lambda: balancer() == wanted)
    port = cluster.get("service", "web")["spec"]["ports"][0]["nodePort"]
    for name in ("a", "c"):
        machine = bench.by_name[name]
        for address in (machine.address, machine.address6):
            assert answer(from_pod, cluster, "client", address, port)
            assert answer(from_node, cluster, address, port)
            assert answer(from_node, cluster, address, 8099)[1] == name
            # From a machine that is no node, behind the router for one of them.
            stranger = NodeInstance(bench.home / "d", bench.by_name["d"])
            assert answer(from_node, stranger, address, port)
            assert answer(from_node, stranger, address, 80)
            assert answer(from_node, stranger, address, 8099)[1] == name


def test_a_service_gets_its_second_family_and_gives_it_back(cluster: NodeInstance) -> None:
    apply(cluster, service("turning"))
    made = cluster.get("service", "turning")["spec"]
    assert (made["ipFamilies"], made["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")

    def turn(policy: str) -> list[str]:
        patch = json.dumps({"spec": {"ipFamilyPolicy": policy}})
        cluster.kubectl("patch", "service", "turning", "-p", patch)
        found: list[str] = cluster.get("service", "turning")["spec"]["clusterIPs"]
        return found

    first, second = turn("RequireDualStack")
    assert first == made["clusterIP"] and family(second) == "IPv6"
    eventually(lambda: from_pod(cluster, "client", second))
    assert turn("SingleStack") == [first]
    eventually(lambda: not from_pod(cluster, "client", second))
    assert answer(from_pod, cluster, "client", first)
    refused = cluster.kubectl(
        *("patch", "service", "turning", "-p", '{"spec":{"ipFamilies":["IPv6"]}}'), ok=False
    )
    assert "spec.ipFamilies[0]: Invalid value" in refused.err
    apply(cluster, service("six", ipFamilies=["IPv6"]))
    six = cluster.get("service", "six")["spec"]["clusterIPs"]
    assert [family(ip) for ip in six] == ["IPv6"]
    eventually(lambda: from_pod(cluster, "client", six[0]))


def test_the_name_server_knows_both_families_and_is_reached_by_both(
    cluster: NodeInstance,
) -> None:
    apply(cluster, service("headless", clusterIP="None", ipFamilyPolicy="RequireDualStack"))
    web = cluster.get("service", "web")["spec"]["clusterIPs"]
    ips = {ip for pod in web_pods(cluster).values() for ip in addresses(pod)}
    servers = cluster.get("service", "kube-dns", "-n", "kube-system")["spec"]["clusterIPs"]
    assert [family(ip) for ip in servers] == list(FAMILIES)
    suffix = "default.svc.cluster.local"

    def ask(server: str, name: str, kind: str) -> set[str]:
        question = DNSRecord.question(name, kind).pack()
        with namespaces.enter(Path("/run/netns") / cluster.machine.namespace):
            kind_of_socket = socket.AF_INET6 if ":" in server else socket.AF_INET
            opened = socket.socket(kind_of_socket, socket.SOCK_DGRAM)
        with opened, contextlib.suppress(TimeoutError):
            opened.settimeout(20)
            opened.connect((server, 53))
            opened.send(question)
            return {str(r.rdata) for r in DNSRecord.parse(opened.recv(4096)).rr}
        return set()

    def listed(server: str, kind: str, family_: str) -> bool:
        wanted = {ip for ip in ips if family(ip) == family_}
        return ask(server, f"headless.{suffix}", kind) == wanted

    for server in servers:
        assert ask(server, f"web.{suffix}", "A") == {web[0]}
        assert ask(server, f"web.{suffix}", "AAAA") == {web[1]}
        eventually(lambda at=server: listed(at, "A", "IPv4"))  # type: ignore[misc]
        eventually(lambda at=server: listed(at, "AAAA", "IPv6"))  # type: ignore[misc]
        pointer = ipaddress.ip_address(web[1]).reverse_pointer
        assert ask(server, pointer, "PTR") == {f"web.{suffix}."}


def test_policies_hold_for_both_families(cluster: NodeInstance) -> None:
    pod = web_pods(cluster)["a"]
    own = addresses(cluster.get("pod", "client"))

    def let(*blocks: str) -> None:
        peers = [{"ipBlock": {"cidr": block}} for block in blocks]
        spec = {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": peers}]}
        policy = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "blocks"},
            "spec": spec,
        }
        apply(cluster, policy)

    def passes() -> list[bool]:
        asked = [from_pod(cluster, "client", ip, 8080, seconds=1) for ip in addresses(pod)]
        return list(map(bool, asked))

    let(f"{own[1]}/128")
    eventually(lambda: passes() == [False, True])
    let(f"{own[0]}/32")
    eventually(lambda: passes() == [True, False])
    cluster.kubectl("delete", "networkpolicy", "blocks")
    eventually(lambda: passes() == [True, True])


def test_a_killed_node_keeps_what_was_given_in_both_families(cluster: NodeInstance) -> None:
    before = addresses(cluster.get("pod", "client"))
    services = cluster.get("service", "web")["spec"]["clusterIPs"]
    os.kill(cluster.pid("node"), signal.SIGKILL)
    assert all(heard(from_node(cluster, ip)) for ip in services)
    cluster.wherry("up")
    apply(cluster, client("later", "a"))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/later", "pod/client", "--timeout=110s")
    assert addresses(cluster.get("pod", "client")) == before
    assert not set(addresses(cluster.get("pod", "later"))) & set(before)
    for ip in services:
        for name in ("client", "later"):
            heard(eventually(lambda who=name, ip=ip: from_pod(cluster, who, ip)))  # type: ignore[misc]
