"""Namespaces, bridges, routes and the firewall in the real kernel."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ports import free_port
from wherry.net import namespaces
from wherry.net.firewall.firewall import Firewall, PortTaken
from wherry.net.firewall.rules import PortBinding, Segment
from wherry.net.link import cables, links, routes, vxlan
from wherry.net.link.cables import Inner
from wherry.net.nftables.nft import Nftables, NftError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the kernel's network needs root")


class Net:
    """A bridge with two containers' namespaces, and one that stands for the outside."""

    def __init__(self, tmp: Path) -> None:
        self.tag = secrets.token_hex(3)
        self.bridge = f"wt{self.tag}"
        self.uplink = f"wu{self.tag}"
        # (What a test that was killed left behind stays claimed.)
        self.octet = 1 + secrets.randbelow(250)
        while not routes.claim(f"10.251.{self.octet}.0/24"):
            self.octet = 1 + secrets.randbelow(250)
        self.subnet = f"10.251.{self.octet}.0/24"
        self.outside_range = f"10.252.{self.octet}.0/24"
        self.gateway = f"10.251.{self.octet}.1"
        self.host = f"10.252.{self.octet}.1"
        self.outside_address = f"10.252.{self.octet}.9"
        self.a, self.b, self.outside = tmp / "a", tmp / "b", tmp / "outside"
        self.addresses = {
            self.a: f"10.251.{self.octet}.2",
            self.b: f"10.251.{self.octet}.3",
            self.outside: self.outside_address,
        }

    def up(self) -> None:
        links.ensure_bridge(self.bridge, f"{self.gateway}/24")
        links.ensure_bridge(self.uplink, f"{self.host}/24")
        for number, path in enumerate((self.a, self.b, self.outside)):
            namespaces.create(path)
            outside = path == self.outside
            # The outside knows no way to the containers, as it should be.
            gateways = () if outside else (self.gateway,)
            cables.connect(
                path,
                Inner("eth0", (f"{self.addresses[path]}/24",), gateways),
                bridge=self.uplink if outside else self.bridge,
                host_interface=f"wv{self.tag}{number}",
            )

    @property
    def segment(self) -> Segment:
        return Segment(self.bridge, (self.subnet,), (self.subnet,))

    @property
    def outer_segment(self) -> Segment:
        return Segment(self.uplink, (self.outside_range,), (self.outside_range,))

    def down(self) -> None:
        for path in (self.a, self.b, self.outside):
            namespaces.delete(path)
        links.remove_link(self.bridge)
        links.remove_link(self.uplink)
        routes.unblock(self.subnet)


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    net = Net(tmp_path)
    try:
        net.up()
        yield net
    finally:
        net.down()


@pytest.fixture
async def firewall(net: Net) -> AsyncIterator[Firewall]:
    nft = Nftables()
    firewall = Firewall(nft, f"wherry-test-{net.tag}")
    await firewall.setup([net.segment])
    yield firewall
    await firewall.teardown()
    nft.close()


@contextlib.contextmanager
def serving(namespace: Path | None, port: int, kind: socket.SocketKind) -> Iterator[None]:
    """Answers every client with the address it came from."""
    with namespaces.enter(namespace) if namespace else contextlib.nullcontext():
        server = socket.socket(socket.AF_INET, kind)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("0.0.0.0", port))
    stop = threading.Event()
    server.settimeout(0.2)

    def serve() -> None:
        if kind == socket.SOCK_STREAM:
            server.listen()
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                if kind == socket.SOCK_STREAM:
                    connection, (address, _) = server.accept()
                    connection.sendall(address.encode())
                    connection.close()
                else:
                    _, (address, client) = server.recvfrom(100)
                    server.sendto(address.encode(), (address, client))

    if kind == socket.SOCK_STREAM:
        server.listen()
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        server.close()


def ask(
    namespace: Path | None,
    address: str,
    port: int,
    kind: socket.SocketKind = socket.SOCK_STREAM,
    patience: float = 60.0,
) -> str:
    """What the server says of whence we came; ``patience`` is shorter where nobody should."""
    with namespaces.enter(namespace) if namespace else contextlib.nullcontext():
        client = socket.socket(socket.AF_INET, kind)
    with client:
        client.settimeout(patience)
        client.connect((address, port))
        if kind == socket.SOCK_DGRAM:
            client.send(b"?")
        return client.recv(100).decode()


def test_a_namespace_has_its_loopback_and_vanishes_with_its_file(tmp_path: Path) -> None:
    home = os.readlink("/proc/thread-self/ns/net")
    path = tmp_path / "ns"
    namespaces.create(path)
    with pytest.raises(FileExistsError):
        namespaces.create(path)
    with namespaces.enter(path):
        assert os.readlink("/proc/thread-self/ns/net") != home
        assert [name for _, name in socket.if_nameindex() if name == "lo"] == ["lo"]
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname()).close()
        start = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()
        assert start.strip() == "0"
    assert os.readlink("/proc/thread-self/ns/net") == home
    namespaces.delete(path)
    namespaces.delete(path)
    assert not path.exists()
    assert str(path) not in Path("/proc/self/mountinfo").read_text()


def test_a_thread_comes_home_also_after_an_error(tmp_path: Path) -> None:
    home = os.readlink("/proc/thread-self/ns/net")
    namespaces.create(tmp_path / "ns")
    with pytest.raises(ZeroDivisionError), namespaces.enter(tmp_path / "ns"):
        _ = 1 / 0
    assert os.readlink("/proc/thread-self/ns/net") == home
    namespaces.delete(tmp_path / "ns")


def test_containers_reach_each_other_and_are_counted(net: Net) -> None:
    with serving(net.b, 80, socket.SOCK_STREAM):
        assert ask(net.a, net.addresses[net.b], 80) == net.addresses[net.a]
        assert ask(None, net.addresses[net.b], 80) == net.gateway
    counters = links.interface_statistics(net.a)
    assert list(counters) == ["eth0"]
    assert counters["eth0"]["tx_bytes"] > 0


def test_a_bridge_keeps_one_address_and_can_be_asked_for_again(net: Net) -> None:
    links.ensure_bridge(net.bridge, f"{net.gateway}/24")
    links.ensure_bridge(net.bridge, f"10.251.{net.octet}.254/24")
    assert f"10.251.{net.octet}.0/24" in routes.existing()
    with pytest.raises(FileExistsError):
        links.ensure_bridge("lo", f"{net.gateway}/24")


def test_a_failed_cable_leaves_nothing(net: Net, tmp_path: Path) -> None:
    with pytest.raises(OSError):
        cables.connect(
            net.a,
            Inner("eth0", (net.subnet.replace("0/24", "9/24"),), (net.gateway,)),  # taken
            bridge=net.bridge,
            host_interface=f"wx{net.tag}",
        )
    assert not Path(f"/sys/class/net/wx{net.tag}").exists()


def test_a_tunnel_has_as_many_ends_as_the_cluster_has_nodes(tmp_path: Path) -> None:
    ends = {f"10.244.{n}.0": f"198.18.0.{n}" for n in range(1, 251)}
    ends |= {f"10.245.{n}.0": f"198.18.1.{n}" for n in range(1, 251)}
    namespaces.create(tmp_path / "ns")
    try:
        with namespaces.enter(tmp_path / "ns"):
            links.ensure_bridge("uplink", "198.18.2.1/15")
            device = vxlan.Device("tunnel", 7, "198.18.2.1", "10.244.0.0")
            vxlan.ensure(device)
            for wanted in (ends, {"10.244.1.0": "198.18.0.1"}):
                vxlan.set_peers(device, wanted)
                argv = ["bridge", "fdb", "show", "dev", "tunnel"]
                known = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
                assert known.count("198.18.") == len(wanted)
    except vxlan.NotSupported as why:
        pytest.skip(str(why))
    finally:
        namespaces.delete(tmp_path / "ns")


def test_blocked_ranges_are_refused_at_once_and_not_listed() -> None:
    cidr = f"10.253.{secrets.randbelow(250)}.0/24"
    routes.block(cidr)
    try:
        routes.block(cidr)
        assert cidr not in routes.existing()
        with pytest.raises(OSError, match=r"unreachable|No route"), socket.socket() as client:
            client.settimeout(2)
            client.connect((cidr.replace("0/24", "7"), 80))
    finally:
        routes.unblock(cidr)
    routes.unblock(cidr)


async def test_what_leaves_gets_an_address_of_the_machine(net: Net, firewall: Firewall) -> None:
    with serving(net.outside, 80, socket.SOCK_STREAM):
        assert await asyncio.to_thread(ask, net.a, net.outside_address, 80) == net.host


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
async def test_a_published_port_is_reached_from_everywhere(
    net: Net, firewall: Firewall, kind: socket.SocketKind
) -> None:
    port = free_port(kind)
    protocol = "tcp" if kind == socket.SOCK_STREAM else "udp"
    binding = PortBinding(protocol, "0.0.0.0", port, net.addresses[net.a], 80)
    await firewall.publish([binding])
    await firewall.publish([binding])
    with serving(net.a, 80, kind):
        for client, address in (
            (net.outside, net.host),
            (None, "127.0.0.1"),
            (None, net.host),
            (net.b, net.gateway),
            (net.b, net.host),
            (net.a, net.gateway),  # hairpin
        ):
            seen = await asyncio.to_thread(ask, client, address, port, kind)
            if client == net.outside:
                assert seen == net.outside_address
    await firewall.unpublish([binding])
    await firewall.unpublish([binding])
    if kind == socket.SOCK_STREAM:
        with pytest.raises(OSError), serving(net.a, 80, kind):
            await asyncio.to_thread(ask, None, "127.0.0.1", port, kind, 2)


async def test_a_port_on_one_address_is_not_on_others(net: Net, firewall: Firewall) -> None:
    port = free_port()
    binding = PortBinding("tcp", "127.0.0.1", port, net.addresses[net.a], 80)
    await firewall.publish([binding])
    with serving(net.a, 80, socket.SOCK_STREAM):
        assert await asyncio.to_thread(ask, None, "127.0.0.1", port)
        with pytest.raises(OSError):
            await asyncio.to_thread(ask, net.outside, net.host, port, patience=2)
    await firewall.unpublish([binding])


async def test_a_taken_port_is_refused_in_dockers_words(net: Net, firewall: Firewall) -> None:
    port = free_port()
    mine = PortBinding("tcp", "0.0.0.0", port, net.addresses[net.a], 80)
    await firewall.publish([mine])
    with pytest.raises(PortTaken) as caught:
        await firewall.publish([PortBinding("tcp", "127.0.0.1", port, net.addresses[net.b], 80)])
    assert str(caught.value) == f"Bind for 127.0.0.1:{port} failed: port is already allocated"
    with pytest.raises(OSError), socket.create_server(("", port)):
        pass
    with socket.create_server(("", 0)) as other:
        taken = other.getsockname()[1]
        with pytest.raises(PortTaken, match="address already in use"):
            await firewall.publish([PortBinding("tcp", "0.0.0.0", taken, net.addresses[net.b], 80)])
    await firewall.unpublish([mine])
    await firewall.publish([PortBinding("tcp", "", port, net.addresses[net.b], 80)])


async def test_a_later_daemon_takes_published_ports_up_again(net: Net, firewall: Firewall) -> None:
    port = free_port()
    binding = PortBinding("tcp", "0.0.0.0", port, net.addresses[net.a], 80)
    await firewall.publish([binding])
    firewall.close()
    later = Firewall(firewall._nft, firewall._table)
    await later.setup([net.segment, net.outer_segment])
    with serving(net.a, 80, socket.SOCK_STREAM):
        assert await asyncio.to_thread(ask, None, "127.0.0.1", port)
        await later.publish([binding])
        assert await asyncio.to_thread(ask, None, "127.0.0.1", port)
    moved = PortBinding("tcp", "0.0.0.0", port, net.addresses[net.b], 80)
    await later.unpublish([moved])  # not what is open
    with serving(net.a, 80, socket.SOCK_STREAM):
        assert await asyncio.to_thread(ask, None, "127.0.0.1", port)
    await later.unpublish([binding])
    await later.publish([moved])
    with serving(net.b, 80, socket.SOCK_STREAM):
        assert await asyncio.to_thread(ask, None, "127.0.0.1", port)
    later.close()


async def test_datagrams_follow_a_port_to_its_new_container(net: Net, firewall: Firewall) -> None:
    kind = socket.SOCK_DGRAM
    port = free_port(kind)
    with namespaces.enter(net.outside):
        client = socket.socket(socket.AF_INET, kind)
    client.settimeout(60)
    client.connect((net.host, port))
    for container in (net.a, net.b):
        binding = PortBinding("udp", "", port, net.addresses[container], 80)
        await firewall.publish([binding])
        with serving(container, 80, kind):
            client.send(b"?")
            assert (await asyncio.to_thread(client.recv, 100)).decode() == net.outside_address
        await firewall.unpublish([binding])
    client.close()


async def test_bridges_do_not_see_each_other(net: Net, firewall: Firewall) -> None:
    await firewall.setup([net.segment, net.outer_segment])
    with serving(net.outside, 80, socket.SOCK_STREAM), pytest.raises(OSError):
        await asyncio.to_thread(ask, net.a, net.outside_address, 80, patience=2)


async def test_containers_do_not_reach_the_machines_loopback(net: Net, firewall: Firewall) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def attempt() -> None:
            with namespaces.enter(net.a):
                with links.Connection() as connection:
                    route = links.netlink.route(
                        links.attribute(links.netlink.RTA_DST, bytes([127, 9, 0, 0])),
                        links.attribute(links.netlink.RTA_GATEWAY, socket.inet_aton(net.gateway)),
                        prefix_length=16,
                    )
                    with contextlib.suppress(OSError):
                        connection.change(
                            links.netlink.RTM_NEWROUTE, route, links.netlink.NLM_F_CREATE
                        )
                namespaces.write_sysctl("net/ipv4/conf/eth0/route_localnet", "1")
                client = socket.socket()
            with client:
                client.settimeout(0.5)
                client.connect(("127.9.0.1", port))

        with pytest.raises(OSError):
            await asyncio.to_thread(attempt)


async def test_nft_says_what_was_wrong_and_changes_nothing() -> None:
    nft = Nftables()
    name = f"wherry-test-{secrets.token_hex(3)}"
    with pytest.raises(NftError, match="syntax error"):
        await nft.run(f"add table ip {name}\nadd nonsense")
    listed = await nft.run_json([{"list": {"tables": {}}}])
    assert all(e.get("table", {}).get("name") != name for e in listed["nftables"])
    nft._missing = True  # as on a machine without the library
    with pytest.raises(NftError, match="syntax error"):
        await nft.run("add nonsense")
    assert "nftables" in await nft.run_json([{"list": {"tables": {}}}])
    nft.close()
