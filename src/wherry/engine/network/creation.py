"""From the body of a request to a network that could be made: what it asks for, judged."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import Any

from wherry.engine.container.options import BOOL, OBJECT, OBJECTS, STRING, STRING_MAP, decode
from wherry.engine.errors import BadParameter, Forbidden, NotFound
from wherry.engine.network.endpoints import joined
from wherry.engine.network.network import Network, Subnet, is_user_defined

# NetworkCreateRequest of the API. CheckDuplicate is always so, whatever old clients say.
REQUEST: Mapping[str, tuple[str, Any]] = {
    "Name": (STRING, ""),
    "CheckDuplicate": (BOOL, True),
    "Driver": (STRING, ""),
    "Scope": (STRING, ""),
    "EnableIPv4": (BOOL, None),
    "EnableIPv6": (BOOL, None),
    "IPAM": (OBJECT, None),
    "Internal": (BOOL, False),
    "Attachable": (BOOL, False),
    "Ingress": (BOOL, False),
    "ConfigOnly": (BOOL, False),
    "ConfigFrom": (OBJECT, {}),
    "Options": (STRING_MAP, {}),
    "Labels": (STRING_MAP, {}),
}
_IPAM: Mapping[str, tuple[str, Any]] = {
    "Driver": (STRING, ""),
    "Options": (STRING_MAP, None),
    "Config": (OBJECTS, []),
}
_IPAM_CONFIG: Mapping[str, tuple[str, Any]] = {
    "Subnet": (STRING, ""),
    "IPRange": (STRING, ""),
    "Gateway": (STRING, ""),
    "AuxiliaryAddresses": (STRING_MAP, {}),
}
_ENABLE_IPV4 = "com.docker.network.enable_ipv4"
_ENABLE_IPV6 = "com.docker.network.enable_ipv6"
_IPAM_DRIVERS = ("", "default", "null")


def decode_request(body: Any) -> dict[str, Any]:
    """The fields of a request.

    Raises:
        BadParameter: one of them is of another type.
    """
    if not isinstance(body, dict):
        raise BadParameter("invalid JSON: not an object")
    return decode(REQUEST, body, "CreateRequest")


def draft(request: Mapping[str, Any], find: Callable[[str], Network | None]) -> Network:
    """The network that ``request`` asks for; the ranges it leaves to us are still missing.

    ``find`` knows the networks that are there, by name.

    Raises:
        Forbidden: the name is taken by Docker itself, or options do not go together.
        BadParameter: the request makes no sense.
        Conflict: (not here, but where the name is claimed).
        NotFound: it takes its configuration from a network that is not there.
    """
    name = request["Name"]
    if name and not is_user_defined(name):
        raise Forbidden(f"operation is not permitted on predefined {name} network ")
    driver = request["Driver"] or "bridge"
    if driver == "overlay":
        raise Forbidden(
            'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to '
            "connect this node to swarm and try again."
        )
    network = Network(
        name,
        driver,
        internal=request["Internal"],
        attachable=request["Attachable"],
        ipv4=_enabled(request, "EnableIPv4", _ENABLE_IPV4, default=True),
        ipv6=_enabled(request, "EnableIPv6", _ENABLE_IPV6, default=False),
        config_only=request["ConfigOnly"],
        config_from=str(request["ConfigFrom"].get("Network") or ""),
        options=dict(request["Options"]),
        labels=dict(request["Labels"]),
    )
    ipam = decode(_IPAM, request["IPAM"], "IPAM")
    network.ipam_options = ipam["Options"]
    network.subnets = _subnets(ipam["Config"], ipv6=network.ipv6)
    if not name.strip():
        raise BadParameter("invalid name: name is empty")
    _check_references(network, request, ipam)
    if network.config_only:
        network.driver = "null"
        return network
    if ipam["Driver"] not in _IPAM_DRIVERS:
        raise NotFound(f'plugin "{ipam["Driver"]}" not found')
    if network.config_from:
        _take_configuration(network, find)
    if request["Ingress"]:
        raise Forbidden("Ingress network can only be global scope network")
    if request["Scope"] not in ("", "local"):
        raise Forbidden("cannot create a swarm scoped network when swarm is not active")
    if not network.ipv4 and not network.ipv6:
        raise BadParameter("IPv4 or IPv6 must be enabled")
    versions = {4: network.ipv4, 6: network.ipv6}
    network.unused = [subnet for subnet in network.subnets if not versions[subnet.version]]
    network.subnets = [subnet for subnet in network.subnets if versions[subnet.version]]
    return network


def _enabled(request: Mapping[str, Any], field: str, option: str, *, default: bool) -> bool:
    if request[field] is not None:
        return bool(request[field])
    if option not in request["Options"]:
        return default
    try:
        return parse_bool(request["Options"][option])
    except ValueError:
        raise BadParameter(f'driver-opt "{option}" is not a valid bool') from None


def parse_bool(text: str) -> bool:
    """A truth as Go's strconv.ParseBool reads it.

    Raises:
        ValueError: it is none; in the words of Go.
    """
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def _check_references(
    network: Network, request: Mapping[str, Any], ipam: Mapping[str, Any]
) -> None:
    if network.config_only and (
        request["Ingress"] or network.internal or network.attachable or request["Scope"]
    ):
        raise Forbidden(
            "configuration network can only contain network specific fields. Network operator "
            "fields like [ ingress | internal | attachable | scope ] are not supported."
        )
    if not network.config_from:
        return
    if network.config_only:
        raise Forbidden("a configuration network cannot depend on another configuration network")
    if (
        ipam["Driver"] not in ("", "default")
        or network.ipv6
        or network.labels
        or network.ipam_options
        or network.subnets
    ):
        raise Forbidden(
            "user specified configurations are not supported if the network depends on a "
            "configuration network"
        )
    if network.options:
        raise Forbidden(
            "network driver options are not supported if the network depends on a "
            "configuration network"
        )


def _take_configuration(network: Network, find: Callable[[str], Network | None]) -> None:
    source = find(network.config_from)
    if source is None or not source.config_only:
        raise NotFound(f'configuration network "{network.config_from}" does not exist')
    network.ipv4, network.ipv6 = source.ipv4, source.ipv6
    network.labels, network.options = dict(source.labels), dict(source.options)
    network.ipam_options = source.ipam_options
    network.subnets = [
        Subnet(s.cidr, s.gateway, s.ip_range, dict(s.auxiliary)) for s in source.subnets
    ]


# ---- ranges


def _subnets(entries: list[Any], *, ipv6: bool) -> list[Subnet]:
    """The ranges given by the user.

    Raises:
        BadParameter: all that is wrong with them.
    """
    problems: list[str] = []
    found: list[Subnet] = []
    for entry in entries:
        given = decode(_IPAM_CONFIG, entry, "IPAMConfig")
        try:
            network = _network(given["Subnet"])
        except ValueError:
            problems.append(f"invalid subnet {given['Subnet']}: invalid CIDR block notation")
            continue
        subnet = Subnet(
            given["Subnet"], given["Gateway"], given["IPRange"], given["AuxiliaryAddresses"]
        )
        if network.version == 4 or ipv6:
            problems += _problems(subnet, network)
        found.append(subnet)
    if problems:
        raise BadParameter(f"invalid network config:\n{joined(problems)}")
    for subnet in found:
        subnet.cidr = str(_network(subnet.cidr))
    return found


_Range = ipaddress.IPv4Network | ipaddress.IPv6Network


def _network(text: str) -> _Range:
    if "/" not in text or not text.rpartition("/")[2].isdigit():
        raise ValueError(text)
    return ipaddress.ip_network(text, strict=False)


def _problems(subnet: Subnet, network: _Range) -> list[str]:
    problems = []
    family = f"IPv{network.version}"
    if str(ipaddress.ip_interface(subnet.cidr)) != str(network):
        problems.append(f"invalid subnet {subnet.cidr}: it should be {network}")
    if subnet.ip_range:
        problems += _range_problems(subnet.ip_range, network, family)
    if subnet.gateway and (why := _address_problem(subnet.gateway, network, family)):
        problems.append(f"invalid gateway {subnet.gateway}: {why}")
    for name, address in subnet.auxiliary.items():
        if why := _address_problem(address, network, family):
            problems.append(f"invalid auxiliary address {name}: {why}")
    return problems


def _range_problems(text: str, network: _Range, family: str) -> list[str]:
    try:
        part = _network(text)
    except ValueError:
        return [f"invalid ip-range {text}: invalid CIDR block notation"]
    if part.version != network.version:
        return [f"invalid ip-range {text}: parent subnet is an {family} block"]
    problems = []
    if part.prefixlen < network.prefixlen:
        problems.append(
            f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {network}"
        )
    if str(ipaddress.ip_interface(text)) != str(part):
        problems.append(f"invalid ip-range {text}: it should be {part}")
    if not network.overlaps(part):
        problems.append(
            f"invalid ip-range {text}: parent subnet {network} doesn't contain ip-range"
        )
    return problems


def _address_problem(text: str, network: _Range, family: str) -> str:
    if not text:
        return ""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return "invalid address"
    if address.version != network.version:
        return f"parent subnet is an {family} block"
    if address not in network:
        return f"parent subnet {network} doesn't contain this address"
    return ""
