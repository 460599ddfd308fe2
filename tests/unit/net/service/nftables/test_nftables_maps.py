"""Services as elements."""

from dataclasses import replace

from wherry.net.nftables.elements import address
from wherry.net.service.nftables.maps import Maps
from wherry.net.service.ports import ServicePort

TWO = (("10.244.0.2", 8080), ("10.244.0.3", 8080))
WEB = ServicePort("default/web", "tcp", 80, "10.96.0.10", inside=TWO)


def begun():
    maps = Maps()
    maps.begin("ip")
    return maps


def elements(served):
    return list(begun().whole({served.key: served}).values())


def containers(served):
    return {element.container for element in elements(served)}


def test_without_endpoints_clients_are_refused_or_dropped_where_another_node_may_answer():
    served = replace(WEB, inside=(), node_port=30080, outside=(), outside_elsewhere=True)
    assert containers(served) == {"refused", "node-dropped"}


def test_clients_of_inside_are_led_elsewhere_where_a_policy_says_local():
    maps = begun()
    served = replace(WEB, node_port=30080, outside=TWO[:1], everywhere=TWO, masquerade=False)
    maps.whole({served.key: served})
    chains, leading = maps.fresh()
    assert [chain.name for chain in chains] == [element.value for element in leading]
    assert {chain.name.rsplit("-", 1)[0] for chain in chains} == {
        "choose-2-open",
        "node-choose-1-open",
        "node-choose-2-inside",
    }
    assert maps.fresh() == ([], [])


def test_a_service_with_affinity_is_drawn_by_numbers_which_stay_with_the_endpoints():
    maps, sticky = begun(), replace(WEB, affinity=10)
    before = {e.value: e.key for e in maps.whole({WEB.key: sticky}).values() if e[1] == "numbers"}
    assert len(before) == 2
    deleted, added = maps.difference({WEB.key: replace(sticky, inside=TWO[1:])})
    assert [e.key for e in deleted if e.container == "numbers"] == [
        key for target, key in before.items() if target.startswith(address("10.244.0.2"))
    ]
    assert not [e for e in added if e.container == "numbers"]


def test_an_external_address_that_is_the_cluster_ip_is_one_frontend():
    served = replace(WEB, external_ips=("10.96.0.10",), outside=TWO)
    assert len([e for e in elements(served) if e.container == "services"]) == 1


def test_source_ranges_that_overlap_are_one():
    sources = ("10.0.0.0/8", "10.1.0.0/16")
    served = replace(WEB, balancer_ips=("192.0.2.1",), outside=TWO, sources=sources)
    found = [element.container for element in elements(served)]
    assert found.count("guarded") == found.count("sources") == 1
