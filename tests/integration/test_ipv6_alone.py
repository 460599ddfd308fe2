"""Clusters of IPv6 alone, on machines that have nothing else: two nodes with a router in between,
and a machine whose default route that router has advertised."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import signal
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import eventually
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
from machines import V6, Machine, Machines, NodeInstance, join, machines

from wherry.launcher import instance as instances
from wherry.net import namespaces

pytestmark = pytest.mark.skipif(not V6, reason="this kernel has no IPv6")

NODES = ("a", "c")
OPTIONS = ("--ip-families", "IPv6")


@pytest.fixture(scope="module")
def bench() -> Iterator[Machines]:
    with machines(v4=False) as made:
        yield made


@pytest.fixture(scope="module")
def cluster(bench: Machines) -> NodeInstance:
    """Two nodes, a pod of a server on each, and a client."""
    server, other = (bench.instance(name) for name in NODES)
    server.wherry("up", "--node-name", "a", *OPTIONS)
    command = server.wherry("token create", "--print-join-command").out.strip()
    assert f"join [{server.machine.address6}]:" in command
    join(other, command, "--node-name", "c")
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda node: node.wherry("images bootstrap", "busybox"), (server, other)))
    apply(server, daemon_set("web"), client("client", "a"), service("web", type="NodePort"))
    server.kubectl("rollout", "status", "ds/web", "--timeout=110s")
    server.kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=110s")
    return server


def shell(cluster: NodeInstance, pod: str, script: str) -> str:
    return cluster.kubectl("exec", pod, "--", "sh", "-c", script).out.strip()


def mtu_of(cluster: NodeInstance, pod: str) -> str:
    return shell(cluster, pod, "cat /sys/class/net/eth0/mtu")


def large(cluster: NodeInstance, address: str) -> str:
    """How much of a large file reaches the client's pod."""
    return shell(cluster, "client", f"wget -qO- 'http://[{address}]:8080/large' | wc -c")


# ---- one machine, whose default route was advertised


def advertise(bench: Machines, lifetime: int = 1800) -> None:
    """Have the router say on the second link that it is one (RFC 4861, 4.2)."""
    advertisement = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, lifetime, 0, 0)
    with namespaces.enter(Path("/run/netns") / bench.router):
        index = socket.if_nametoindex("net1")
        sender = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    with sender, contextlib.suppress(OSError):  # its own address is still being tried
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        sender.sendto(advertisement, ("ff02::1", 0, 0, index))


def learned(machine: Machine) -> str:
    """The default route that the machine was told of."""
    return machine.run("ip", "-6", "route", "show", "default", "proto", "ra").out.strip()


def kernel_state(machine: Machine) -> dict[str, list[str]]:
    """All links, addresses, routes and rules, without what the kernel counts."""
    commands = {
        "links": "ip -o link",
        "addresses": "ip -o address show scope global",
        "routes": "ip -4 route show table all",
        "routes6": "ip -6 route show table main",
        "ours6": "ip -6 route show table all type unreachable",
        "rules": "ip rule",
        "rules6": "ip -6 rule",
        "nftables": "nft list tables",
        "neighbours": "ip -6 neighbour show nud permanent",
    }
    return {
        name: sorted(re.sub(r" expires \d+sec", "", machine.run(*c.split()).out).splitlines())
        for name, c in commands.items()
    }


def test_a_machine_keeps_the_default_route_that_it_was_told_of(bench: Machines) -> None:
    one = bench.instance("d")
    machine = one.machine
    machine.run("ip", "-6", "route", "del", "default")
    machine.run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_ra")

    def hears(lifetime: int, wanted: bool) -> bool:
        advertise(bench, lifetime)
        return bool(learned(machine)) == wanted

    eventually(lambda: hears(1800, True))
    before = kernel_state(machine)
    one.wherry("up", "--node-name", "d", *OPTIONS)
    forwarding = machine.run("cat", "/proc/sys/net/ipv6/conf/all/forwarding").out.strip()
    assert forwarding == "1" and learned(machine)
    # It goes on listening: to a farewell, and to a return.
    eventually(lambda: hears(0, False))
    eventually(lambda: hears(1800, True))
    # A node that is alone notices another size of packets, too.
    found = instances.find(one.data_dir)
    assert found is not None
    bridge = ("ip", "link", "show", found.pod_bridge)
    for mtu in ("1400", "1500"):
        machine.run("ip", "link", "set", "eth0", "mtu", mtu)
        eventually(lambda mtu=mtu: f"mtu {mtu} " in machine.run(*bridge).out)  # type: ignore[misc]
    os.kill(one.pid("node"), signal.SIGKILL)
    one.wherry("down", "--purge", "--grace", "1")
    assert learned(machine)
    assert kernel_state(machine) == before


# ---- a cluster


def test_everything_has_an_address_of_ipv6_and_no_other(cluster: NodeInstance) -> None:
    for node in cluster.get("nodes")["items"]:
        found = [e["address"] for e in node["status"]["addresses"] if e["type"] == "InternalIP"]
        assert [family(ip) for ip in found] == ["IPv6"]
        assert [ipaddress.ip_network(c).version for c in node["spec"]["podCIDRs"]] == [6]
    for pod in (cluster.get("pod", "client"), *web_pods(cluster).values()):
        assert [family(ip) for ip in addresses(pod)] == ["IPv6"]
        assert family(pod["status"]["hostIP"]) == "IPv6"
    for one in cluster.get("services", "-A")["items"]:
        assert [family(ip) for ip in one["spec"]["clusterIPs"]] == ["IPv6"]
    (slice_,) = cluster.get("endpointslices", "-l", "kubernetes.io/service-name=web")["items"]
    assert slice_["addressType"] == "IPv6"
    inside = shell(cluster, "client", "echo $KUBERNETES_SERVICE_HOST; ip -4 addr show dev eth0")
    assert family(inside) == "IPv6"  # and nothing else


def test_pods_reach_each_other_through_tunnels_of_ipv6(
    cluster: NodeInstance, bench: Machines
) -> None:
    (own,) = addresses(cluster.get("pod", "client"))
    for node, pod in web_pods(cluster).items():
        (ip,) = addresses(pod)
        assert answer(from_pod, cluster, "client", ip, 8080) == (own, node)
        assert answer(from_node, cluster, ip, 8080)[1] == node
        assert large(cluster, ip) == "3000000"
        far = NodeInstance(bench.home / "c", bench.by_name["c"])
        assert answer(from_node, far, ip, 8080)[1] == node
    device = cluster.machine.run("ip", "-d", "link", "show", "type", "vxlan").out
    assert f"local {cluster.machine.address6}" in device and "mtu 1430" in device
    assert mtu_of(cluster, "client") == "1430"


def test_a_service_is_reached_by_its_name_and_its_address(cluster: NodeInstance) -> None:
    ip = cluster.get("service", "web")["spec"]["clusterIP"]
    for name in ("web", "web.default", "web.default.svc.cluster.local"):
        said = shell(cluster, "client", f"wget -qO- http://{name}/cgi-bin/who")
        assert heard(said)[1] in NODES
    assert_all_answer(NODES, lambda: from_pod(cluster, "client", ip))
    assert_all_answer(NODES, lambda: from_node(cluster, ip))
    free = str(ipaddress.ip_address(ip) + 1)
    assert from_pod(cluster, "client", free) == from_node(cluster, free) == ""
    resolver = shell(cluster, "client", "cat /etc/resolv.conf")
    server = cluster.get("service", "kube-dns", "-n", "kube-system")["spec"]["clusterIP"]
    assert f"nameserver {server}" in resolver and family(server) == "IPv6"
    answer = shell(cluster, "client", "nslookup -type=AAAA web.default.svc.cluster.local")
    assert ip in answer
    pointer = shell(cluster, "client", f"nslookup {ip}")
    assert "web.default.svc.cluster.local" in pointer
    # The API has such an address, too, which its certificate knows.
    said = shell(cluster, "client", "nc -w 5 kubernetes.default 443 < /dev/null && echo open")
    assert said == "open"
    api = cluster.get("service", "kubernetes")["spec"]["clusterIP"]
    authority = str(cluster.data_dir / "pki" / "ca.crt")
    done = cluster.machine.run("curl", "-sS", "--cacert", authority, f"https://[{api}]/version")
    assert json.loads(done.out)["major"] == "1"


def test_node_ports_and_host_ports_are_open_on_every_node(
    cluster: NodeInstance, bench: Machines
) -> None:
    port = cluster.get("service", "web")["spec"]["ports"][0]["nodePort"]
    stranger = NodeInstance(bench.home / "d", bench.by_name["d"])
    stranger.machine.run("ip", "-6", "route", "replace", "default", "via", "2001:db8:1::254")
    for name in NODES:
        address = bench.by_name[name].address6
        assert answer(from_pod, cluster, "client", address, port)
        assert answer(from_node, cluster, address, port)
        assert answer(from_node, stranger, address, port)
        assert answer(from_node, cluster, address, 8099)[1] == name
        assert answer(from_node, stranger, address, 8099)[1] == name
    assert answer(from_node, cluster, "::1", port)
    # Balancers ask there whether the node's proxy is well.
    instance = instances.find(cluster.data_dir)
    assert instance is not None
    address = f"[{cluster.machine.address6}]:{instance.proxy_health_port}"
    for asked in (address, f"127.0.0.1:{instance.proxy_health_port}"):
        assert "lastUpdated" in cluster.machine.run("curl", "-s", f"http://{asked}/healthz").out


def test_kubelets_are_reached_for_logs_commands_and_ports(cluster: NodeInstance) -> None:
    apply(cluster, client("talker", "c"))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/talker", "--timeout=110s")
    assert shell(cluster, "talker", "echo $HOSTS") == "2001:db8:1::3"
    shell(cluster, "talker", "echo said > /proc/1/fd/1")
    eventually(lambda: cluster.kubectl("logs", "talker").out == "said\n")
    web = web_pods(cluster)["c"]["metadata"]["name"]
    forwarded = cluster.start("kubectl", "port-forward", "--address=::1", f"pod/{web}", ":8080")
    try:
        assert forwarded.stdout is not None
        port = int(forwarded.stdout.readline().split(" -> ")[0].rpartition(":")[2])
        assert answer(from_node, cluster, "::1", port)[1] == "c"
    finally:
        forwarded.terminate()
        forwarded.wait()
    cluster.kubectl("delete", "pod", "talker")


def test_policies_know_addresses_of_ipv6(cluster: NodeInstance) -> None:
    (own,) = addresses(cluster.get("pod", "client"))
    (ip,) = addresses(web_pods(cluster)["c"])

    def let(block: str) -> None:
        rule = {"from": [{"ipBlock": {"cidr": block}}]}
        spec = {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [rule]}
        made = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": spec}
        apply(cluster, {**made, "metadata": {"name": "block"}})

    def passes() -> bool:
        return bool(from_pod(cluster, "client", ip, 8080, seconds=1))

    let("2001:db8::/128")
    eventually(lambda: not passes())
    let(f"{own}/128")
    eventually(passes)
    cluster.kubectl("delete", "networkpolicy", "block")


def test_another_size_of_packets_is_noticed_when_it_comes(
    cluster: NodeInstance, bench: Machines
) -> None:
    web = web_pods(cluster)["c"]
    name, (ip,) = web["metadata"]["name"], addresses(web)
    peer = int(shell(cluster, name, "cat /sys/class/net/eth0/iflink"))

    def sizes() -> list[str]:
        """In the pod, at the other end of its cable, and of tunnels."""
        listed = bench.by_name["c"].run("ip", "-j", "-d", "link").out
        links: list[dict[str, Any]] = json.loads(listed)
        kinds = [(one, one.get("linkinfo", {}).get("info_kind")) for one in links]
        outside = [one["mtu"] for one, kind in kinds if one["ifindex"] == peer or kind == "vxlan"]
        return [mtu_of(cluster, name), *map(str, outside)]

    for link, wanted in ((1400, "1330"), (1500, "1430")):
        bench.narrow("c", link)
        eventually(lambda wanted=wanted: sizes() == [wanted] * 3)  # type: ignore[misc]
        apply(cluster, client("new", "c"))
        cluster.kubectl("wait", "--for=condition=Ready", "pod/new", "--timeout=110s")
        assert mtu_of(cluster, "new") == wanted
        cluster.kubectl("delete", "pod", "new")
        assert large(cluster, ip) == "3000000"


def test_a_killed_node_keeps_its_ways(cluster: NodeInstance) -> None:
    (before,) = addresses(cluster.get("pod", "client"))
    (far,) = addresses(web_pods(cluster)["c"])
    os.kill(cluster.pid("node"), signal.SIGKILL)
    assert heard(from_node(cluster, far, 8080))[1] == "c"
    cluster.wherry("up")
    assert answer(from_pod, cluster, "client", far, 8080) == (before, "c")
    assert addresses(cluster.get("pod", "client")) == [before]


def test_a_node_that_leaves_takes_all_of_it_along(cluster: NodeInstance, bench: Machines) -> None:
    far = NodeInstance(bench.home / "c", bench.by_name["c"])
    os.kill(far.pid("node"), signal.SIGKILL)
    far.wherry("down", "--purge", "--grace", "0")
    left = kernel_state(far.machine)
    assert left["nftables"] == left["neighbours"] == left["ours6"] == []
    assert not any("wherry" in line for lines in left.values() for line in lines)
    assert not any(line.startswith("fd") for line in left["routes6"])
    # With nobody left, the other one has no tunnels either.
    cluster.kubectl("delete", "node", "c")
    machine = cluster.machine
    eventually(lambda: not machine.run("ip", "link", "show", "type", "vxlan").out)
    eventually(lambda: mtu_of(cluster, "client") == "1500")
