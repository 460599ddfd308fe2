"""Networks with a kernel that only takes notes."""

import asyncio
import json
import sys
import threading
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "container"))
from containers_helper import make

from wherry.engine.container.container import Endpoint, PublishedPort
from wherry.engine.errors import BadParameter, Conflict, EngineError, Forbidden, NotFound
from wherry.engine.events import EventBus
from wherry.engine.network import networks as service
from wherry.engine.network import places
from wherry.engine.network.cni.plugins import Plugins
from wherry.engine.network.creation import decode_request
from wherry.engine.network.drivers import bridge, shared
from wherry.engine.network.network import MTU, POD_NETWORK, inspect
from wherry.engine.network.networks import Networks
from wherry.net.firewall.firewall import PortTaken


class FakeFirewall:
    def __init__(self, nft, table):
        self.segments = {}
        self.opened = []
        self.foreign = set()

    async def setup(self, segments, *, unmasqueraded=()):
        self.segments = {segment.bridge: segment for segment in segments}

    async def add(self, segment):
        self.segments[segment.bridge] = segment

    async def remove(self, segment):
        self.segments.pop(segment.bridge, None)

    def reserve(self, bindings):
        listed = list(bindings)
        for binding in listed:
            if binding.host_port in self.foreign or any(
                (b.host_ip, b.host_port) == (binding.host_ip, binding.host_port)
                for b in self.opened
            ):
                raise PortTaken(
                    f"Bind for {binding.host_ip}:{binding.host_port} failed: "
                    "port is already allocated"
                )
        return listed

    async def open(self, bindings):
        self.opened += bindings

    async def publish(self, bindings):
        await self.open(self.reserve(bindings))

    async def unpublish(self, bindings):
        for binding in bindings:
            if binding in self.opened:
                self.opened.remove(binding)

    def release(self, bindings):
        return None

    def close(self):
        return None


class FakeKernel:
    """Links, interfaces, routes and namespaces as lists of names."""

    def __init__(self):
        self.bridges = {}
        self.mtus = {}  # by bridge
        self.meanwhile = lambda: None  # called while a bridge is made
        self.interfaces = {}  # by namespace and name
        self.ways = {}
        self.routes = set()
        self.foreign_routes = set()
        self.kinds = {"macvlan"}
        self.refuse = False
        self.ipv6 = False

    def ensure_bridge(self, name, *addresses, mtu=0, only=True):
        if self.refuse:
            raise OSError("no more bridges")
        self.bridges[name] = addresses
        self.mtus[name] = mtu
        self.meanwhile()

    def remove_link(self, name):
        self.bridges.pop(name, None)
        for key, (_, link) in tuple(self.interfaces.items()):
            if link == name:
                del self.interfaces[key]

    def exists(self, name):
        return name in self.bridges or name == "eth9"

    def knows_kind(self, kind):
        return kind in self.kinds

    def connect(self, namespace, inner, *, bridge, host_interface):
        assert namespace.exists() and bridge in self.bridges
        self.interfaces[namespace, inner.name] = inner, host_interface

    def split_off(self, namespace, inner, *, parent, kind, mode):
        assert namespace.exists()
        self.interfaces[namespace, inner.name] = inner, parent

    def remove_inner(self, namespace, name):
        self.interfaces.pop((namespace, name), None)

    def set_default_routes(self, namespace, ways):
        self.ways[namespace] = self.ways.get(namespace, {}) | dict(ways)

    def create(self, path, owner=None):
        path.touch(exist_ok=False)

    def delete(self, path):
        path.unlink(missing_ok=True)
        for key in [key for key in self.interfaces if key[0] == path]:
            del self.interfaces[key]

    def block(self, cidr):
        self.routes.add(cidr)

    def claim(self, cidr):
        new = cidr not in self.routes | self.foreign_routes
        if new:
            self.routes.add(cidr)
        return new

    def unblock(self, cidr):
        self.routes.discard(cidr)

    def existing(self):
        return []

    def blocked(self):
        return [*self.routes]

    def of(self, networks, container):
        """The interfaces of a container, by name."""
        path = networks.namespace(container.id)
        return {
            name: inner for (where, name), (inner, _) in self.interfaces.items() if where == path
        }


@pytest.fixture
def kernel(monkeypatch):
    kernel = FakeKernel()
    for module, names in (
        (service, ("namespaces", "routes")),
        (places, ("namespaces", "cables")),
        (bridge, ("links", "cables")),
        (shared, ("links",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, kernel)
    monkeypatch.setattr(places.links, "has_ipv6", lambda: kernel.ipv6)
    for name in ("split_off", "remove_inner"):
        monkeypatch.setattr(shared.cables, name, getattr(kernel, name))
    monkeypatch.setattr(service, "Firewall", FakeFirewall)
    return kernel


async def build(tmp_path):
    networks = Networks(
        root=tmp_path / "network",
        namespaces_root=tmp_path / "netns",
        bridge="wherry7",
        subnet="172.24.0.0/16",
        pod_bridge="wherry7p",
        pod_ranges=["10.237.0.0/16"],
        nft_table="wherry7",
        events=EventBus(),
        plugins=Plugins(None, (), tmp_path / "cni"),
    )
    await networks.open()
    return networks


@pytest.fixture
async def networks(tmp_path, kernel):
    return await build(tmp_path)


async def connect(networks, container, saved=None):
    await networks.connect(
        container, lambda: saved.append(list(container.ports)) if saved is not None else None
    )


async def test_the_three_networks_keep_their_ids_over_restarts(networks, tmp_path, kernel):
    assert {n.name for n in networks.all()} == {"bridge", "host", "none"}
    assert kernel.bridges == {"wherry7": ("172.24.0.1/16",)}
    again = await build(tmp_path)
    assert {n.id for n in again.all()} == {n.id for n in networks.all()}


async def test_networks_are_found_by_name_id_and_prefix(networks):
    bridge = networks.get("bridge")
    assert networks.get(bridge.id) is networks.get(bridge.id[:12]) is bridge
    with pytest.raises(NotFound, match="network nope not found"):
        networks.get("nope")


async def test_a_container_gets_a_namespace_an_address_and_a_cable(networks, kernel):
    container = make()
    await connect(networks, container)
    endpoint = container.endpoints["bridge"]
    assert (endpoint.address, endpoint.gateway) == ("172.24.0.2", "172.24.0.1")
    assert endpoint.mac_address == "02:42:ac:18:00:02"
    (inner,) = kernel.of(networks, container).values()
    assert inner.name == endpoint.interface == "eth0"
    assert (inner.addresses, inner.gateways) == (["172.24.0.2/16"], ["172.24.0.1"])
    assert len(endpoint.host_interface) <= 15
    assert container.sandbox == str(networks.namespace(container.id))


async def test_what_was_given_is_given_back_and_can_be_given_back_twice(networks):
    container = make(host={"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}})
    for _ in range(2):
        await connect(networks, container)
        container.holding = True
        assert inspect(networks.get("bridge"), [container])["Containers"]
        for _ in range(2):
            await networks.disconnect(container)
        assert not networks._firewall.opened and not container.ports
        assert networks.all_namespaces() == []
        assert container.endpoints["bridge"].address == ""


async def test_a_port_is_on_disk_before_it_is_open(networks):
    container = make(host={"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}})
    saved = []
    await connect(networks, container, saved)
    assert [[p.host_port for p in ports] for ports in saved] == [[8080]]


async def test_a_taken_port_is_refused_in_docker_s_words(networks):
    networks._firewall.foreign.add(8080)
    container = make(host={"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}})
    with pytest.raises(EngineError) as caught:
        await connect(networks, container)
    endpoint = container.endpoints["bridge"].endpoint_id
    assert caught.value.message == (
        "failed to set up container networking: driver failed programming external connectivity "
        f"on endpoint web ({endpoint}): Bind for 0.0.0.0:8080 failed: port is already allocated"
    )
    await networks.disconnect(container)
    assert networks.all_namespaces() == []


async def test_ranges_and_random_ports_pass_over_what_is_taken(networks):
    networks._firewall.foreign.update({8000, 8001})
    container = make(host={"PortBindings": {"80/tcp": [{"HostPort": "8000-8002"}], "81/tcp": [{}]}})
    await connect(networks, container)
    ranged, random = (port.host_port for port in container.ports)
    assert ranged == 8002
    assert random > 1024


async def test_host_and_none_and_joined_networks(networks, kernel):
    host = make("b" * 64, host={"NetworkMode": "host"})
    host.endpoints = {"host": Endpoint("host")}
    none = make("c" * 64, host={"NetworkMode": "none"})
    none.endpoints = {"none": Endpoint("none")}
    joined = make("d" * 64, host={"NetworkMode": "container:" + "b" * 64})
    joined.endpoints = {}
    for container in (host, none, joined):
        await connect(networks, container)
    assert networks.all_namespaces() == [networks.namespace(none.id)]
    assert not kernel.interfaces
    assert host.sandbox == "/var/run/docker/netns/default"


async def test_a_network_that_is_gone_is_told(networks):
    container = make(host={"NetworkMode": "gone"})
    container.endpoints = {"gone": Endpoint("gone")}
    with pytest.raises(NotFound, match="failed to set up container networking: network gone not"):
        await connect(networks, container)


async def test_an_address_can_be_taken_up_again(networks, tmp_path, kernel):
    first = make(host={"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}})
    await connect(networks, first)
    again = await build(tmp_path)
    await again.reclaim(first, lambda: None)
    assert [b.host_port for b in again._firewall.opened] == [8080]
    second = make("b" * 64)
    await connect(again, second)
    assert second.endpoints["bridge"].address != first.endpoints["bridge"].address


async def test_the_network_of_pods_comes_with_its_range_and_stays(networks, tmp_path, kernel):
    await networks.set_pod_ranges(["10.237.4.0/24"])
    assert kernel.bridges["wherry7p"] == ("10.237.4.1/24",)
    ranges = {s.bridge: (s.ranges, s.exposed) for s in networks._firewall.segments.values()}
    assert ranges == {
        "wherry7": (("172.24.0.0/16",), False), "wherry7p": (("10.237.4.0/24",), True),
    }  # fmt: skip
    again = await build(tmp_path)
    assert again.get(POD_NETWORK).ranges == ["10.237.4.0/24"]
    pod = make(host={"NetworkMode": POD_NETWORK})
    pod.endpoints = {POD_NETWORK: Endpoint(POD_NETWORK)}
    await connect(again, pod)
    assert pod.endpoints[POD_NETWORK].address == "10.237.4.2"
    with pytest.raises(Conflict, match="must go before"):
        await again.set_pod_ranges(["10.237.5.0/24"])
    leaving = asyncio.ensure_future(again.pods_may_change())
    await asyncio.sleep(0)
    assert not leaving.done()
    await again.disconnect(pod)
    await asyncio.wait_for(leaving, 60)
    await again.set_pod_ranges(["10.237.5.0/24"])
    assert kernel.bridges["wherry7p"] == ("10.237.5.1/24",)


async def test_how_large_packets_of_pods_may_be_is_heard_while_their_network_is_made(
    networks, tmp_path, kernel
):
    begun, told = threading.Event(), threading.Event()

    def meanwhile():
        begun.set()
        told.wait(60)

    kernel.meanwhile = meanwhile
    making = asyncio.ensure_future(networks.set_pod_ranges(["10.237.4.0/24"]))
    await asyncio.to_thread(begun.wait, 60)
    telling = asyncio.ensure_future(networks.set_pod_mtu(1350))
    await asyncio.sleep(0)
    told.set()
    await asyncio.gather(making, telling)
    assert kernel.mtus["wherry7p"] == 1350
    pod = make(host={"NetworkMode": POD_NETWORK})
    pod.endpoints = {POD_NETWORK: Endpoint(POD_NETWORK)}
    await connect(networks, pod)
    assert kernel.of(networks, pod)["eth0"].mtu == 1350
    await networks.disconnect(pod)
    # What the kernel refused is not taken for done.
    kernel.refuse = True
    with pytest.raises(OSError, match="no more bridges"):
        await networks.set_pod_mtu(1400)
    kernel.refuse = False
    await networks.set_pod_mtu(1400)
    assert kernel.mtus["wherry7p"] == 1400
    assert (await build(tmp_path)).get(POD_NETWORK).options[MTU] == "1400"


async def test_pods_may_have_an_address_of_each_version(networks, kernel):
    await networks.set_pod_ranges(["10.237.4.0/24", "fd00:7::/64"])
    assert kernel.bridges["wherry7p"] == ("10.237.4.1/24", "fd00:7::1/64")
    segment = next(s for s in networks._firewall.segments.values() if s.bridge == "wherry7p")
    assert segment.masked == ("10.237.4.0/24", "fd00:7::/64")
    pod = make(host={"NetworkMode": POD_NETWORK})
    pod.endpoints = {POD_NETWORK: Endpoint(POD_NETWORK)}
    await connect(networks, pod)
    assert pod.endpoints[POD_NETWORK].addresses == ["10.237.4.2", "fd00:7::2"]
    await networks.disconnect(pod)
    await networks.set_pod_ranges(["2a00:1450:4001:7::/64"])
    segment = next(s for s in networks._firewall.segments.values() if s.bridge == "wherry7p")
    assert segment.masked == (), "others may know the way to global addresses"


# ---- networks of users


async def create(networks, name="net", **fields):
    return await networks.create(decode_request({"Name": name, **fields}))


def ipam(*configs):
    return {"IPAM": {"Config": list(configs)}}


def on(*names, id="1" * 64, **wanted):
    container = make(id, host={"NetworkMode": names[0]})
    container.endpoints = {name: Endpoint(name, **wanted) for name in names}
    return container


async def test_a_network_gets_a_range_and_a_bridge_that_go_with_it(networks, kernel, tmp_path):
    net = await create(networks, Labels={"a": "b"}, Internal=True)
    assert net.ranges == ["172.31.0.0/16"] and net.link == f"br-{net.id[:12]}"
    assert kernel.bridges[net.link] == ("172.31.0.1/16",)
    assert "172.31.0.0/16" in kernel.routes
    assert networks._firewall.segments[net.link].internal
    again = await build(tmp_path)
    assert again.get("net") == net
    await again.remove(net.id[:7])
    assert net.link not in kernel.bridges and "172.31.0.0/16" not in kernel.routes
    assert net.link not in again._firewall.segments
    assert {n.name for n in (await build(tmp_path)).all()} == {"bridge", "host", "none"}


async def test_ranges_are_chosen_apart_from_all_others(networks, kernel):
    kernel.foreign_routes.add("172.31.0.0/16")
    first, second = await create(networks, "a"), await create(networks, "b", EnableIPv6=True)
    assert first.ranges == ["192.168.0.0/20"] and second.ranges[0] == "192.168.16.0/20"
    assert second.ranges[1].startswith("fd") and second.ranges[1].endswith("/64")
    assert kernel.bridges[second.link][1] == second.ranges[1].replace("/64", "1/64")
    with pytest.raises(Forbidden, match="Pool overlaps with other one on this address space"):
        await create(networks, "c", **ipam({"Subnet": "192.168.0.0/16"}))
    with pytest.raises(Forbidden, match="Pool overlaps"):
        await create(networks, "c", **ipam({"Subnet": "172.24.1.0/24"}))
    assert "172.31.0.0/16" in kernel.foreign_routes


async def test_of_two_engines_that_have_not_seen_each_other_one_gives_way(
    networks, kernel, monkeypatch
):
    claim = kernel.claim

    def claiming(cidr):
        kernel.routes.add("172.31.7.0/24")  # the other has looked when we did, and was faster
        return claim(cidr)

    monkeypatch.setattr(kernel, "claim", claiming)
    assert (await create(networks, "a")).ranges == ["192.168.0.0/20"]
    kernel.routes.discard("172.31.7.0/24")
    with pytest.raises(Forbidden, match="Pool overlaps"):
        await create(networks, "second", **ipam({"Subnet": "172.31.0.0/20"}))
    assert {r for r in kernel.routes if r.startswith("172.31.")} == {"172.31.7.0/24"}
    assert networks.find("second") is None


async def test_ranges_run_out(networks):
    for number in range(1 + 16 + 12):  # without our own of slot 7
        await create(networks, f"n{number}")
    with pytest.raises(BadParameter, match="all predefined address pools have been fully"):
        await create(networks, "more")


async def test_what_the_kernel_refuses_leaves_nothing(networks, kernel, tmp_path):
    before = set(kernel.routes)
    kernel.refuse = True
    with pytest.raises(EngineError, match="cannot create network net: no more bridges"):
        await create(networks)
    assert kernel.routes == before and networks.find("net") is None
    kernel.refuse = False
    assert (await build(tmp_path)).find("net") is None


@pytest.mark.parametrize("phase", ["creating", "removing"])
async def test_a_network_half_made_or_half_removed_goes_at_the_next_start(
    networks, kernel, tmp_path, phase
):
    net = await create(networks)
    net.phase = phase
    networks._save()
    assert networks.find("net") is None
    again = await build(tmp_path)
    assert again.find("net") is None
    assert net.link not in kernel.bridges and not kernel.routes & set(net.ranges)


async def test_names_are_taken_once_and_some_are_docker_s(networks):
    await create(networks)
    with pytest.raises(Conflict, match="network with name net already exists"):
        await create(networks)
    for name in ("bridge", "host", "none", "default", "container:x"):
        with pytest.raises(Forbidden, match="operation is not permitted on predefined"):
            await create(networks, name)
    with pytest.raises(Forbidden, match="bridge is a pre-defined network and cannot be removed"):
        await networks.remove("bridge")
    with pytest.raises(NotFound, match='plugin "weave" not found'):
        await create(networks, "x", Driver="weave")


async def test_a_used_network_stays(networks):
    net = await create(networks)
    container = on("net")
    await connect(networks, container)
    with pytest.raises(Forbidden) as caught:
        await networks.remove("net")
    endpoint = container.endpoints["net"].endpoint_id[:12]
    assert caught.value.message == (
        "error while removing network: network net has active endpoints "
        f'(name:"web" id:"{endpoint}")'
    )
    assert await networks.prune(lambda n: True) == []
    await networks.disconnect(container)
    assert await networks.prune(lambda n: n.name != "net") == []
    assert await networks.prune(lambda n: True) == ["net"]
    with pytest.raises(NotFound, match=f"network {net.id} not found"):
        await connect(networks, container)


async def test_a_container_on_several_networks_has_an_interface_on_each(networks, kernel):
    for name in ("b", "a"):
        await create(networks, name)
    container = on("b", "a")
    await connect(networks, container)
    interfaces = kernel.of(networks, container)
    assert [e.interface for e in container.endpoints.values()] == ["eth0", "eth1"]
    # The way out is by the first name.
    assert not interfaces["eth0"].gateways and interfaces["eth1"].gateways == ["192.168.0.1"]
    await networks.disconnect(container)
    container.endpoints["b"].gateway_priority = 1
    await connect(networks, container)
    assert kernel.of(networks, container)["eth0"].gateways == ["172.31.0.1"]


async def test_internal_networks_are_no_way_out(networks, kernel):
    await create(networks, "inner", Internal=True)
    container = on("inner")
    container.host_config["PortBindings"] = {"80/tcp": [{"HostPort": "8080"}]}
    await connect(networks, container)
    assert container.endpoints["inner"].gateway == ""
    assert not kernel.of(networks, container)["eth0"].gateways and not container.ports
    outer = Endpoint("bridge")
    await networks.attach(container, networks.get("bridge"), outer, lambda: None)
    assert kernel.ways[networks.namespace(container.id)] == {4: ("eth1", "172.24.0.1")}
    assert [(p.host_port, p.address) for p in container.ports] == [(8080, "172.24.0.2")]
    await networks.detach(container, networks.get("bridge"), lambda: None)
    assert kernel.ways[networks.namespace(container.id)] == {4: None}
    assert not container.ports and not networks._firewall.opened
    assert list(kernel.of(networks, container)) == ["eth0"]


async def test_ports_lead_to_the_new_way_out(networks):
    container = make(host={"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}})
    await connect(networks, container)
    await create(networks, "a")
    await networks.attach(container, networks.get("a"), Endpoint("a"), lambda: None)
    assert container.ports == [PublishedPort("tcp", 80, "0.0.0.0", 8080, "172.31.0.2")]
    assert [b.container_ip for b in networks._firewall.opened] == ["172.31.0.2"]


async def test_a_port_is_on_ipv6_as_well_where_the_machine_speaks_it(networks, kernel):
    kernel.ipv6 = True
    container = make(host={"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}})
    await connect(networks, container)
    # Relayed: the container has IPv4 alone.
    assert [(p.host_ip, p.address) for p in container.ports] == [
        ("0.0.0.0", "172.24.0.2"),
        ("::", "172.24.0.2"),
    ]


async def test_ranges_of_a_version_that_a_network_has_not_are_shown_and_not_used(networks, kernel):
    net = await create(networks, **ipam({"Subnet": "2001:db8:1::/64", "Gateway": "2001:db8:1::9"}))
    assert net.ranges == ["172.31.0.0/16"] and "2001:db8:1::/64" not in kernel.routes
    assert inspect(net, None)["IPAM"]["Config"][1]["Subnet"] == "2001:db8:1::/64"
    container = on("net", wanted_address6="2001:db8:1::f00d")
    await connect(networks, container)
    endpoint = container.endpoints["net"]
    assert (endpoint.address, endpoint.address6) == ("172.31.0.2", "")


async def test_ports_of_both_versions(networks, kernel):
    kernel.ipv6 = True
    await create(networks, EnableIPv6=True, **ipam({"Subnet": "fd00:1::/64"}))
    container = on("net")
    container.host_config["PortBindings"] = {
        "80/tcp": [{"HostPort": "8080"}],
        "81/tcp": [{"HostPort": "81", "HostIp": "::1"}, {"HostPort": "81", "HostIp": "127.0.0.1"}],
    }
    await connect(networks, container)
    assert [(p.host_ip, p.host_port, p.address) for p in container.ports] == [
        ("0.0.0.0", 8080, "172.31.0.2"),
        ("::", 8080, "fd00:1::2"),
        ("::1", 81, "fd00:1::2"),
        ("127.0.0.1", 81, "172.31.0.2"),
    ]


async def test_an_endpoint_is_on_disk_before_it_is_made_and_marked_until_it_is(networks, kernel):
    await create(networks, "a")
    container = make()
    await connect(networks, container)
    seen = []

    def save():
        endpoint = container.endpoints.get("a")
        seen.append((endpoint and endpoint.changing, len(kernel.of(networks, container))))

    await networks.attach(container, networks.get("a"), Endpoint("a"), save)
    assert seen[0] == (True, 1)
    assert seen[-1] == (False, 2)
    seen.clear()
    await networks.detach(container, networks.get("a"), save)
    assert seen[0] == (True, 2) and seen[-1] == (None, 1)


async def test_a_connection_cut_short_is_undone_by_the_next_daemon(networks, kernel, tmp_path):
    await create(networks, "a")
    container = make()
    await connect(networks, container)
    await networks.attach(container, networks.get("a"), Endpoint("a"), lambda: None)
    container.endpoints["a"].changing = True
    again = await build(tmp_path)
    saved = []
    await again.reclaim(container, lambda: saved.append(list(container.endpoints)))
    assert saved[-1] == ["bridge"]
    assert again.members(again.get("a")) == [] and again.members(again.get("bridge")) == [container]
    assert not again.places.pools.used(again.get("a"))


async def test_a_container_is_on_a_network_once(networks):
    await create(networks, "a")
    container = on("a")
    await connect(networks, container)
    with pytest.raises(Forbidden, match="endpoint with name web already exists in network a"):
        await networks.attach(container, networks.get("a"), Endpoint("a"), lambda: None)
    with pytest.raises(EngineError, match="is not connected to network bridge"):
        await networks.detach(container, networks.get("bridge"), lambda: None)


async def test_a_wanted_address_must_be_free_and_in_range(networks):
    config = {"Subnet": "10.9.0.0/24", "IPRange": "10.9.0.128/25", "Gateway": "10.9.0.200"}
    await create(networks, **ipam({**config, "AuxiliaryAddresses": {"router": "10.9.0.128"}}))
    plain = on("net")
    await connect(networks, plain)
    assert plain.endpoints["net"].address == "10.9.0.129"
    one = on("net", id="b" * 64, wanted_address="10.9.0.9")
    await connect(networks, one)
    assert one.endpoints["net"].address == "10.9.0.9"
    for wanted, problem in (
        ("10.9.0.9", "Address already in use"),
        ("10.9.0.200", "Address already in use"),
        ("10.9.0.128", "Address already in use"),
    ):
        with pytest.raises(Forbidden, match=problem):
            await connect(networks, on("net", id="c" * 64, wanted_address=wanted))
    with pytest.raises(BadParameter, match="no configured subnet or ip-range contain"):
        await connect(networks, on("net", id="c" * 64, wanted_address="10.9.1.1"))


async def test_a_wanted_address_needs_a_network_of_a_user_with_a_subnet(networks):
    one = make()
    one.endpoints["bridge"].wanted_address = "172.24.0.9"
    with pytest.raises(BadParameter, match="supported on user defined networks only"):
        await connect(networks, one)
    await create(networks)
    with pytest.raises(BadParameter, match="only when connecting to networks with user configured"):
        await connect(networks, on("net", wanted_address="172.31.0.9"))


async def test_options_of_bridges(networks, kernel):
    prefix = "com.docker.network.bridge."
    net = await create(
        networks,
        Options={
            f"{prefix}name": "mine",
            f"{prefix}enable_icc": "false",
            f"{prefix}enable_ip_masquerade": "0",
            f"{prefix}host_binding_ipv4": "127.0.0.1",
        },
    )
    segment = networks._firewall.segments["mine"]
    assert net.link == "mine" and not segment.icc and not segment.masked
    container = on("net")
    container.host_config["PortBindings"] = {"80/tcp": [{"HostPort": "8080"}]}
    await connect(networks, container)
    assert container.ports[0].host_ip == "127.0.0.1"
    with pytest.raises(Forbidden, match="networks have same bridge name"):
        await create(networks, "other", Options={f"{prefix}name": "mine"})
    with pytest.raises(BadParameter, match=r"failed to parse .*enable_icc value: maybe"):
        await create(networks, "other", Options={f"{prefix}enable_icc": "maybe"})
    with pytest.raises(Forbidden, match="bridge driver doesn't support multiple subnets"):
        await create(
            networks, "other", **ipam({"Subnet": "10.1.0.0/24"}, {"Subnet": "10.2.0.0/24"})
        )


async def test_a_bridge_that_was_there_before_stays(networks, kernel):
    kernel.bridges["theirs"] = ()
    await create(networks, Options={"com.docker.network.bridge.name": "theirs"})
    await networks.remove("net")
    assert "theirs" in kernel.bridges


async def test_macvlan_hangs_on_its_parent_or_on_nothing(networks, kernel):
    net = await create(
        networks, Driver="macvlan", Options={"parent": "eth9"}, **ipam({"Subnet": "10.9.0.0/24"})
    )
    assert net.link == "eth9" and not net.made_link and "10.9.0.0/24" not in kernel.routes
    container = on("net")
    await connect(networks, container)
    assert kernel.of(networks, container)["eth0"].gateways == ["10.9.0.1"]
    await networks.disconnect(container)
    alone = await create(networks, "alone", Driver="macvlan")
    assert alone.link == f"dm-{alone.id[:12]}" and alone.link in kernel.bridges
    await networks.remove("alone")
    assert alone.link not in kernel.bridges
    with pytest.raises(BadParameter, match="invalid subinterface vlan name nope"):
        await create(networks, "x", Driver="macvlan", Options={"parent": "nope"})
    with pytest.raises(EngineError, match="has no ipvlan links"):
        await create(networks, "x", Driver="ipvlan")


async def test_a_configuration_is_lent_to_networks_and_stays_as_long(networks):
    config = {"ConfigOnly": True, "Labels": {"a": "b"}, **ipam({"Subnet": "10.9.0.0/24"})}
    await create(networks, "config", **config)
    net = await create(networks, ConfigFrom={"Network": "config"})
    assert net.ranges == ["10.9.0.0/24"] and net.labels == {"a": "b"}
    with pytest.raises(Forbidden, match='configuration network "config" is in use'):
        await networks.remove("config")
    with pytest.raises(NotFound, match="network config not found"):
        await connect(networks, on("config"))


async def test_the_first_format_is_understood(networks, tmp_path, kernel):
    document = tmp_path / "network" / "networks.json"
    old = {
        "name": "bridge", "driver": "bridge", "id": "a" * 64, "created_at": 1,
        "subnet": "172.24.0.0/16", "gateway": "172.24.0.1", "bridge": "wherry7",
        "internal": False, "options": {}, "labels": {},
    }  # fmt: skip
    pods = old | {"name": POD_NETWORK, "id": "b" * 64, "subnet": "10.237.4.0/24",
                  "gateway": "10.237.4.1", "bridge": "wherry7p"}  # fmt: skip
    document.write_text(json.dumps({"format": 1, "networks": [old, pods]}))
    again = await build(tmp_path)
    assert again.get("bridge").id == "a" * 64
    assert again.get(POD_NETWORK).ranges == ["10.237.4.0/24"]
    document.write_text('{"format": 99, "networks": []}')
    with pytest.raises(EngineError, match="does not know"):
        await build(tmp_path)
