from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.pod_network import plan as planning
from wherry.kube.pod_network.plan import (
    AUTO,
    HOST_GW,
    MODES,
    NONE,
    VXLAN,
    Peer,
    Plan,
    peers,
    plan,
    pod_mtu,
)
from wherry.net.link.routes import Reach, Route

NEAR = Peer("b", "10.244.1.0/24", "192.0.2.2")
FAR = Peer("c", "10.244.2.0/24", "198.51.100.3")
REACHES = {NEAR.address: Reach.LINK, FAR.address: Reach.ROUTER}


def node(name: str, *cidrs: str, addresses: tuple[str, ...] = ()) -> dict[str, Any]:
    spec = {"podCIDR": cidrs[0], "podCIDRs": list(cidrs)} if cidrs else {}
    listed = [{"type": "InternalIP", "address": a} for a in addresses]
    return {"metadata": {"name": name}, "spec": spec, "status": {"addresses": listed}}


def made(mode: str = AUTO, tunnels: str = "", **reaches: Reach) -> planning.Plan:
    known = {NEAR.address: Reach.LINK, FAR.address: Reach.ROUTER}
    return plan([NEAR, FAR], known, mode=mode, device="v", tunnels=tunnels)


def test_peers_are_the_nodes_with_a_range_and_an_address() -> None:
    found = peers(
        [
            node("a", "10.244.0.0/24", addresses=("192.0.2.1",)),
            node("b", "10.244.1.0/24", "fd00:1::/64", addresses=("192.0.2.2", "fd00::2")),
            node("new"),
            node("lost", "10.244.9.0/24"),
        ],
        "a",
    )
    assert found == [
        Peer("b", "10.244.1.0/24", "192.0.2.2"),
        Peer("b", "fd00:1::/64", "fd00::2", "10.244.1.0/24", "192.0.2.2"),
    ]


def test_ipv6_goes_by_routes_too_and_through_the_tunnels_of_ipv4() -> None:
    nodes = [
        node("near", "10.244.1.0/24", "fd00:1::/64", addresses=("192.0.2.2", "2001:db8::2")),
        node("far", "fd00:2::/64", "10.244.2.0/24", addresses=("2001:db8:9::3", "198.51.100.3")),
        node("old", "10.244.3.0/24", "fd00:3::/64", addresses=("192.0.2.4",)),
        node("new", "fd00:4::/64", "10.244.4.0/24", addresses=("2001:db8:9::4",)),
    ]
    reaches = {
        "192.0.2.2": Reach.LINK,
        "2001:db8::2": Reach.LINK,
        "198.51.100.3": Reach.ROUTER,
        "2001:db8:9::3": Reach.ROUTER,
        "192.0.2.4": Reach.LINK,
        "2001:db8:9::4": Reach.ROUTER,
    }
    found = plan(peers(nodes, "me"), reaches, mode=AUTO, device="v", tunnels="")
    assert found.routes == {
        Route("10.244.1.0/24", "192.0.2.2"),
        Route("fd00:1::/64", "2001:db8::2"),
        Route("10.244.2.0/24", "10.244.2.0", "v"),
        Route("fd00:2::/64", "fe80::af4:200", "v"),
        Route("10.244.3.0/24", "192.0.2.4"),
        Route("fd00:3::/64", "fe80::af4:300", "v"),  # the node has no address of IPv6
    }
    assert found.ends == {"10.244.2.0": "198.51.100.3", "10.244.3.0": "192.0.2.4"}
    assert found.faults == {"new": "2001:db8:9::4 is behind a router, and tunnels want IPv4, too"}
    direct = plan(peers(nodes, "me"), reaches, mode=HOST_GW, device="v", tunnels="")
    assert direct.faults["old"] == "192.0.2.4 is its only address, and host-gw wants one of IPv6"


def test_a_cluster_of_ipv6_alone_has_tunnels_of_its_own() -> None:
    nodes = [
        node("near", "fd00:1:0:1::/64", addresses=("2001:db8::2",)),
        node("far", "fd00:1:0:2::/64", addresses=("2001:db8:9::3",)),
        node("old", "fd00:1:0:3::/64", addresses=("192.0.2.4",)),
    ]
    reaches = {"2001:db8::2": Reach.LINK, "2001:db8:9::3": Reach.ROUTER, "192.0.2.4": Reach.LINK}
    found = plan(peers(nodes, "me"), reaches, mode=AUTO, device="v", tunnels="")
    assert found.routes == {
        Route("fd00:1:0:1::/64", "2001:db8::2"),
        Route("fd00:1:0:2::/64", "fe80::2", "v"),
    }
    assert found.ends == {"fe80::2": "2001:db8:9::3"}
    assert found.faults == {"old": "192.0.2.4 is behind a router, and tunnels want IPv6"}
    assert planning.own_range(nodes, "far") == "fd00:1:0:2::/64"
    assert planning.own_range(nodes, "none") == ""


@given(st.integers(0, 2**16 - 1), st.integers(0, 2**16 - 1), st.sampled_from([56, 64, 80, 96]))
def test_ranges_of_a_cluster_have_different_ends(one: int, other: int, length: int) -> None:
    ends = {
        planning.inside(f"{ipaddress.IPv6Address((0xFD << 120) + (n << 128 - length))}/{length}")
        for n in (one, other)
    }
    assert len(ends) == len({one, other})
    assert all(ipaddress.ip_address(end).is_link_local for end in ends)


def test_who_has_no_address_of_the_tunnels_family_has_no_tunnels() -> None:
    both, six = "10.244.0.0/16,fd00::/56", "fd00::/56"
    assert not planning.no_tunnels(both, "192.0.2.1") and not planning.no_tunnels(six, "2001:db8::")
    assert "no address of IPv4" in planning.no_tunnels(both, "2001:db8::1")
    assert "no address of IPv4" in planning.no_tunnels(both, "127.0.0.1")
    assert "no address of IPv6" in planning.no_tunnels(six, "::1")


def test_neighbours_get_a_route_and_others_a_tunnel() -> None:
    found = made()
    assert found.routes == {
        Route(NEAR.cidr, NEAR.address),
        Route(FAR.cidr, "10.244.2.0", "v"),
    }
    assert found.ends == {"10.244.2.0": FAR.address}
    assert found.near == (NEAR.address,)
    assert not found.faults


def test_who_wants_tunnels_alone_gets_them() -> None:
    assert set(made(VXLAN).ends.values()) == {NEAR.address, FAR.address}
    assert made(VXLAN).near == ()


def test_what_cannot_be_is_told() -> None:
    assert made(HOST_GW).faults == {
        "c": "198.51.100.3 is behind a router, which host-gw cannot pass"
    }
    without = made(tunnels="this machine's kernel has no VXLAN")
    assert without.faults == {
        "c": "198.51.100.3 is behind a router, and this machine's kernel has no VXLAN"
    }
    assert without.routes == {Route(NEAR.cidr, NEAR.address)}
    nowhere = plan([NEAR], {NEAR.address: Reach.NOWHERE}, mode=AUTO, device="v", tunnels="")
    assert nowhere.faults == {"b": "there is no route to 192.0.2.2"}


@given(
    st.lists(st.tuples(st.integers(0, 255), st.sampled_from(Reach)), unique_by=lambda p: p[0]),
    st.sampled_from([mode for mode in MODES if mode != NONE]),
)
def test_each_peer_has_one_way_or_a_reason(known: list[tuple[int, Reach]], mode: str) -> None:
    listed = [Peer(f"n{n}", f"10.244.{n}.0/24", f"192.0.2.{n}") for n, _ in known]
    reaches = {f"192.0.2.{n}": reach for n, reach in known}
    found = plan(listed, reaches, mode=mode, device="v", tunnels="")
    here = {p.cidr for p in listed if reaches[p.address] is Reach.HERE}
    led = [route.cidr for route in found.routes]
    faulty = {p.cidr for p in listed if p.node in found.faults}
    assert len(led) == len(set(led))
    assert {*led, *faulty, *here} == {p.cidr for p in listed}
    assert not set(led) & (faulty | here)
    assert len(found.ends) == sum(route.interface == "v" for route in found.routes)


def test_packets_of_pods_fit_the_machines_link() -> None:
    assert pod_mtu(1500, 50, tunnelled=False) == 1500
    assert pod_mtu(1500, 50, tunnelled=True) == 1450
    assert pod_mtu(9000, 50, tunnelled=False) == 9000
    assert pod_mtu(0, 50, tunnelled=True) == 0


def test_clusters_of_other_ranges_have_other_numbers() -> None:
    numbers = {planning.network_number(f"10.{n}.0.0/16") for n in range(256)}
    assert len(numbers) == 256 and max(numbers) < 1 << 24
    assert planning.network_number("fd00::/56,10.9.0.0/16") in numbers
    assert planning.network_number("fd00:1::/56") != planning.network_number("fd00:2::/56")


def test_where_others_see_to_it_nothing_is_planned() -> None:
    listed = [Peer("b", "10.244.1.0/24", "192.0.2.1")]
    reaches = {"192.0.2.1": Reach.ROUTER}
    assert plan(listed, reaches, mode=NONE, device="v", tunnels="") == Plan()
