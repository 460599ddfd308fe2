"""Checks of a name, an address or a port that sits at a path: the messages of ``kube.api.names`` as
field errors. They add what they find to ``faults``, so that the ordinary case builds no lists.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wherry.kube.api import names
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import fields

Faults = list[FieldError]

PROTOCOLS = ("SCTP", "TCP", "UDP")

_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"
_BAD_IP = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
_BAD_CIDR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"


def check(rule: Callable[[str], Sequence[str]], value: str, path: str, faults: Faults) -> None:
    """Add each complaint of ``rule`` about the value."""
    for message in rule(value):
        faults.append(fields.invalid(path, value, message))


def dns_label(value: str, path: str, faults: Faults) -> None:
    """An RFC 1123 label."""
    check(names.is_dns1123_label, value, path, faults)


def dns_subdomain(value: str, path: str, faults: Faults) -> None:
    """An RFC 1123 subdomain, as most names of objects are."""
    check(names.is_dns1123_subdomain, value, path, faults)


def qualified_name(value: str, path: str, faults: Faults) -> None:
    """A label key, a finalizer, a condition type."""
    check(names.is_qualified_name, value, path, faults)


def labels(values: Mapping[str, str], path: str, faults: Faults) -> None:
    """Label keys and values; the path stands for the whole map, as upstream has it."""
    for key, value in values.items():
        check(names.is_qualified_name, key, path, faults)
        check(names.is_label_value, value, path, faults)


def label_value(value: str, path: str, faults: Faults) -> None:
    """One label value; all complaints in one fault."""
    if messages := names.is_label_value(value):
        faults.append(fields.invalid(path, value, ";".join(messages)))


def domain_path(value: str, path: str, faults: Faults) -> None:
    """A domain, a slash and a path: the name of a controller."""
    domain, slash, rest = value.partition("/")
    if not value:
        faults.append(fields.required(path))
    elif not slash or not domain or not rest:
        why = 'must be a domain-prefixed path (such as "acme.io/foo")'
        faults.append(fields.invalid(path, value, why))
    else:
        check(names.is_dns1123_subdomain, domain, path, faults)
        if not re.fullmatch(_PATH, rest):
            why = names.regex_error("Invalid path", _PATH)
            faults.append(fields.invalid(path, rest, why))


def port_number(value: int, path: str, faults: Faults) -> None:
    """1 to 65535."""
    if not 1 <= value <= 65535:
        faults.append(fields.invalid(path, value, fields.between(1, 65535)))


def port(value: int | str, path: str, faults: Faults) -> None:
    """A port by number or by name."""
    if isinstance(value, str):
        check(names.is_port_name, value, path, faults)
    else:
        port_number(value, path, faults)


def protocol(value: str | None, path: str, faults: Faults) -> None:
    """TCP, UDP or SCTP."""
    if not value:
        faults.append(fields.required(path))
    elif value not in PROTOCOLS:
        faults.append(fields.not_supported(path, value, PROTOCOLS))


def one_of(
    value: str | None, supported: Sequence[str], path: str, faults: Faults, *, needed: bool = True
) -> None:
    """A value of an enumeration; absent is a fault if it is ``needed``."""
    if value in supported:
        return
    if not value:
        if needed:
            faults.append(fields.required(path))
    else:
        faults.append(fields.not_supported(path, value, supported))


def parse_ip(value: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address, or None where the text is none, or one with a scope."""
    try:
        return None if "%" in value else ipaddress.ip_address(value)
    except ValueError:
        return None


def ip(value: str, path: str, faults: Faults) -> bool:
    """An IP address of either family; whether it is one."""
    if parse_ip(value) is not None:
        return True
    faults.append(fields.invalid(path, value, _BAD_IP))
    return False


def ip_of_family(value: str, family: int, path: str, faults: Faults) -> None:
    """An IP address of family 4 or 6."""
    address = parse_ip(value)
    if address is None or address.version != family:
        faults.append(fields.invalid(path, value, f"must be a valid IPv{family} address"))


def cidr(value: str, path: str, faults: Faults) -> None:
    """An address with a prefix length."""
    head, _, bits = value.partition("/")
    address = parse_ip(head)
    valid = bits.isascii() and bits.isdecimal()
    if address is None or not valid or int(bits) > address.max_prefixlen:
        faults.append(fields.invalid(path, value, _BAD_CIDR))


def strict_cidr(value: str, path: str, faults: Faults) -> None:
    """A range: an address with nothing behind its prefix, in its one way of writing."""
    known = len(faults)
    head, slash, length = value.partition("/")
    if not slash or not length.isdecimal():
        faults.append(fields.invalid(path, value, _BAD_CIDR))
        return
    zeros = (len(length) > 1 and length[0] == "0") or (
        ":" not in head and any(len(part) > 1 and part[0] == "0" for part in head.split("."))
    )
    sloppy = ".".join(part.lstrip("0") or "0" for part in head.split(".")) if zeros else head
    cidr(f"{head if ':' in head else sloppy}/{int(length)}", path, faults)
    if len(faults) > known:
        faults[known:] = [fields.invalid(path, value, _BAD_CIDR)]
    elif zeros:
        why = "must not have leading 0s in IP or prefix length"
        faults.append(fields.invalid(path, value, why))
    else:
        network = ipaddress.ip_interface(value).network
        address = ipaddress.ip_interface(value).ip
        if address.version == 6 and address.ipv4_mapped is not None:
            why = "must not have an IPv4-mapped IPv6 address"
            faults.append(fields.invalid(path, value, why))
        elif network.network_address != address:
            why = "must not have bits set beyond the prefix length"
            faults.append(fields.invalid(path, value, why))
        elif str(network) != value:
            faults.append(fields.invalid(path, value, f'must be in canonical form ("{network}")'))


def non_special_ip(value: str, path: str, faults: Faults) -> None:
    """An address that can be that of an endpoint or outside: no loopback, no link-local."""
    address = parse_ip(value)
    if address is None:
        faults.append(fields.invalid(path, value, "must be a valid IP address"))
        return
    if address.is_unspecified:
        faults.append(fields.invalid(path, value, f"may not be unspecified ({value})"))
    if address.is_loopback:
        why = "may not be in the loopback range (127.0.0.0/8, ::1/128)"
        faults.append(fields.invalid(path, value, why))
    if address.is_link_local:
        why = "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
        faults.append(fields.invalid(path, value, why))
    if _is_link_local_multicast(address):
        why = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
        faults.append(fields.invalid(path, value, why))


def _is_link_local_multicast(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    packed = address.packed
    if address.version == 4:
        return packed[:3] == b"\xe0\x00\x00"
    return packed[0] == 0xFF and packed[1] & 0x0F == 2


def one_per_family(values: Sequence[str]) -> bool:
    """Whether there are at most two addresses (or CIDRs), of different families."""
    return len(values) <= 1 or (len(values) == 2 and (":" in values[0]) != (":" in values[1]))


def node_name(value: str, path: str, faults: Faults) -> None:
    """The name of a Node."""
    check(names.is_dns1123_subdomain, value, path, faults)


def ip_list(items: Sequence[Mapping[str, Any]], path: str, faults: Faults) -> None:
    """``podIPs`` or ``hostIPs``: valid, at most one of each family, none twice."""
    values = [item.get("ip", "") for item in items]
    for index, value in enumerate(values):
        ip(value, f"{path}[{index}]", faults)
    if not one_per_family(values):
        why = "may specify no more than one IP for each IP family"
        faults.append(fields.invalid(path, [{"IP": value} for value in values], why))
    for index, value in enumerate(values):
        if value in values[:index]:
            faults.append(fields.duplicate(f"{path}[{index}]", {"IP": value}))
