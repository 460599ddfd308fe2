"""What containers on networks of users reach, and who reaches them; IPv6; other drivers."""

import contextlib
import secrets
import socket
import threading

import pytest
from docker_harness import BRIDGE, until
from network_helper import (
    OUTER4,
    OUTER6,
    SERVE,
    V4,
    V6,
    ask,
    hears,
    network,
    place,
    refuses,
    routes,
    serve,
)

from ports import free_port
from wherry.net import namespaces
from wherry.net.link import cables, links
from wherry.net.link.cables import Inner

pytest_plugins = ("docker_fixtures",)

PORT = free_port()


# ---- walls


def test_bridges_are_apart_and_ports_are_the_way_across(engine):
    for name in ("one", "two"):
        engine.docker("network", "create", name)
    serve(engine, "web", "--network", "one", "-p", f"{PORT}:80")
    serve(engine, "other", "--network", "two")
    address = place(engine, "web", "one")["IPAddress"]
    assert ask(engine, "other", address) is None
    for gateway in (
        place(engine, "other", "two")["Gateway"],
        place(engine, "web", "one")["Gateway"],
    ):
        assert hears(engine, "other", gateway, PORT) == "web"
        assert hears(engine, "web", gateway, PORT) == "web"


def test_containers_without_icc_do_not_see_each_other_but_their_ports(engine):
    option = "com.docker.network.bridge.enable_icc=false"
    engine.docker("network", "create", "-o", option, "--ipv6", "one")
    serve(engine, "web", "--network", "one", "-p", f"{PORT}:80")
    serve(engine, "other", "--network", "one")
    settings = place(engine, "web", "one")
    assert ask(engine, "other", settings["IPAddress"]) is None
    assert ask(engine, "other", settings["GlobalIPv6Address"]) is None
    assert hears(engine, "other", settings["Gateway"], PORT) == "web"


def test_an_internal_network_has_no_way_out(engine):
    engine.docker("network", "create", "--internal", "inner")
    serve(engine, "web", "--network", "inner", "-p", f"{PORT}:80")
    serve(engine, "other", "--network", "inner")
    settings = place(engine, "web", "inner")
    assert settings["Gateway"] == "" and "default" not in routes(engine, "web")
    assert engine.docker("port", "web").out == ""
    assert hears(engine, "other", settings["IPAddress"]) == "web"
    # The host itself is next door.
    with socket.create_connection((settings["IPAddress"], 80), timeout=60):
        pass
    # With another network it has a way out, and the port.
    engine.docker("network", "connect", "bridge", "web")
    assert "default via" in routes(engine, "web")
    with socket.create_connection(("127.0.0.1", PORT), timeout=60):
        pass


@contextlib.contextmanager
def outsider(tmp_path, v4, v6):
    """A namespace on a bridge that is not ours, with addresses: the machine's neighbour for
    containers. Its path, and the bridge's name."""
    tag = secrets.token_hex(3)
    bridge, path = f"wo{tag}", tmp_path / "outside"
    links.ensure_bridge(bridge, f"{v4}.1/24", f"{v6}::1/64")
    namespaces.create(path)
    try:
        inner = Inner("eth0", (f"{v4}.2/24", f"{v6}::2/64"))
        cables.connect(path, inner, bridge=bridge, host_interface=f"wp{tag}")
        yield path, bridge
    finally:
        namespaces.delete(path)
        links.remove_link(bridge)


def test_the_outside_sees_the_host_s_address_and_reaches_published_ports_alone(engine, tmp_path):
    engine.docker("network", "create", "--ipv6", "--subnet", f"{V6}:1::/64", "one")
    engine.docker(
        "network", "create", "-o", "com.docker.network.bridge.enable_ip_masquerade=false", "bare"
    )
    serve(engine, "web", "--network", "one", "-p", f"{PORT}:80")
    settings = place(engine, "web", "one")
    with outsider(tmp_path, OUTER4, OUTER6) as (path, _):
        for family, host, own in (
            (socket.AF_INET, f"{OUTER4}.1", settings["IPAddress"]),
            (socket.AF_INET6, f"{OUTER6}::1", settings["GlobalIPv6Address"]),
        ):
            with namespaces.enter(path):
                server = socket.socket(family)
                client = socket.socket(family)
                direct = socket.socket(family)
            with server, client, direct:
                # From inside: with the address of this machine.
                server.bind(("", 9000))
                server.listen()
                server.settimeout(60)
                peers = []

                def accept(server=server, peers=peers):
                    connection, peer = server.accept()
                    connection.close()
                    peers.append(peer[0])

                thread = threading.Thread(target=accept)
                thread.start()

                def asked(peers=peers, host=host):
                    ask(engine, "web", host.rpartition("1")[0] + "2", 9000)
                    return peers

                until(asked)
                thread.join()
                assert peers == [host]
                # From outside: by the published port, not by the container's own address.
                client.settimeout(60)
                client.connect((host, PORT))
                client.sendall(b"GET /hostname HTTP/1.0\r\n\r\n")
                answer = b""
                while data := client.recv(1000):
                    answer += data
                assert answer.endswith(b"web\n")
                direct.settimeout(0.5)
                with namespaces.enter(path):
                    gateway = cables.default_route(socket.if_nametoindex("eth0"), host)
                    with links.Connection() as connection:
                        connection.change_all([gateway])
                with pytest.raises(OSError):
                    direct.connect((own, 80))


def test_a_routed_network_is_reached_by_its_own_addresses_where_ports_are_published(
    engine, tmp_path
):
    option = "com.docker.network.bridge.gateway_mode_ipv4=routed"
    engine.docker("network", "create", "-o", option, "--subnet", f"{V4}.0/24", "one")
    serve(engine, "web", "--network", "one", "-p", "80")
    serve(engine, "shut", "--network", "one")
    with outsider(tmp_path, OUTER4, OUTER6) as (path, _):
        with namespaces.enter(path), links.Connection() as connection:
            index = socket.if_nametoindex("eth0")
            connection.change_all([cables.default_route(index, f"{OUTER4}.1")])
            clients = [socket.socket() for _ in range(2)]
        with clients[0] as allowed, clients[1] as refused:
            allowed.settimeout(60)
            allowed.connect((place(engine, "web", "one")["IPAddress"], 80))
            refused.settimeout(0.5)
            with pytest.raises(OSError):
                refused.connect((place(engine, "shut", "one")["IPAddress"], 80))


def test_a_bridge_of_one_s_own_name_and_mtu(engine):
    name = f"wn{secrets.token_hex(3)}"
    engine.docker(
        *("network", "create", "-o", f"com.docker.network.bridge.name={name}"),
        *("-o", "com.docker.network.driver.mtu=1400"),
        *("-o", "com.docker.network.bridge.host_binding_ipv4=127.0.0.1", "one"),
    )
    assert links.exists(name)
    serve(engine, "web", "--network", "one", "-p", f"{PORT}:80")
    assert "mtu 1400" in engine.docker("exec", "web", "ip", "link", "show", "eth0").out
    assert engine.docker("port", "web").out == f"80/tcp -> 127.0.0.1:{PORT}\n"
    told = refuses(
        engine, "network", "create", "-o", f"com.docker.network.bridge.name={name}", "two"
    )
    assert "networks have same bridge name" in told


def test_parameters_of_an_interface(engine):
    engine.docker("network", "create", "one")
    option = "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1"
    engine.docker(
        *("run", "-d", "--name", "web", "--network", f'name=one,"driver-opt={option}"'), *SERVE
    )
    file = "/proc/sys/net/ipv4/conf/eth0/log_martians"
    assert engine.docker("exec", "web", "cat", file).out == "1\n"
    wrong = "com.docker.network.endpoint.sysctls=net.core.somaxconn=1"
    assert "unrecognised network interface sysctl" in refuses(
        engine, "run", "--network", f'name=one,"driver-opt={wrong}"', "busybox"
    )


# ---- IPv6


def test_a_network_with_both_versions(engine):
    engine.docker(
        *("network", "create", "--ipv6", "--subnet", f"{V6}:1::/64"),
        *("--subnet", f"{V4}.0/24", "--gateway", f"{V6}:1::99", "both"),
    )
    shown = network(engine, "both")
    assert shown["EnableIPv6"]
    assert [c["Subnet"] for c in shown["IPAM"]["Config"]] == [f"{V4}.0/24", f"{V6}:1::/64"]
    serve(engine, "web", "--network", "both", "--ip6", f"{V6}:1::7", "-p", f"{PORT}:80")
    serve(engine, "other", "--network", "both")
    settings = place(engine, "web", "both")
    assert settings["GlobalIPv6Address"] == f"{V6}:1::7"
    assert settings["GlobalIPv6PrefixLen"] == 64 and settings["IPv6Gateway"] == f"{V6}:1::99"
    assert f"default via {V6}:1::99" in routes(engine, "web", "-6")
    assert hears(engine, "other", f"{V6}:1::7") == "web"
    # By the published port: from outside, from the host, from others, from itself.
    for address in ("::1", f"{V6}:1::99"):
        with socket.create_connection((address, PORT), timeout=60):
            pass
    for container in ("other", "web"):
        assert hears(engine, container, f"{V6}:1::99", PORT) == "web"
    (member,) = (c for c in network(engine, "both")["Containers"].values() if c["Name"] == "web")
    assert member["IPv6Address"] == f"{V6}:1::7/64"


def test_ipv6_ranges_are_chosen_and_ipv4_can_be_left_out(engine):
    engine.docker("network", "create", "--ipv6", "--ipv4=false", "six")
    shown = network(engine, "six")
    (config,) = shown["IPAM"]["Config"]
    assert not shown["EnableIPv4"] and config["Subnet"].startswith("fd")
    serve(engine, "web", "--network", "six", "-p", f"{PORT}:80")
    settings = place(engine, "web", "six")
    assert settings["IPAddress"] == "" and settings["GlobalIPv6Address"].startswith("fd")
    assert "inet " not in engine.docker("exec", "web", "ip", "addr", "show", "eth0").out
    with socket.create_connection(("::1", PORT), timeout=60):
        pass


def test_a_container_without_ipv6_has_none(engine):
    serve(engine, "web")
    assert "inet6" not in engine.docker("exec", "web", "ip", "addr", "show", "eth0").out


# ---- other drivers


def test_macvlan_containers_are_neighbours_of_the_parent_s_wire(engine, tmp_path):
    with outsider(tmp_path, OUTER4, OUTER6) as (path, parent):
        # The bridge stands for the machine's interface, the outsider for what is on its wire.
        with namespaces.enter(path):
            outside = socket.create_server(("0.0.0.0", 80))
        engine.docker(
            *("network", "create", "-d", "macvlan", "-o", f"parent={parent}"),
            *("--subnet", f"{OUTER4}.0/24", "--gateway", f"{OUTER4}.1", "wire"),
        )
        with outside:
            serve(engine, "web", "--network", "wire", "--ip", f"{OUTER4}.50")
            serve(engine, "other", "--network", "wire", "--ip", f"{OUTER4}.51")
            assert hears(engine, "other", f"{OUTER4}.50") == "web"
            with namespaces.enter(path):
                client = socket.socket()
            with client:
                client.settimeout(60)
                client.connect((f"{OUTER4}.50", 80))
                client.sendall(b"GET /hostname HTTP/1.0\r\n\r\n")
                assert b"200 OK" in client.recv(1000)
        assert f"default via {OUTER4}.1 dev eth0" in routes(engine, "web")
        engine.docker("network", "connect", "bridge", "web")
        engine.docker("network", "disconnect", "wire", "web")
        assert ask(engine, "other", f"{OUTER4}.50") is None
        engine.docker("rm", "-f", "web", "other")
        engine.docker("network", "rm", "wire")
        assert links.exists(parent)


def test_macvlan_without_a_parent_stays_among_itself(engine):
    engine.docker("network", "create", "-d", "macvlan", "--internal", "alone")
    serve(engine, "web", "--network", "alone")
    serve(engine, "other", "--network", "alone")
    assert hears(engine, "other", place(engine, "web", "alone")["IPAddress"]) == "web"
    engine.docker("rm", "-f", "web", "other")
    link = f"dm-{network(engine, 'alone')['Id'][:12]}"
    assert links.exists(link)
    engine.docker("network", "rm", "alone")
    assert not links.exists(link)


def test_links_that_this_machine_cannot_make_are_told(engine):
    create = ("network", "create", "-d")
    told = refuses(engine, *create, "macvlan", "-o", "parent=nope", "x")
    assert told == "invalid subinterface vlan name nope, example formatting is eth0.10"
    if not links.knows_kind("ipvlan"):
        told = refuses(engine, *create, "ipvlan", "x")
        assert told == "the kernel of this machine has no ipvlan links"
    if not links.knows_kind("vlan"):
        told = refuses(engine, *create, "macvlan", "-o", f"parent={BRIDGE}.7", "x")
        assert "the kernel has no 802.1Q links" in told
    assert engine.docker("network", "ls", "-q", "-f", "type=custom").out == ""
