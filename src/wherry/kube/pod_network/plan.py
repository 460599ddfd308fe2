"""What this node must have for pods of other nodes to be reached: pure functions."""

from __future__ import annotations

import ipaddress
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wherry.kube.api import meta
from wherry.net.link import vxlan
from wherry.net.link.routes import Reach, Route

Object = dict[str, Any]

AUTO, HOST_GW, VXLAN, NONE = "auto", "host-gw", "vxlan", "none"
MODES = (AUTO, HOST_GW, VXLAN, NONE)


@dataclass(frozen=True, slots=True)
class Peer:
    """A range of pods, the node that has it, and that node's address (of the range's family, if
    the node has one).

    A tunnel is one for both families. In a cluster that has IPv4 it goes by IPv4, whatever travels
    in it: a range of IPv6 then tells of its node's range in IPv4, ``sibling``, and its address in
    IPv4, ``end``. In a cluster of IPv6 alone there is no sibling, and ``end`` is of IPv6.
    """

    node: str
    cidr: str
    address: str
    sibling: str = ""
    end: str = ""

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.cidr

    @property
    def inside(self) -> str:
        """The address of the node's end of the tunnel in the overlay network."""
        return inside(self.sibling or self.cidr)

    @property
    def outside(self) -> str:
        """Where datagrams to that end are sent; empty where the node has no such address."""
        return self.end if self.is_ipv6 else self.address

    @property
    def has_own_family(self) -> bool:
        """Whether the node's address is of the range's family, so that routes can lead there."""
        return (":" in self.address) == self.is_ipv6


@dataclass(frozen=True, slots=True)
class Plan:
    """What this node must have in the kernel, and what cannot be had.

    Attributes:
        routes: to the ranges of other nodes.
        ends: where to send datagrams for the other ends of the tunnel, by their overlay addresses.
        near: addresses of nodes on a common link: they see our pods' own addresses.
        faults: why there is no way to a node, by its name.
    """

    routes: frozenset[Route] = frozenset()
    ends: Mapping[str, str] = field(default_factory=dict)
    near: tuple[str, ...] = ()
    faults: Mapping[str, str] = field(default_factory=dict)


def inside(cidr: str) -> str:
    """The address in the overlay network of the node that has range ``cidr``: the first of the
    range, in IPv6 a link-local one made of the bits by which a cluster's ranges differ."""
    range = ipaddress.ip_network(cidr)
    if range.version == 4:
        return str(range.network_address)
    number = int(range.network_address) >> 128 - range.prefixlen & 0xFFFFFFFF
    return str(ipaddress.IPv6Address(0xFE80 << 112 | number))


def _ranges(node: Object) -> list[str]:
    spec = node.get("spec") or {}
    return list(spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else []))


def peers(nodes: Iterable[Object], own: str) -> list[Peer]:
    """The ranges of all nodes but the one called ``own``, in order of their names."""
    found = []
    for node in nodes:
        if meta.name(node) == own:
            continue
        ranges = _ranges(node)
        sibling = next((cidr for cidr in ranges if ":" not in cidr), "")
        end = internal_address(node, 4 if sibling else 6)
        for cidr in ranges:
            if ":" not in cidr:
                peer = Peer(meta.name(node), cidr, end)
            else:
                address = internal_address(node, 6) or internal_address(node, 4)
                peer = Peer(meta.name(node), cidr, address, sibling, end)
            if peer.address:
                found.append(peer)
    return sorted(found, key=lambda peer: (peer.node, peer.cidr))


def internal_address(node: Object, version: int) -> str:
    """A node's address in that version of IP; empty where it has none."""
    for entry in (node.get("status") or {}).get("addresses") or ():
        if entry.get("type") == "InternalIP" and (":" in entry["address"]) == (version == 6):
            return str(entry["address"])
    return ""


def own_range(nodes: Iterable[Object], own: str) -> str:
    """The range of this node's pods, in IPv4 if there is one; empty as long as it has none."""
    for node in nodes:
        if meta.name(node) == own:
            return min(_ranges(node), key=lambda cidr: ":" in cidr, default="")
    return ""


def plan(
    peers: Iterable[Peer], reaches: Mapping[str, Reach], *, mode: str, device: str, tunnels: str
) -> Plan:
    """How each peer is led to.

    Args:
        reaches: how this machine reaches each of the peers' addresses.
        mode: one of ``MODES``.
        device: the tunnels' link.
        tunnels: why there can be no tunnels; empty where there can.
    """
    routes: set[Route] = set()
    ends: dict[str, str] = {}
    near: list[str] = []
    faults: dict[str, str] = {}
    for peer in peers if mode != NONE else ():
        reach = reaches[peer.address]
        if reach is Reach.HERE:
            continue  # another node on this machine: its bridge is here
        if reach is Reach.NOWHERE:
            faults[peer.node] = f"there is no route to {peer.address}"
        elif mode != VXLAN and reach is Reach.LINK and peer.has_own_family:
            routes.add(Route(peer.cidr, peer.address))
            near.append(peer.address)
        elif mode == HOST_GW:
            why = "is behind a router, which host-gw cannot pass"
            if not peer.has_own_family:
                why = "is its only address, and host-gw wants one of IPv6"
            faults[peer.node] = f"{peer.address} {why}"
        elif not peer.outside:
            lacking = "IPv4, too" if peer.sibling else "IPv6"
            faults[peer.node] = f"{peer.address} is behind a router, and tunnels want {lacking}"
        elif tunnels:
            faults[peer.node] = f"{peer.address} is behind a router, and {tunnels}"
        else:
            gateway = vxlan.link_local(peer.inside) if peer.is_ipv6 else peer.inside
            routes.add(Route(peer.cidr, gateway, device))
            ends[peer.inside] = peer.outside
    return Plan(frozenset(routes), ends, tuple(sorted(set(near))), faults)


def no_tunnels(pod_range: str, node_ip: str) -> str:
    """Why this node, at ``node_ip``, can have no end of a tunnel; empty where it can."""
    version = 4 if any(":" not in cidr for cidr in pod_range.split(",")) else 6
    address = ipaddress.ip_address(node_ip)
    if address.version == version and not address.is_loopback:
        return ""
    return f"this node has no address of IPv{version}, by which tunnels go"


def bare(route: Route, device: str) -> Route:
    """A route as it is compared: by which link a neighbour is reached, the kernel knows."""
    return route if route.interface == device else Route(route.cidr, route.gateway)


def pod_mtu(link: int, overhead: int, *, tunnelled: bool) -> int:
    """How large packets of pods may be where the machine's link takes ``link`` bytes; 0: as large
    as the kernel likes."""
    if not link:
        return 0
    return link - overhead if tunnelled else link


def network_number(cluster_range: str) -> int:
    """The number of the cluster's VXLAN: clusters with other ranges have another."""
    ranges = sorted(cluster_range.split(","), key=lambda cidr: ":" in cidr)
    first = ipaddress.ip_network(ranges[0]).network_address
    if first.version == 6:  # clusters may differ in any bits of theirs
        return zlib.crc32(first.packed) & 0xFFFFFF
    return int(first) >> 8 & 0xFFFFFF
