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


@dataclass(slots=True)
class Network:
    """A network. ``subnet``, ``gateway`` and ``bridge`` are empty for host and none."""

    name: str
    driver: str
    id: str = field(default_factory=lambda: secrets.token_hex(32))
    created_at: int = field(default_factory=time.time_ns)  # nanoseconds since the epoch
    subnet: str = ""
    gateway: str = ""
    bridge: str = ""
    internal: bool = False
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def prefix_length(self) -> int:
        return ipaddress.ip_network(self.subnet).prefixlen

    @property
    def gateway_cidr(self) -> str:
        """The address of the bridge itself."""
        return f"{self.gateway}/{self.prefix_length}"

    def to_document(self) -> dict[str, Any]:
        """What is kept on disk."""
        return asdict(self)


def bridge_network(name: str, bridge: str, subnet: str) -> Network:
    """A network on a bridge, whose first address is the gateway."""
    first = next(ipaddress.ip_network(subnet).hosts())
    return Network(name, "bridge", subnet=subnet, gateway=str(first), bridge=bridge)


def default_networks(bridge: str, subnet: str) -> list[Network]:
    """The three networks that are always there."""
    default = bridge_network("bridge", bridge, subnet)
    default.options = {
        "com.docker.network.bridge.default_bridge": "true",
        "com.docker.network.bridge.enable_icc": "true",
        "com.docker.network.bridge.enable_ip_masquerade": "true",
        "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
        "com.docker.network.bridge.name": bridge,
        "com.docker.network.driver.mtu": "1500",
    }
    return [default, Network("host", "host"), Network("none", "null")]


def mac_address(address: str) -> str:
    """The hardware address that Docker derives from an IPv4 address."""
    return "02:42:" + ":".join(f"{part:02x}" for part in ipaddress.ip_address(address).packed)


def inspect(network: Network, containers: Iterable[Container] | None) -> dict[str, Any]:
    """NetworkInspect of the API; without ``containers``, as in the list of networks."""
    configuration = [{"Subnet": network.subnet, "Gateway": network.gateway}]
    shown: dict[str, Any] = {
        "Name": network.name,
        "Id": network.id,
        "Created": timestamp(network.created_at),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": configuration if network.subnet else None,
        },
        "Internal": network.internal,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": network.options,
        "Labels": network.labels,
    }
    for container in containers or ():
        endpoint = container.endpoints.get(network.name)
        if endpoint is None or not container.holding or not endpoint.network_id:
            continue
        address = f"{endpoint.address}/{endpoint.prefix_length}" if endpoint.address else ""
        shown["Containers"][container.id] = {
            "Name": container.name,
            "EndpointID": endpoint.endpoint_id,
            "MacAddress": endpoint.mac_address,
            "IPv4Address": address,
            "IPv6Address": "",
        }
    return shown
