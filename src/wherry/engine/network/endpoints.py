"""A container's places on networks, as requests ask for them and as the API shows them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from wherry.engine.container.container import Container, Endpoint
from wherry.engine.container.options import BOOL, INT, OBJECT, STRING, STRING_MAP, STRINGS, decode
from wherry.engine.errors import BadParameter
from wherry.engine.network.network import Network, is_user_defined

# EndpointSettings of the API, as far as a client may set them.
SETTINGS: Mapping[str, tuple[str, Any]] = {
    "IPAMConfig": (OBJECT, {}),
    "Links": (STRINGS, []),
    "Aliases": (STRINGS, []),
    "MacAddress": (STRING, ""),
    "DriverOpts": (STRING_MAP, {}),
    "GwPriority": (INT, 0),
}
IPAM: Mapping[str, tuple[str, Any]] = {
    "IPv4Address": (STRING, ""),
    "IPv6Address": (STRING, ""),
    "LinkLocalIPs": (STRINGS, []),
}
# Bodies of /networks/{id}/connect and /disconnect.
CONNECT: Mapping[str, tuple[str, Any]] = {
    "Container": (STRING, ""),
    "EndpointConfig": (OBJECT, None),
}
DISCONNECT: Mapping[str, tuple[str, Any]] = {"Container": (STRING, ""), "Force": (BOOL, False)}

SYSCTLS = "com.docker.network.endpoint.sysctls"
INTERFACE_NAME = "com.docker.network.endpoint.ifname"
# Bits a second that go to and come from a container, for those of pods.
INGRESS_RATE, EGRESS_RATE = "wherry.endpoint.ingress-rate", "wherry.endpoint.egress-rate"

_MAC = re.compile(r"[0-9a-fA-F]{2}([:-])[0-9a-fA-F]{2}(\1[0-9a-fA-F]{2}){4}")


def parse(name: str, settings: Any) -> Endpoint:
    """The endpoint that ``settings`` ask for on network ``name``; its values are not judged yet.

    Raises:
        BadParameter: a field is of another type.
    """
    given = decode(SETTINGS, settings, "EndpointSettings")
    ipam = decode(IPAM, given["IPAMConfig"], "EndpointIPAMConfig")
    return Endpoint(
        name,
        aliases=list(given["Aliases"]),
        links=list(given["Links"]),
        options=dict(given["DriverOpts"]),
        gateway_priority=given["GwPriority"],
        wanted_address=ipam["IPv4Address"],
        wanted_address6=ipam["IPv6Address"],
        link_local=[address for address in ipam["LinkLocalIPs"] if address],
        wanted_mac=given["MacAddress"],
    )


def requested(
    wanted: Mapping[str, Any],
    mode: str,
    mac: str,
    find: Callable[[str], Network | None],
) -> dict[str, Endpoint]:
    """The endpoints of a new container, by network name, that of its network mode first.

    ``wanted`` are EndpointsConfig of the request; ``mac`` is the one asked for in the old way, for
    the first. A network that is not there may come before the container starts.

    Raises:
        BadParameter: an endpoint makes no sense.
    """
    if mode.startswith("container:"):
        return {}
    found = find(mode)
    first = found.name if found else mode
    endpoints = {first: Endpoint(first)}
    for reference, settings in wanted.items():
        network = find(mode if reference == "default" else reference)
        name = network.name if network else reference
        endpoints[name] = parse(name, settings)
        judge(endpoints[name], network, configured=False)
    if mac and not endpoints[first].wanted_mac:
        endpoints[first].wanted_mac = mac
        judge(endpoints[first], found, configured=False)
    check_together([find(name) for name in endpoints])
    return endpoints


def check_together(networks: Sequence[Network | None]) -> None:
    """Whether one container may be on all of them.

    Raises:
        BadParameter: one of them goes with no other.
    """
    drivers = {network.driver for network in networks if network}
    if len(networks) < 2:
        return
    if "host" in drivers:
        raise BadParameter(
            "container sharing network namespace with another container or host cannot be "
            "connected to any other network"
        )
    if "null" in drivers:
        raise BadParameter(
            "container cannot be connected to multiple networks with one of the networks in "
            "private (none) mode"
        )


def rates(endpoint: Endpoint) -> tuple[int, int]:
    """Bits a second to and from the container; 0: as many as go.

    Raises:
        BadParameter: an option is no such number.
    """
    given = [endpoint.options.get(name) or "0" for name in (INGRESS_RATE, EGRESS_RATE)]
    for text in given:
        if not text.isascii() or not text.isdigit():
            raise BadParameter(f"{text!r} is no number of bits a second")
    return int(given[0]), int(given[1])


def judge(endpoint: Endpoint, network: Network | None, *, configured: bool = True) -> None:
    """Judge what an endpoint asks for; with ``configured``, also against the network's ranges.

    Raises:
        BadParameter: something of it cannot be had.
    """
    problems: list[str] = []
    if not is_user_defined(network.name if network else endpoint.network):
        if endpoint.wanted_address or endpoint.wanted_address6:
            problems.append("user specified IP address is supported on user defined networks only")
        if endpoint.aliases:
            problems.append(
                "network-scoped alias is supported only for containers in user defined networks"
            )
    for address, version in ((endpoint.wanted_address, 4), (endpoint.wanted_address6, 6)):
        if address and not _is_address(address, version):
            problems.append(f"invalid IPv{version} address: {address}")
        elif address and network is not None and configured:
            problems += _out_of_range(address, version, network)
    problems += [
        f"invalid link-local IP address: {address}"
        for address in endpoint.link_local
        if not (_is_address(address, 4) or _is_address(address, 6))
    ]
    for address in endpoint.link_local if not problems else ():
        if not ipaddress.ip_address(address).is_link_local:
            raise BadParameter(f"invalid link local IP address: {address}")
    if endpoint.wanted_mac and not _MAC.fullmatch(endpoint.wanted_mac):
        raise BadParameter(f"invalid MAC address {endpoint.wanted_mac}")
    for sysctl in filter(None, endpoint.options.get(SYSCTLS, "").split(",")):
        words = sysctl.split(".", 4)
        if (
            len(words) != 5
            or words[1] not in ("ipv4", "ipv6", "mpls")
            or words[3] not in ("IFNAME", "ifname")
        ):
            problems.append(
                f"unrecognised network interface sysctl '{sysctl}'; represent 'net.X.Y.ethN.Z=V' "
                "as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
            )
    if problems:
        raise BadParameter(f"invalid endpoint settings:\n{joined(problems)}")


def joined(problems: Sequence[str]) -> str:
    """Several errors as one text, as Docker joins them."""
    if len(problems) == 1:
        return problems[0]
    return "\n".join(f"* {problem}" for problem in problems)


def _is_address(text: str, version: int) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return False
    return address.version == version and not address.is_unspecified and "%" not in text


def _out_of_range(address: str, version: int, network: Network) -> list[str]:
    given = [*network.subnets, *network.unused]
    own = [s for s in given if s.version == version and not s.chosen]
    if not own:
        return [
            "user specified IP address is supported only when connecting to networks with user "
            "configured subnets"
        ]
    if any(address in subnet for subnet in own):
        return []
    return [f"no configured subnet or ip-range contain the IP address {address}"]


def dns_names(container: Container, endpoint: Endpoint) -> list[str]:
    """By which names others on the same user-defined network find it; the first is the PTR's."""
    hostname = str(container.config["Hostname"])
    names = [container.name, *endpoint.aliases, container.id[:12], hostname]
    return list(dict.fromkeys(filter(None, names)))


def sysctls(endpoint: Endpoint) -> dict[str, str]:
    """The parameters asked for, as paths below ``net/``, with their values."""
    found = {}
    for sysctl in filter(None, endpoint.options.get(SYSCTLS, "").split(",")):
        name, _, value = sysctl.partition("=")
        words = name.split(".")
        words[3] = endpoint.interface
        found["/".join(words[1:])] = value
    return found


def in_gateway_order(
    endpoints: Iterable[Endpoint], find: Callable[[str], Network | None]
) -> list[Endpoint]:
    """The endpoints, the best way out first.

    The highest priority that a user gave; then what leads outside at all; then what leads there in
    both versions of IP; then by name.
    """

    def rank(endpoint: Endpoint) -> tuple[int, bool, int, str]:
        network = find(endpoint.network)
        internal = network is not None and network.internal
        ways = bool(endpoint.gateway) + bool(endpoint.gateway6)
        return -endpoint.gateway_priority, internal, -ways, endpoint.network

    return sorted(endpoints, key=rank)


def inspect(endpoint: Endpoint, container: Container | None = None) -> dict[str, Any]:
    """EndpointSettings of the API; with the names of ``container`` where they are known."""
    wanted: dict[str, Any] = {}
    if endpoint.wanted_address:
        wanted["IPv4Address"] = endpoint.wanted_address
    if endpoint.wanted_address6:
        wanted["IPv6Address"] = endpoint.wanted_address6
    if endpoint.link_local:
        wanted["LinkLocalIPs"] = endpoint.link_local
    known = container is not None and is_user_defined(endpoint.network)
    asked = any((wanted, endpoint.links, endpoint.aliases, endpoint.options))
    return {
        "IPAMConfig": wanted or ({} if asked else None),
        "Links": endpoint.links or None,
        "Aliases": endpoint.aliases or None,
        "MacAddress": endpoint.mac_address or endpoint.wanted_mac,
        "DriverOpts": endpoint.options or None,
        "GwPriority": endpoint.gateway_priority,
        "NetworkID": endpoint.network_id,
        "EndpointID": endpoint.endpoint_id,
        "Gateway": endpoint.gateway,
        "IPAddress": endpoint.address,
        "IPPrefixLen": endpoint.prefix_length,
        "IPv6Gateway": endpoint.gateway6,
        "GlobalIPv6Address": endpoint.address6,
        "GlobalIPv6PrefixLen": endpoint.prefix_length6,
        "DNSNames": dns_names(container, endpoint) if known and container else None,
    }
