"""Which flows of datagrams are to be forgotten."""

from dataclasses import replace

from wherry.net.conntrack.flows import Flow
from wherry.net.service.ports import ServicePort
from wherry.net.service.stale_flows import Stale, concerns

ONE, TWO = ("10.244.0.2", 53), ("10.244.0.3", 53)
DNS = ServicePort("a/dns", "udp", 53, "10.96.0.10", inside=(ONE, TWO), outside=(ONE, TWO))


def flow(destination, port, answered):
    return Flow("udp", "10.244.0.9", 1234, destination, port, answered)


def test_what_leads_to_an_endpoint_that_left_is_stale_and_nothing_else():
    stale = Stale([(DNS, replace(DNS, inside=(TWO,), outside=(TWO,)))], frozenset())
    assert stale.has(flow("10.96.0.10", 53, ONE))
    assert not stale.has(flow("10.96.0.10", 53, TWO))
    assert not stale.has(flow("10.96.0.11", 53, ONE))


def test_what_was_led_nowhere_is_stale_when_the_first_endpoint_comes():
    stale = Stale([(replace(DNS, inside=(), outside=()), DNS)], frozenset())
    assert stale.has(flow("10.96.0.10", 53, ("10.96.0.10", 53)))


def test_at_a_node_port_only_what_is_for_this_machine_counts():
    stale = Stale([(None, replace(DNS, node_port=30053))], frozenset({"192.0.2.1"}))
    assert stale.has(flow("192.0.2.1", 30053, ("192.0.2.1", 30053)))
    assert not stale.has(flow("192.0.2.2", 30053, ("192.0.2.2", 30053)))


def test_only_datagrams_and_only_changes_that_can_lead_astray_are_looked_at():
    assert concerns(DNS, None) and concerns(None, DNS)
    assert concerns(DNS, replace(DNS, inside=(ONE,), outside=(ONE,)))
    assert not concerns(replace(DNS, inside=(ONE,), outside=()), DNS)
    tcp = replace(DNS, protocol="tcp")
    assert not concerns(tcp, None)
