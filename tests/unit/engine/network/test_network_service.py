"""Networks with a kernel that only takes notes."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "container"))
from containers_helper import make

from wherry.engine.container.container import Endpoint
from wherry.engine.errors import BadParameter, EngineError, NotFound
from wherry.engine.events import EventBus
from wherry.engine.network import networks as module
from wherry.engine.network.network import POD_NETWORK, inspect
from wherry.engine.network.networks import Networks
from wherry.net.firewall import PortTaken


class FakeFirewall:
    def __init__(self, nft, table):
        self.networks = {}
        self.open = []
        self.foreign = set()

    async def setup(self, networks, *, unmasqueraded=()):
        self.networks = dict(networks)

    async def publish(self, binding):
        if binding.host_port in self.foreign or any(
            b.host_port == binding.host_port for b in self.open
        ):
            raise PortTaken(
                f"Bind for 0.0.0.0:{binding.host_port} failed: port is already allocated"
            )
        self.open.append(binding)

    async def unpublish(self, binding):
        if binding in self.open:
            self.open.remove(binding)

    def close(self):
        return None


class FakeKernel:
    def __init__(self):
        self.bridges = {}
        self.cables = {}

    def ensure_bridge(self, name, address):
        self.bridges[name] = address

    def remove_link(self, name):
        self.bridges.pop(name, None)

    def connect(self, **cable):
        self.cables[cable["namespace"]] = cable

    def create(self, path):
        path.touch(exist_ok=False)

    def delete(self, path):
        path.unlink(missing_ok=True)

    def block(self, cidr):
        return None


@pytest.fixture
def kernel(monkeypatch):
    kernel = FakeKernel()
    monkeypatch.setattr(module, "links", kernel)
    monkeypatch.setattr(module, "namespaces", kernel)
    monkeypatch.setattr(module, "routes", kernel)
    monkeypatch.setattr(module, "Firewall", FakeFirewall)
    return kernel


async def build(tmp_path):
    networks = Networks(
        root=tmp_path / "network",
        namespaces_root=tmp_path / "netns",
        bridge="wherry7",
        subnet="172.24.0.0/16",
        pod_bridge="wherry7p",
        pod_range="10.237.0.0/16",
        nft_table="wherry7",
        events=EventBus(),
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
    assert kernel.bridges == {"wherry7": "172.24.0.1/16"}
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
    cable = kernel.cables[networks.namespace(container.id)]
    assert (cable["bridge"], cable["address"]) == ("wherry7", "172.24.0.2/16")
    assert len(cable["host_interface"]) <= 15


async def test_what_was_given_is_given_back_and_can_be_given_back_twice(networks):
    container = make(host={"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}})
    for _ in range(2):
        await connect(networks, container)
        container.holding = True
        assert inspect(networks.get("bridge"), [container])["Containers"]
        for _ in range(2):
            await networks.disconnect(container)
        assert not networks._firewall.open and not container.ports
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
    assert not kernel.cables


async def test_a_network_that_is_gone_is_told(networks):
    container = make(host={"NetworkMode": "gone"})
    with pytest.raises(NotFound, match="failed to set up container networking: network gone not"):
        await connect(networks, container)


async def test_an_address_can_be_taken_up_again(networks, tmp_path, kernel):
    first = make(host={"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}})
    await connect(networks, first)
    again = await build(tmp_path)
    await again.reclaim(first)
    assert [b.host_port for b in again._firewall.open] == [8080]
    second = make("b" * 64)
    await connect(again, second)
    assert second.endpoints["bridge"].address != first.endpoints["bridge"].address


async def test_the_network_of_pods_comes_with_its_range_and_stays(networks, tmp_path, kernel):
    await networks.set_pod_range("10.237.4.0/24")
    assert kernel.bridges["wherry7p"] == "10.237.4.1/24"
    assert networks._firewall.networks == {
        "wherry7": "172.24.0.0/16", "wherry7p": "10.237.4.0/24",
    }  # fmt: skip
    again = await build(tmp_path)
    assert again.get(POD_NETWORK).subnet == "10.237.4.0/24"
    pod = make(host={"NetworkMode": POD_NETWORK})
    pod.endpoints = {}
    await connect(again, pod)
    assert pod.endpoints[POD_NETWORK].address == "10.237.4.2"
    with pytest.raises(EngineError, match="must go before"):
        await again.set_pod_range("10.237.5.0/24")
    await again.disconnect(pod)
    await again.set_pod_range("10.237.5.0/24")
    assert kernel.bridges["wherry7p"] == "10.237.5.1/24"


async def test_a_wanted_address_must_be_free_and_in_range(networks):
    one = make()
    one.endpoints["bridge"].wanted_address = "172.24.0.9"
    await connect(networks, one)
    assert one.endpoints["bridge"].address == "172.24.0.9"
    two = make("b" * 64)
    two.endpoints["bridge"].wanted_address = "172.24.0.9"
    with pytest.raises(BadParameter, match="Address already in use"):
        await connect(networks, two)
