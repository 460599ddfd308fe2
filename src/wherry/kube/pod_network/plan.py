"""What this node must have for pods of other nodes to be reached: pure functions."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wherry.kube.api import meta
from wherry.net import vxlan
from wherry.net.routes import Reach, Route

Object = dict[str, Any]

AUTO, HOST_GW, VXLAN, NONE = "auto", "host-gw", "vxlan", "none"
MODES = (AUTO, HOST_GW, VXLAN, NONE)


@dataclass(frozen=True, slots=True)
class Peer:
    """A range of pods, the node that has it, and that node's address: of the range's family if it
    has one.

    ``sibling`` is the node's range in IPv4 where this one is of IPv6, ``end`` its address in IPv4:
    tunnels are known by those, whatever travels in them.
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
        """What its end of the network over the network is called: the first of its range in IPv4;
        empty where it has none."""
        cidr = self.sibling if self.is_ipv6 else self.cidr
        return str(ipaddress.ip_network(cidr).network_address) if cidr else ""

    @property
    def has_own_family(self) -> bool:
        """Whether the node's address is of the range's family, so that routes can lead there."""
        return (":" in self.address) == self.is_ipv6


@dataclass(frozen=True, slots=True)
class Plan:
    """``routes`` to the ranges of others; ``ends`` of tunnels, by their addresses inside; ``near``
    are the nodes that see our pods' own addresses; ``faults`` say of nodes why there is no way."""

    routes: frozenset[Route] = frozenset()
    ends: Mapping[str, str] = field(default_factory=dict)
    near: tuple[str, ...] = ()
    faults: Mapping[str, str] = field(default_factory=dict)


def peers(nodes: Iterable[Object], own: str) -> list[Peer]:
    """The ranges of all nodes but ``own``."""
    found = []
    for node in nodes:
        spec = node.get("spec") or {}
        ranges = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
        if meta.name(node) == own:
            continue
        sibling = next((cidr for cidr in ranges if ":" not in cidr), "")
        end = internal_address(node, 4)
        for cidr in ranges:
            if ":" not in cidr:
                peer = Peer(meta.name(node), cidr, end)
            else:
                address = internal_address(node, 6) or end
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
    """The range of this node's pods in IPv4; empty as long as it has none."""
    for node in nodes:
        if meta.name(node) == own:
            spec = node.get("spec") or {}
            ranges = spec.get("podCIDRs") or [spec.get("podCIDR") or ""]
            return next((cidr for cidr in ranges if cidr and ":" not in cidr), "")
    return ""


def plan(
    peers: Iterable[Peer], reaches: Mapping[str, Reach], *, mode: str, device: str, tunnels: str
) -> Plan:
    """How each peer is reached. ``reaches`` says it of their addresses, ``device`` is the tunnels'.

    ``tunnels`` says why there can be none; empty where there can.
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
        elif peer.is_ipv6 and not (peer.inside and peer.end):
            faults[peer.node] = f"{peer.address} is behind a router, and tunnels want IPv4, too"
        elif tunnels:
            faults[peer.node] = f"{peer.address} is behind a router, and {tunnels}"
        else:
            gateway = vxlan.link_local(peer.inside) if peer.is_ipv6 else peer.inside
            routes.add(Route(peer.cidr, gateway, device))
            ends[peer.inside] = peer.end if peer.is_ipv6 else peer.address
    return Plan(frozenset(routes), ends, tuple(sorted(set(near))), faults)


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
    return int(ipaddress.ip_network(ranges[0]).network_address) >> 8 & 0xFFFFFF
