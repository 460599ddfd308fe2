from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from apiserver_harness import API, config, service, settled

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver.allocation.pools import AddressPool, Full, PortPool, first_address
from wherry.kube.apiserver.allocation.services import Allocations
from wherry.kube.apiserver.server import SELF, APIServer
from wherry.kube.store.sqlite import SQLiteStore


async def test_a_service_gets_an_address_of_the_range(api: API) -> None:
    spec = (await api("POST", "services", service()))["spec"]
    assert spec["clusterIP"].startswith("10.96.0.")
    assert spec["clusterIPs"] == [spec["clusterIP"]]
    assert (spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")


async def test_no_two_services_get_the_same(api: API) -> None:
    made = await asyncio.gather(
        *(api("POST", "services", service(f"s{n}", type="NodePort")) for n in range(60))
    )
    assert len({o["spec"]["clusterIP"] for o in made}) == 60
    ports = {o["spec"]["ports"][0]["nodePort"] for o in made}
    assert len(ports) == 60 and all(30000 <= port <= 32767 for port in ports)


async def test_an_address_asked_for_is_given_once(api: API) -> None:
    made = await api("POST", "services", service(clusterIP="10.96.0.7"))
    assert made["spec"]["clusterIP"] == "10.96.0.7"
    with pytest.raises(StatusError) as failure:
        await api("POST", "services", service("other", clusterIP="10.96.0.7"))
    assert failure.value.code == 422
    assert failure.value.message == (
        'Service "other" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.7"]: '
        "failed to allocate IP 10.96.0.7: provided IP is already allocated"
    )


async def test_an_address_outside_the_range_is_refused(api: API) -> None:
    with pytest.raises(StatusError, match=r"The range of valid IPs is 10.96.0.0/24"):
        await api("POST", "services", service(clusterIP="10.97.0.1"))


async def test_what_is_deleted_is_free_again(api: API) -> None:
    for _ in range(3):
        o = service(clusterIP="10.96.0.7", type="NodePort", ports=[{"port": 80, "nodePort": 30080}])
        await api("POST", "services", o)
        await api("DELETE", "services/web")


async def test_a_failed_create_gives_back_what_it_took(api: API) -> None:
    await api("POST", "services", service("a"))
    with pytest.raises(StatusError, match="already exists"):
        await api("POST", "services", service("a", clusterIP="10.96.0.8"))
    await api("POST", "services", service("b", clusterIP="10.96.0.9"), dryRun="All")
    await api("POST", "services", service("c", clusterIP="10.96.0.8"))
    await api("POST", "services", service("d", clusterIP="10.96.0.9"))


async def test_a_node_port_asked_for_is_given_once(api: API) -> None:
    ports = [{"port": 80, "nodePort": 30080}]
    await api("POST", "services", service(type="NodePort", ports=ports))
    with pytest.raises(StatusError) as failure:
        await api("POST", "services", service("other", type="NodePort", ports=ports))
    assert failure.value.message == (
        'Service "other" is invalid: spec.ports[0].nodePort: Invalid value: 30080: '
        "provided port is already allocated"
    )
    ports = [{"port": 80, "nodePort": 80}]
    with pytest.raises(StatusError, match="The range of valid ports is 30000-32767"):
        await api("POST", "services", service("other", type="NodePort", ports=ports))


def test_clusters_on_one_machine_begin_with_other_node_ports() -> None:
    pools = [PortPool(f"10.{96 + slot}.0.0/16") for slot in range(40)]
    given = [pool.choose() for pool in pools for _ in range(60)]
    assert len(set(given)) == len(given)
    assert PortPool("fd00:96::/108").choose() in range(30000, 32768)


def test_every_node_port_is_given_in_the_end() -> None:
    pool = PortPool("10.96.0.0/16")
    assert {pool.choose() for _ in range(2768)} == set(range(30000, 32768))
    with pytest.raises(Full):
        pool.choose()


async def test_udp_beside_tcp_may_share_the_node_port(api: API) -> None:
    ports = [
        {"name": "t", "port": 53, "protocol": "TCP"},
        {"name": "u", "port": 53, "protocol": "UDP", "nodePort": 30053},
    ]
    made = await api("POST", "services", service(type="NodePort", ports=ports))
    assert [p["nodePort"] for p in made["spec"]["ports"]] == [30053, 30053]


async def test_headless_and_external_services_take_no_address(api: API) -> None:
    headless = await api("POST", "services", service(clusterIP="None"))
    assert headless["spec"]["clusterIPs"] == ["None"]
    external = await api(
        "POST",
        "services",
        {
            "metadata": {"name": "e"},
            "spec": {"type": "ExternalName", "externalName": "example.com"},
        },
    )
    assert "clusterIP" not in external["spec"]


async def test_an_update_keeps_what_was_allocated(api: API) -> None:
    made = await api("POST", "services", service(type="NodePort"))
    kept = await api("PUT", "services/web", service(type="NodePort"))
    assert kept["spec"]["clusterIP"] == made["spec"]["clusterIP"]
    assert kept["spec"]["ports"] == made["spec"]["ports"]


async def test_a_service_that_is_no_node_port_any_more_gives_the_port_back(api: API) -> None:
    ports = [{"port": 80, "nodePort": 30080}]
    await api("POST", "services", service(type="NodePort", ports=ports))
    changed = await api.merge("services/web", {"spec": {"type": "ClusterIP"}})
    assert "nodePort" not in changed["spec"]["ports"][0]
    await api("POST", "services", service("other", type="NodePort", ports=ports))


async def test_what_is_taken_is_known_after_a_restart(store: SQLiteStore, tmp_path: Any) -> None:
    first = APIServer(config(tmp_path), store)
    await first.open()
    await API(first.transport(SELF))("POST", "services", service(clusterIP="10.96.0.7"))
    await first.close()
    second = APIServer(config(tmp_path), store)
    await second.open()
    with pytest.raises(StatusError, match="provided IP is already allocated"):
        await API(second.transport(SELF))("POST", "services", service("b", clusterIP="10.96.0.7"))
    await second.close()


def test_a_small_range_is_given_out_to_the_last_address() -> None:
    addresses = AddressPool(["10.0.0.0/29"])
    assert first_address("10.0.0.0/29") == "10.0.0.1"
    assert {addresses.choose() for _ in range(6)} == {f"10.0.0.{n}" for n in range(1, 7)}
    allocations = Allocations("10.0.0.0/29")
    allocations.pools["IPv4"].hold(f"10.0.0.{n}" for n in range(1, 7))
    with pytest.raises(StatusError, match="failed to allocate a serviceIP: range is full"):
        allocations.take(service(), None)


def test_chosen_addresses_leave_the_lower_part_to_people() -> None:
    addresses = AddressPool(["10.96.0.0/16"])
    offsets = [
        int(a.split(".")[2]) * 256 + int(a.split(".")[3])
        for a in (addresses.choose() for _ in range(200))
    ]
    assert min(offsets) > 256


async def test_the_cluster_has_its_first_service_from_the_start(api: API) -> None:
    found = await api("GET", "services/kubernetes")
    assert found["spec"]["clusterIP"] == "10.96.0.1"
    assert found["spec"]["ports"][0]["port"] == 443
    endpoints = await api("GET", "endpoints/kubernetes")
    assert endpoints["subsets"][0]["addresses"] == [{"ip": "192.0.2.1"}]
    path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes"
    assert (await api("GET", path))["endpoints"][0]["addresses"] == ["192.0.2.1"]


async def test_a_moved_server_mends_its_endpoints(store: SQLiteStore, tmp_path: Any) -> None:
    for address in ("192.0.2.1", "192.0.2.2"):
        server = APIServer(config(tmp_path, advertise_address=address), store)
        await server.open()
        found = await API(server.transport(SELF))("GET", "endpoints/kubernetes")
        assert found["subsets"][0]["addresses"] == [{"ip": address}]
        await settled(server)
        await server.close()
    revision = store.revision
    server = APIServer(config(tmp_path, advertise_address="192.0.2.2"), store)
    await server.open()
    assert store.revision == revision  # what is right is left alone
    await server.close()


@pytest.fixture
async def both(store: SQLiteStore, tmp_path: Path) -> AsyncIterator[API]:
    """A cluster whose services have IPv4 and IPv6."""
    server = APIServer(config(tmp_path, service_cidr="10.96.0.0/24,fd00:9::/112"), store)
    await server.open()
    yield API(server.transport(SELF))
    await server.close()


async def test_a_service_of_both_families_has_an_address_of_each(both: API) -> None:
    spec = (await both("POST", "services", service(ipFamilyPolicy="PreferDualStack")))["spec"]
    assert spec["ipFamilies"] == ["IPv4", "IPv6"]
    assert spec["clusterIP"] == spec["clusterIPs"][0]
    assert spec["clusterIPs"][0].startswith("10.96.0.")
    assert spec["clusterIPs"][1].startswith("fd00:9::")
    one = (await both("POST", "services", service("one")))["spec"]
    assert (one["ipFamilies"], one["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")
    six = (await both("POST", "services", service("six", ipFamilies=["IPv6"])))["spec"]
    assert six["clusterIPs"] == [six["clusterIP"]] and six["clusterIP"].startswith("fd00:9::")


async def test_a_service_gets_a_second_family_and_gives_it_back(both: API) -> None:
    made = await both("POST", "services", service())
    upgrade = {"spec": {"ipFamilyPolicy": "RequireDualStack", "clusterIPs": None}}
    spec = (await both.merge("services/web", upgrade))["spec"]
    first, second = spec["clusterIPs"]
    assert first == made["spec"]["clusterIP"] and second.startswith("fd00:9::")
    with pytest.raises(StatusError, match="must be 'SingleStack' to release the secondary IP fam"):
        await both.merge("services/web", {"spec": {"ipFamilies": ["IPv4"]}})
    spec = (await both.merge("services/web", {"spec": {"ipFamilyPolicy": "SingleStack"}}))["spec"]
    assert (spec["clusterIPs"], spec["ipFamilies"]) == ([first], ["IPv4"])
    other = service("other", clusterIP=second)  # it is free again
    assert (await both("POST", "services", other))["spec"]["ipFamilies"] == ["IPv6"]


async def test_an_address_is_taken_however_it_is_written(both: API) -> None:
    await both("POST", "services", service(clusterIP="fd00:9::7"))
    with pytest.raises(StatusError, match="provided IP is already allocated"):
        await both("POST", "services", service("other", clusterIP="fd00:9:0::0007"))
    with pytest.raises(StatusError, match="The range of valid IPs is fd00:9::/112"):
        await both("POST", "services", service("other", clusterIP="fd00:8::7"))


async def test_a_headless_service_without_selector_is_open_to_both(api: API) -> None:
    made = await api("POST", "services", service(clusterIP="None", selector=None))
    assert made["spec"]["ipFamilies"] == ["IPv4", "IPv6"]
    assert made["spec"]["ipFamilyPolicy"] == "RequireDualStack"


async def test_the_cluster_says_its_ranges(both: API) -> None:
    found = await both.transport.request(
        "GET", "/apis/networking.k8s.io/v1/servicecidrs/kubernetes"
    )
    assert found["spec"]["cidrs"] == ["10.96.0.0/24", "fd00:9::/112"]
    spec = (await both("GET", "services/kubernetes"))["spec"]
    assert (spec["clusterIPs"], spec["ipFamilies"]) == (["10.96.0.1"], ["IPv4"])


async def test_a_cluster_may_have_ipv6_alone(store: SQLiteStore, tmp_path: Path) -> None:
    server = APIServer(
        config(tmp_path, service_cidr="fd00:9::/112", advertise_address="2001:db8::5"), store
    )
    await server.open()
    api = API(server.transport(SELF))
    spec = (await api("GET", "services/kubernetes"))["spec"]
    assert (spec["clusterIP"], spec["ipFamilies"]) == ("fd00:9::1", ["IPv6"])
    slice_ = await api.transport.request(
        "GET", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes"
    )
    assert slice_["addressType"] == "IPv6"
    assert slice_["endpoints"][0]["addresses"] == ["2001:db8::5"]
    assert (await api("POST", "services", service()))["spec"]["ipFamilies"] == ["IPv6"]
    with pytest.raises(StatusError, match="IPv4 is not configured on this cluster"):
        await api("POST", "services", service("other", clusterIP="10.96.0.9"))
    await server.close()
