"""Services in each mode of the proxy, on one instance that is switched from one to the next."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Instance, eventually
from test_proxy import fetch, pod_of
from test_proxy_policies import (
    FAR,
    REFUSED,
    WORLD,
    _ask,
    _echo,
    _own_address,
    address,
    answers,
    by_pods,
    endpoints,
    node,
    serve,
    status_of,
)

from ports import free_port
from wherry.launcher.instance import Instance as Kept
from wherry.launcher.instance import find

SPACE = "modes"


def has_ipv6() -> bool:
    """Whether this machine has an address of IPv6 by which it would ask others."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect(("2001:db8::1", 9))
            return not probe.getsockname()[0].startswith("fe80")
    except OSError:
        return False


V6 = has_ipv6()
MODES = ("iptables", "userspace")


@pytest.fixture(scope="module")
def world(new_instance: Callable[[], Instance]) -> Iterator[Instance]:
    """An instance with two pods that answer."""
    instance = new_instance()
    families = ("--ip-families", "IPv4,IPv6") if V6 else ()
    instance.wherry("up", "--sample", *families)
    instance.kubectl("create", "namespace", SPACE)
    instance.kubectl("-n", SPACE, "apply", "-f", "-", stdin=WORLD)
    instance.kubectl("-n", SPACE, "wait", "--for=condition=Ready", "pod", "--all")
    prefix = kept(instance).iptables_chains
    yield instance
    instance.wherry("down", "--purge", "--grace", "1")
    assert left(kept_chains(), prefix) == set()


@pytest.fixture(scope="module")
def foreign() -> Iterator[tuple[str, str]]:
    """Rules that are not ours, in the same tables."""
    name = f"THEIRS-{uuid.uuid4().hex[:8]}"
    for argv in (
        ("-t", "nat", "-N", name),
        ("-t", "nat", "-A", name, "-d", "198.51.100.7", "-j", "RETURN"),
        ("-t", "nat", "-A", "PREROUTING", "-d", "198.51.100.7", "-j", name),
        ("-A", "INPUT", "-s", "198.51.100.7", "-m", "comment", "--comment", name, "-j", "DROP"),
    ):
        subprocess.run(["iptables-nft", "-w", *argv], check=True)
    yield name, theirs(name)
    for argv in (
        ("-D", "INPUT", "-s", "198.51.100.7", "-m", "comment", "--comment", name, "-j", "DROP"),
        ("-t", "nat", "-D", "PREROUTING", "-d", "198.51.100.7", "-j", name),
        ("-t", "nat", "-F", name),
        ("-t", "nat", "-X", name),
    ):
        subprocess.run(["iptables-nft", "-w", *argv], check=True)


def saved() -> str:
    argv = ["iptables-nft-save"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def theirs(name: str) -> str:
    return "\n".join(line for line in saved().splitlines() if name in line and "-A" in line)


def kept_chains() -> set[str]:
    return set(re.findall(r"^:(\S+) -", saved(), re.MULTILINE))


def left(chains: set[str], prefix: str) -> set[str]:
    return {chain for chain in chains if chain.startswith(f"{prefix}-")}


def kept(world: Instance) -> Kept:
    found = find(world.data_dir)
    assert found is not None
    return found


def tables(instance: Kept) -> bool:
    argv = ["nft", "list", "tables"]
    out = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return f"table ip {instance.nft_table}-proxy" in out.splitlines()


def switch(world: Instance, mode: str, *words: str) -> None:
    """The node is killed, and its successor's proxy has that mode, as ``words`` say."""
    os.kill(world.pid("node"), signal.SIGKILL)
    eventually(lambda: world.wherry("status", ok=False).out.count("pid") < 2)
    world.wherry("up", *words)
    url = f"http://127.0.0.1:{kept(world).proxy_metrics_port}/proxyMode"
    eventually(lambda: fetch(url) == (0, mode))
    health = f"http://127.0.0.1:{kept(world).proxy_health_port}/healthz"
    eventually(lambda: status_of(health)[0] == 200)


@pytest.fixture(scope="module", params=MODES)
def mode(
    request: pytest.FixtureRequest,
    world: Instance,
    foreign: tuple[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """The mode that the instance's proxy has from now on."""
    name: str = request.param
    if name == "userspace":  # by a file, as kube-proxy's is
        file = tmp_path_factory.mktemp("proxy") / "config.yaml"
        head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
        file.write_text(f"{head}mode: {name}\n")
        switch(world, name, "--proxy-mode", "", "--proxy-config", str(file))
    else:
        switch(world, name, "--proxy-mode", name)
        assert kept(world).proxy_mode == name
    return name


def leaves_nothing_of_others(world: Instance, mode: str, foreign: tuple[str, str]) -> None:
    instance = kept(world)
    prefix = instance.iptables_chains
    eventually(lambda: bool(left(kept_chains(), prefix)) == (mode == "iptables"))
    eventually(lambda: tables(instance) == (mode != "iptables"))
    if mode == "iptables":
        wanted = {"SERVICES", "SVC", "SEP", "NODEPORTS", "MARK", "POSTROUTING"}

        def words() -> set[str]:
            own = left(kept_chains(), prefix)
            return {chain.removeprefix(f"{prefix}-").split("-")[0] for chain in own}

        eventually(lambda: wanted <= words(), told=lambda: str(words()))
    else:
        assert f"-j {prefix}-" not in saved()
    name, before = foreign
    assert theirs(name) == before


def test_a_mode_leaves_no_rule_of_another_and_touches_none_of_others(
    world: Instance, mode: str, foreign: tuple[str, str]
) -> None:
    leaves_nothing_of_others(world, mode, foreign)


def test_a_host_port_answers_at_loopback(world: Instance, mode: str) -> None:
    port = free_port()
    container = {
        "name": "hello",
        "image": "hello:1",
        "ports": [{"containerPort": 8080, "hostPort": port}],
    }
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "held"}, "spec": spec}
    world.kubectl("-n", SPACE, "apply", "-f", "-", stdin=json.dumps(made))
    world.kubectl("-n", SPACE, "wait", "--for=condition=Ready", "pod", "held")
    # Node ports at loopback need the same of the bridge, in modes in which the kernel leads there.
    number = serve(world, SPACE, "near", type="NodePort")["spec"]["ports"][0]["nodePort"]
    for at in (port, number):
        eventually(lambda p=at: answers(f"http://127.0.0.1:{p}"))
    world.kubectl("-n", SPACE, "delete", "svc/near", "pod/held")


def test_every_endpoint_answers_the_machine_and_pods_themselves_among_them(
    world: Instance, mode: str
) -> None:
    at = serve(world, SPACE, "web")["spec"]["clusterIP"]
    url = f"http://{at}"
    eventually(lambda: by_pods(url) == {"one", "two"})
    script = f"for i in 1 2 3 4 5 6 7 8; do wget -qO- {url}; done"

    def both() -> bool:
        out = world.kubectl("-n", SPACE, "exec", "one", "--", "sh", "-c", script).out
        return {pod_of(line) for line in out.splitlines()} == {"one", "two"}

    eventually(both)
    world.kubectl("-n", SPACE, "delete", "svc", "web")
    eventually(lambda: fetch(url)[0] == 7)


def test_whom_nobody_answers_is_told_so_at_once(world: Instance, mode: str) -> None:
    ports = [{"port": 80, "protocol": "TCP", "name": "a"}, {"port": 80, "protocol": "UDP"}]
    ports[1]["name"] = "b"
    made = serve(world, SPACE, "nobody", selector={"app": "none"}, ports=ports, type="NodePort")
    at = made["spec"]["clusterIP"]
    number = made["spec"]["ports"][0]["nodePort"]
    assert fetch(f"http://{at}")[0] == 7
    assert fetch(f"http://{at.rsplit('.', 1)[0]}.254:7")[0] == 7
    eventually(lambda: fetch(f"http://{_own_address(world)}:{number}")[0] == 7)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((at, 80))
        eventually(lambda: _ask(client) in REFUSED)
    world.kubectl("-n", SPACE, "delete", "svc", "nobody")


def test_node_ports_and_outer_addresses_lead_to_the_service(world: Instance, mode: str) -> None:
    prefix = ".".join(world.get("svc", "kubernetes")["spec"]["clusterIP"].split(".")[:2])
    outer = f"{prefix}.254.{MODES.index(mode) + 1}"
    made = serve(world, SPACE, "out", type="NodePort", externalIPs=[outer])
    number = made["spec"]["ports"][0]["nodePort"]
    for place in (f"127.0.0.1:{number}", f"{_own_address(world)}:{number}", outer):
        eventually(lambda p=place: answers(f"http://{p}"))
        wget = ["wget", "-qO-", f"http://{place}"]
        if not place.startswith("127."):
            out = world.kubectl("-n", SPACE, "exec", "one", "--", *wget).out
            assert pod_of(out) in ("one", "two")
    world.kubectl("-n", SPACE, "delete", "svc", "out")
    eventually(lambda: fetch(f"http://127.0.0.1:{number}")[0] == 7)


@pytest.mark.skipif(not V6, reason="this machine has no address of IPv6")
def test_services_are_reached_by_ipv6_at_every_address_too(world: Instance, mode: str) -> None:
    reached_by_ipv6(world)


def reached_by_ipv6(world: Instance) -> None:
    made = serve(world, SPACE, "six", type="NodePort", ipFamilies=["IPv6"])
    number, inside = made["spec"]["ports"][0]["nodePort"], made["spec"]["clusterIP"]
    own = [a["address"] for a in node(world)["status"]["addresses"] if ":" in a["address"]]
    assert len(own) == 1
    for place in (f"[{inside}]:80", f"[{own[0]}]:{number}", f"[::1]:{number}"):
        eventually(lambda p=place: by_pods(f"http://{p}") == {"one", "two"})
        if "[::1]" not in place:
            wget = ["wget", "-qO-", f"http://{place}"]
            out = world.kubectl("-n", SPACE, "exec", "one", "--", *wget).out
            assert pod_of(out) in ("one", "two")
    world.kubectl("-n", SPACE, "delete", "svc", "six")
    eventually(lambda: fetch(f"http://[::1]:{number}")[0] == 7)
    eventually(lambda: fetch(f"http://[{inside}]")[0] == 7)


def keeps_its_endpoint(world: Instance) -> None:
    config = {"clientIP": {"timeoutSeconds": 2}}
    made = serve(world, SPACE, "keep", sessionAffinity="ClientIP", sessionAffinityConfig=config)
    url = f"http://{made['spec']['clusterIP']}"
    eventually(lambda: answers(url))

    def one_for_all() -> str:
        script = f"for i in 1 2 3 4 5 6; do curl -s {url}; done"
        begun = time.monotonic()
        out = subprocess.run(
            ["sh", "-c", script], capture_output=True, text=True, check=True
        ).stdout
        if time.monotonic() - begun > 1.5:  # a slow machine: it may have been forgotten between
            return ""
        pods = {pod_of(line) for line in out.splitlines()}
        assert len(pods) == 1
        return pods.pop()

    first = eventually(one_for_all)

    def another() -> bool:
        # Whoever asks again in time keeps it; so there must be more than that between two.
        time.sleep(2.5)
        return pod_of(fetch(url)[1]) not in (first, "")

    eventually(another)
    world.kubectl("-n", SPACE, "delete", "svc", "keep")


def test_a_client_keeps_its_endpoint_for_as_long_as_the_service_says(
    world: Instance, mode: str
) -> None:
    keeps_its_endpoint(world)


def test_policies_hold(world: Instance, mode: str) -> None:
    here = node(world)["metadata"]["name"]
    port = free_port()  # a balancer's address is the machine's own, which others have as well
    made = serve(
        world, SPACE, "local", type="LoadBalancer", externalTrafficPolicy="Local",
        internalTrafficPolicy="Local", selector=None, loadBalancerSourceRanges=["198.51.100.0/24"],
        ports=[{"port": port, "targetPort": 8080}],
    )  # fmt: skip
    url = f"http://{made['spec']['clusterIP']}:{port}"
    far = {"addresses": [FAR], "nodeName": "elsewhere"}
    endpoints(world, SPACE, "local", far)
    check = f"http://127.0.0.1:{made['spec']['healthCheckNodePort']}/"
    eventually(lambda: status_of(check)[0] == 503)
    eventually(lambda: fetch(url, "--max-time", "1")[0] == 28)
    one = {"addresses": [address(world, SPACE, "one")], "nodeName": here}
    endpoints(world, SPACE, "local", one, far)
    eventually(lambda: status_of(check)[0] == 200)
    eventually(lambda: by_pods(url) == {"one"})
    outer = eventually(
        lambda: world.get("svc", "local", "-n", SPACE)["status"]["loadBalancer"].get("ingress"),
    )[0]["ip"]
    # Not of those ranges: nothing is said.
    eventually(lambda: fetch(f"http://{outer}:{port}", "--max-time", "1")[0] == 28)
    world.kubectl("-n", SPACE, "delete", "svc", "local")


def test_clients_follow_a_service_that_changes_its_type_and_its_ports(
    world: Instance, mode: str
) -> None:
    follows_its_changes(world)


def follows_its_changes(world: Instance) -> None:
    port = free_port()  # a balancer's address is the machine's own, which others have as well
    first = {"port": port, "targetPort": 8080}
    made = serve(world, SPACE, "turns", type="NodePort", ports=[first])
    inside = f"{made['spec']['clusterIP']}:{port}"
    number = made["spec"]["ports"][0]["nodePort"]
    own = _own_address(world)

    def answer(*places: str) -> None:
        for place in places:
            eventually(lambda p=place: by_pods(f"http://{p}") == {"one", "two"})

    def refuse(*places: str) -> None:
        for place in places:
            eventually(lambda p=place: fetch(f"http://{p}")[0] == 7)

    def change(**spec: Any) -> dict[str, Any]:
        patch = ("patch", "svc", "turns", "-n", SPACE, "-o", "json", "-p")
        found: dict[str, Any] = json.loads(world.kubectl(*patch, json.dumps({"spec": spec})).out)
        return found["spec"]

    answer(inside, f"{own}:{number}", f"127.0.0.1:{number}")
    # What a port is called is nobody's business but its endpoints'.
    second = {"name": "a", "port": 80, "targetPort": 8080}
    assert change(ports=[{**first, "name": "b"}, second])["ports"][0]["nodePort"] == number
    answer(inside, made["spec"]["clusterIP"], f"{own}:{number}")
    change(type="LoadBalancer", externalTrafficPolicy="Local")
    answer(inside, f"{own}:{port}", f"{own}:{number}")
    assert "nodePort" not in change(type="ClusterIP")["ports"][0]
    refuse(f"{own}:{port}", f"{own}:{number}", f"127.0.0.1:{number}")
    answer(inside)
    change(type="ExternalName", externalName="example.com")
    refuse(inside)
    again = change(type="ClusterIP", externalName=None)["clusterIP"]
    answer(again, f"{again}:{port}")
    world.kubectl("-n", SPACE, "delete", "svc", "turns")


def test_datagrams_follow_their_endpoints(world: Instance, mode: str) -> None:
    ports = [{"port": 53, "protocol": "UDP"}]
    made = serve(world, SPACE, "udp", selector=None, ports=ports)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, \
            _echo(b"first") as first, _echo(b"second") as second:  # fmt: skip
        client.settimeout(1)
        client.connect((made["spec"]["clusterIP"], 53))
        for port, name in ((first, b"first"), (second, b"second")):
            listed: dict[str, Any] = {"addresses": [_own_address(world)]}
            endpoints(world, SPACE, "udp", listed, port=port, protocol="UDP")
            eventually(lambda name=name: _ask(client) == name)
        world.kubectl("-n", SPACE, "delete", "endpointslice", "udp")
        eventually(lambda: _ask(client) in REFUSED)
    world.kubectl("-n", SPACE, "delete", "svc", "udp")


def test_a_killed_proxys_successor_serves_what_is_so_now(world: Instance, mode: str) -> None:
    at = serve(world, SPACE, "stays")["spec"]["clusterIP"]
    gone = serve(world, SPACE, "gone")["spec"]["clusterIP"]
    eventually(lambda: answers(f"http://{at}") and answers(f"http://{gone}"))
    os.kill(world.pid("node"), signal.SIGKILL)
    # What only a process can pass on ends with it.
    eventually(lambda: fetch(f"http://{at}")[0] == (7 if mode == "userspace" else 0))
    world.kubectl("-n", SPACE, "delete", "svc", "gone")
    world.wherry("up")
    eventually(lambda: fetch(f"http://{gone}")[0] == 7)
    eventually(lambda: by_pods(f"http://{at}") == {"one", "two"})
    world.kubectl("-n", SPACE, "delete", "svc", "stays")


def test_a_protocol_that_a_mode_cannot_serve_is_told_of(world: Instance, mode: str) -> None:
    name = f"sctp-{mode}"
    serve(world, SPACE, name, ports=[{"port": 80, "protocol": "SCTP"}])
    chosen = f"reason=ProtocolNotServed,involvedObject.name={name}"

    def told() -> list[Any]:
        found: list[Any] = world.get("events", "-n", SPACE, "--field-selector", chosen)["items"]
        return found

    if mode == "userspace":
        (event,) = eventually(told)
        assert event["message"] == "SCTP is not served: the proxy's mode userspace cannot"
    else:
        assert told() == []
    world.kubectl("-n", SPACE, "delete", "svc", name)


def test_the_default_mode_comes_back_and_leaves_no_rule_of_another(
    world: Instance, mode: str, foreign: tuple[str, str]
) -> None:
    if mode != MODES[-1]:
        return
    switch(world, "nftables", "--proxy-mode", "nftables")
    leaves_nothing_of_others(world, "nftables", foreign)
    if V6:
        reached_by_ipv6(world)
    keeps_its_endpoint(world)
    follows_its_changes(world)


def test_a_stopped_cluster_gives_the_machines_ports_back(
    world: Instance, foreign: tuple[str, str]
) -> None:
    port = free_port()
    ports = [{"port": port, "targetPort": 8080}]
    world.wherry("up")
    serve(world, SPACE, "held", type="LoadBalancer", ports=ports)
    at = (_own_address(world), port)
    eventually(lambda: answers(f"http://{at[0]}:{port}"))
    world.wherry("down", "--grace", "1")
    with socket.create_server(("0.0.0.0", port)) as server:
        server.settimeout(60)
        with socket.create_connection(at, timeout=60) as asker:
            served, client = server.accept()
            served.close()
            assert client == asker.getsockname()
    instance = kept(world)
    assert not tables(instance) and not left(kept_chains(), instance.iptables_chains)
    name, before = foreign
    assert theirs(name) == before
