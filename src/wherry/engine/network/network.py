"""What a network is, and how the Engine API shows it."""

from __future__ import annotations

import ipaddress
import secrets
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from wherry.engine.container.container import Container
from wherry.engine.container.units import timestamp

# Where the pods of this node live; there once a kubelet has said which addresses are theirs.
POD_NETWORK = "k8s_pods"
PREDEFINED = ("bridge", "host", "none")
DEFAULT = "bridge"

BRIDGE_PREFIX = "com.docker.network.bridge."
MTU = "com.docker.network.driver.mtu"


def is_user_defined(name: str) -> bool:
    """Whether ``name``, of a network or a network mode, is one that users give."""
    return name not in (*PREDEFINED, "default", "") and not name.startswith("container:")


@dataclass(slots=True)
class Subnet:
    """A range of a network. ``ip_range`` is the part of it from which addresses are given out;
    ``auxiliary`` are addresses of others, by name. ``chosen`` are those that no user asked for."""

    cidr: str
    gateway: str = ""
    ip_range: str = ""
    auxiliary: dict[str, str] = field(default_factory=dict)
    chosen: bool = False

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.cidr else 4

    @property
    def prefix_length(self) -> int:
        return int(self.cidr.partition("/")[2])

    def __contains__(self, address: str) -> bool:
        return ipaddress.ip_address(address) in ipaddress.ip_network(self.cidr)


@dataclass(slots=True)
class Network:
    """A network. ``link`` is the bridge, or whatever else its containers hang on: empty for host
    and none; ``made_link`` tells that it goes when the network does. ``unused`` are ranges asked
    for in a version of IP that the network does not have: they are shown, no more.

    ``phase`` is ``creating`` or ``removing`` as long as that is not done: a daemon that finds a
    network so, takes it away.
    """

    name: str
    driver: str
    id: str = field(default_factory=lambda: secrets.token_hex(32))
    created_at: int = field(default_factory=time.time_ns)  # nanoseconds since the epoch
    subnets: list[Subnet] = field(default_factory=list)
    unused: list[Subnet] = field(default_factory=list)
    link: str = ""
    made_link: bool = True
    internal: bool = False
    attachable: bool = False
    ipv4: bool = True
    ipv6: bool = False
    config_only: bool = False
    config_from: str = ""
    ipam_options: dict[str, str] | None = None
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    phase: str = ""

    @property
    def ranges(self) -> list[str]:
        """Its subnets, as CIDR."""
        return [subnet.cidr for subnet in self.subnets]

    @property
    def gateways(self) -> list[str]:
        """The addresses by which its containers leave it, with prefix length."""
        return [f"{s.gateway}/{s.prefix_length}" for s in self.subnets if s.gateway]

    @property
    def user_defined(self) -> bool:
        """Whether it was made by a user; containers of such ones know each other by name."""
        return self.name not in PREDEFINED and self.name != POD_NETWORK

    def to_document(self) -> dict[str, Any]:
        """What is kept on disk."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Network:
        """The network that ``to_document`` described."""
        values = dict(document)
        for ranges in ("subnets", "unused"):
            values[ranges] = [Subnet(**subnet) for subnet in values.get(ranges, ())]
        return cls(**values)


def first_address(cidr: str) -> str:
    """The first address of a range that a host may have."""
    network = ipaddress.ip_network(cidr)
    return str(network.network_address + (1 if network.num_addresses > 1 else 0))


def bridge_network(name: str, bridge: str, *ranges: str) -> Network:
    """A network on a bridge, whose first addresses are the gateways."""
    subnets = [Subnet(cidr, first_address(cidr)) for cidr in ranges]
    versions = {subnet.version for subnet in subnets}
    return Network(
        name, "bridge", subnets=subnets, link=bridge, ipv4=4 in versions, ipv6=6 in versions
    )


def default_networks(bridge: str, subnet: str) -> list[Network]:
    """The three networks that are always there."""
    default = bridge_network(DEFAULT, bridge, subnet)
    default.options = {
        f"{BRIDGE_PREFIX}default_bridge": "true",
        f"{BRIDGE_PREFIX}enable_icc": "true",
        f"{BRIDGE_PREFIX}enable_ip_masquerade": "true",
        f"{BRIDGE_PREFIX}host_binding_ipv4": "0.0.0.0",
        f"{BRIDGE_PREFIX}name": bridge,
        MTU: "1500",
    }
    return [default, Network("host", "host"), Network("none", "null")]


def _ipam(network: Network) -> dict[str, Any]:
    shown = []
    for subnet in sorted([*network.subnets, *network.unused], key=lambda s: s.version):
        entry: dict[str, Any] = {"Subnet": subnet.cidr}
        if subnet.ip_range:
            entry["IPRange"] = subnet.ip_range
        if subnet.gateway:
            entry["Gateway"] = subnet.gateway
        if subnet.auxiliary:
            entry["AuxiliaryAddresses"] = subnet.auxiliary
        shown.append(entry)
    return {"Driver": "default", "Options": network.ipam_options, "Config": shown or None}


def inspect(network: Network, containers: Iterable[Container] | None) -> dict[str, Any]:
    """NetworkInspect of the API; without ``containers``, as in the list of networks."""
    shown: dict[str, Any] = {
        "Name": network.name,
        "Id": network.id,
        "Created": timestamp(network.created_at),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": network.ipv4,
        "EnableIPv6": network.ipv6,
        "IPAM": _ipam(network),
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": network.config_from},
        "ConfigOnly": network.config_only,
        "Containers": {},
        "Options": network.options,
        "Labels": network.labels,
    }
    for container in containers or ():
        endpoint = container.endpoints.get(network.name)
        if endpoint is None or not endpoint.connected:
            continue
        shown["Containers"][container.id] = {
            "Name": container.name,
            "EndpointID": endpoint.endpoint_id,
            "MacAddress": endpoint.mac_address,
            "IPv4Address": _cidr(endpoint.address, endpoint.prefix_length),
            "IPv6Address": _cidr(endpoint.address6, endpoint.prefix_length6),
        }
    return shown


def _cidr(address: str, prefix_length: int) -> str:
    return f"{address}/{prefix_length}" if address else ""
