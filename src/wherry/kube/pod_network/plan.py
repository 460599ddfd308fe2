"""What this node must have for pods of other nodes to be reached: pure functions."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wherry.kube.api import meta
from wherry.net.routes import Reach, Route

Object = dict[str, Any]

AUTO, HOST_GW, VXLAN, NONE = "auto", "host-gw", "vxlan", "none"
MODES = (AUTO, HOST_GW, VXLAN, NONE)


@dataclass(frozen=True, slots=True)
class Peer:
    """A range of pods, the node that has it, and that node's address."""

    node: str
    cidr: str
    address: str

    @property
    def inside(self) -> str:
        """What its end of the network over the network is called: the first of its range."""
        return str(ipaddress.ip_network(self.cidr).network_address)


@dataclass(frozen=True, slots=True)
class Plan:
    """``routes`` to the ranges of others; ``ends`` of tunnels, by their addresses inside; ``near``
    are the nodes that see our pods' own addresses; ``faults`` say of nodes why there is no way."""

    routes: frozenset[Route] = frozenset()
    ends: Mapping[str, str] = field(default_factory=dict)
    near: tuple[str, ...] = ()
    faults: Mapping[str, str] = field(default_factory=dict)


def peers(nodes: Iterable[Object], own: str) -> list[Peer]:
    """The ranges of all nodes but ``own``, each with the node's address of the same kind."""
    found = []
    for node in nodes:
        spec = node.get("spec") or {}
        ranges = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
        if meta.name(node) == own:
            continue
        for cidr in ranges:
            version = 6 if ":" in cidr else 4
            address = internal_address(node, version)
            if address:
                found.append(Peer(meta.name(node), cidr, address))
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
        elif mode != VXLAN and reach is Reach.LINK:
            routes.add(Route(peer.cidr, peer.address))
            near.append(peer.address)
        elif mode == HOST_GW:
            faults[peer.node] = f"{peer.address} is behind a router, which host-gw cannot pass"
        elif ":" in peer.cidr:
            faults[peer.node] = f"{peer.address} is behind a router, and IPv6 is not tunnelled"
        elif tunnels:
            faults[peer.node] = f"{peer.address} is behind a router, and {tunnels}"
        else:
            routes.add(Route(peer.cidr, peer.inside, device))
            ends[peer.inside] = peer.address
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
    return int(ipaddress.ip_network(cluster_range.split(",")[0]).network_address) >> 8 & 0xFFFFFF
