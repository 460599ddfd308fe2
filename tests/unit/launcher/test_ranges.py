"""Ranges of clusters: what may be asked for, and what is chosen."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.api.families import families_of
from wherry.launcher.ranges import Wanted, address, overlapped, split, wanted

PODS, SERVICES = "10.240.0.0/16", "10.100.0.0/16"


def test_without_a_word_nothing_is_wanted() -> None:
    assert wanted(None, None, None) is None


@pytest.mark.parametrize(
    ("families", "pods", "services", "expected"),
    [
        ("IPv4,IPv6", None, None, Wanted(("IPv4", "IPv6"))),
        ("ipv6", None, None, Wanted(("IPv6",))),
        (None, "10.1.0.0/16", None, Wanted(("IPv4",), ("10.1.0.0/16",))),
        (
            None,
            "fd00:1::/56,10.1.0.0/16",
            "fd00:2:0::/112,10.2.0.0/16",
            Wanted(
                ("IPv6", "IPv4"),
                ("fd00:1::/56", "10.1.0.0/16"),
                ("fd00:2::/112", "10.2.0.0/16"),
            ),
        ),
    ],
)
def test_what_is_asked_for(
    families: str | None, pods: str | None, services: str | None, expected: Wanted
) -> None:
    assert wanted(families, pods, services) == expected


@pytest.mark.parametrize(
    ("families", "pods", "services", "fault"),
    [
        ("IPv5", None, None, 'invalid families "IPv5": want IPv4, IPv6, or both with a comma'),
        ("IPv4,IPv4", None, None, "invalid families"),
        (None, "10.1.0.1/16", None, "has host bits set"),
        (None, "10.1.0.0/16,10.2.0.0/16", None, "pods have at most one range of each family"),
        (None, "10.1.0.0/25", None, "10.1.0.0/25 is too small for pods: every node gets a /24"),
        (None, "fd00::/65", None, "every node gets a /64"),
        (None, None, "10.1.0.0/29", "10.1.0.0/29 is too small for Services: want 16 addresses"),
        (None, "10.1.0.0/16", "10.1.2.0/24", "10.1.2.0/24 overlaps 10.1.0.0/16"),
        (
            None,
            "10.1.0.0/16,fd00:1::/56",
            "10.2.0.0/16",
            "--service-cidr has IPv4, --pod-network-cidr has IPv4 and IPv6: want the same, in the "
            "same order",
        ),
        ("IPv6,IPv4", "10.1.0.0/16,fd00:1::/56", None, "want the same, in the same order"),
    ],
)
def test_what_cannot_be_is_refused(
    families: str | None, pods: str | None, services: str | None, fault: str
) -> None:
    with pytest.raises(ValueError, match=fault):
        wanted(families, pods, services)


orders = st.sampled_from([("IPv4",), ("IPv6",), ("IPv4", "IPv6"), ("IPv6", "IPv4")])


@given(orders)
def test_chosen_ranges_are_as_wanted_and_apart(families: tuple[str, ...]) -> None:
    asked = Wanted(families)
    pods, services = asked.choose(PODS, SERVICES)
    assert families_of(pods) == families_of(services) == families
    assert asked.is_met(pods, services)
    assert not any(overlapped(cidr, split(services)) for cidr in split(pods))
    for cidr in (*split(pods), *split(services)):
        network = ipaddress.ip_network(cidr)
        assert network.version == 4 or network.subnet_of(ipaddress.IPv6Network("fd00::/8"))
    assert wanted(None, pods, services) == Wanted(families, split(pods), split(services))


def test_two_clusters_choose_differently() -> None:
    one, two = (Wanted(("IPv6",)).choose(PODS, SERVICES) for _ in range(2))
    assert not overlapped(one[0], [two[0]]) and not overlapped(one[1], [two[1]])


def test_another_choice_is_not_met() -> None:
    both = Wanted(("IPv4", "IPv6"))
    assert not both.is_met(PODS, SERVICES)
    assert not Wanted(("IPv4",), ("10.1.0.0/16",)).is_met(PODS, SERVICES)
    assert Wanted(("IPv4",)).is_met(PODS, SERVICES)


def test_addresses_are_counted_in_each_range() -> None:
    assert address((SERVICES, "fd00:9::/112"), 10) == ("10.100.0.10", "fd00:9::a")
