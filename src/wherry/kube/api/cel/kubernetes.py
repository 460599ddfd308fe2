"""Kubernetes' own types in CEL: quantities, URLs, addresses, semantic versions, named formats.

Upstream: k8s.io/apiserver/pkg/cel/library; https://kubernetes.io/docs/reference/using-api/cel/.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from wherry.kube.api import names, quantity
from wherry.kube.api.cel import functions
from wherry.kube.api.cel.conversions import timestamp
from wherry.kube.api.cel.operators import Function
from wherry.kube.api.cel.values import NONE, CELError, Opaque, Optional, Value, no_overload

# ruff: noqa: N802 - methods are named as CEL names them


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise no_overload()
    return str(value)


def _succeeds(make: Callable[[Any], object]) -> Function:
    def test(value: Value, *rest: Value) -> bool:
        _text(value)
        try:
            make(value, *rest)
        except (CELError, ValueError):
            return False
        return True

    return test


class Quantity(Opaque):
    cel_type = "kubernetes.Quantity"

    def __init__(self, value: quantity.Quantity) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)

    def _other(self, other: Value) -> quantity.Quantity:
        if type(other) is int:
            return quantity.from_int(other)
        if not isinstance(other, Quantity):
            raise no_overload()
        return other.value

    def cel_sign(self) -> int:
        return (self.value.nanos > 0) - (self.value.nanos < 0)

    def cel_isInteger(self) -> bool:
        whole, rest = divmod(self.value.nanos, 10**9)
        return rest == 0 and -(2**63) <= whole < 2**63

    def cel_asInteger(self) -> int:
        if not self.cel_isInteger():
            raise CELError("cannot convert value to integer")
        return self.value.nanos // 10**9

    def cel_asApproximateFloat(self) -> float:
        return self.value.nanos / 10**9

    def cel_add(self, other: Value) -> Quantity:
        return Quantity(self.value + self._other(other))

    def cel_sub(self, other: Value) -> Quantity:
        return Quantity(self.value - self._other(other))

    def cel_isGreaterThan(self, other: Value) -> bool:
        return self.value > self._other(other)

    def cel_isLessThan(self, other: Value) -> bool:
        return self.value < self._other(other)

    def cel_compareTo(self, other: Value) -> int:
        there = self._other(other)
        return (self.value > there) - (self.value < there)


def make_quantity(value: Value) -> Quantity:
    return Quantity(quantity.parse(_text(value)))


class URL(Opaque):
    cel_type = "kubernetes.URL"

    def __init__(self, text: str, parts: SplitResult) -> None:
        self.text = text
        self.parts = parts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, URL) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def cel_getScheme(self) -> str:
        return self.parts.scheme

    def cel_getHost(self) -> str:
        return self.parts.netloc.rpartition("@")[2]

    def cel_getHostname(self) -> str:
        return self.parts.hostname or ""

    def cel_getPort(self) -> str:
        port = self.parts.port
        return "" if port is None else str(port)

    def cel_getEscapedPath(self) -> str:
        return self.parts.path

    def cel_getQuery(self) -> dict[str, list[str]]:
        return parse_qs(self.parts.query, keep_blank_values=True)


def make_url(value: Value) -> URL:
    text = _text(value)
    why = f'parse "{text}": invalid URI for request'
    if not text or any(c.isspace() or ord(c) < 32 for c in text):
        raise CELError(why)
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise CELError(why) from None
    if not parts.scheme and not text.startswith("/"):
        raise CELError(why)
    return URL(text, parts)


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class IP(Opaque):
    cel_type = "net.IP"

    def __init__(self, address: _Address) -> None:
        self.address = address

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IP) and self.address == other.address

    def __hash__(self) -> int:
        return hash(self.address)

    def cel_string(self) -> str:
        return str(self.address)

    def cel_family(self) -> int:
        return self.address.version

    def cel_isUnspecified(self) -> bool:
        return self.address.is_unspecified

    def cel_isLoopback(self) -> bool:
        return self.address.is_loopback

    def cel_isLinkLocalMulticast(self) -> bool:
        if self.address.version == 4:
            return self.address in ipaddress.ip_network("224.0.0.0/24")
        return self.address.packed[:1] == b"\xff" and self.address.packed[1] & 0x0F == 2

    def cel_isLinkLocalUnicast(self) -> bool:
        return self.address.is_link_local

    def cel_isGlobalUnicast(self) -> bool:
        a = self.address
        broadcast = str(a) == "255.255.255.255"
        return not (
            a.is_unspecified or a.is_loopback or a.is_multicast or a.is_link_local or broadcast
        )


def make_ip(value: Value) -> IP:
    if isinstance(value, CIDR):
        return value.cel_ip()
    text = _text(value)
    try:
        if "%" in text:
            raise ValueError(text)
        address = ipaddress.ip_address(text)
    except ValueError:
        raise CELError(
            f"IP Address {names.quoted(text)} parse error during conversion from string: "
            f"ParseAddr({names.quoted(text)}): unable to parse IP"
        ) from None
    if address.version == 6 and address.ipv4_mapped is not None:
        raise CELError(f"IPv4-mapped IPv6 address {names.quoted(text)} is not allowed")
    return IP(address)


class CIDR(Opaque):
    cel_type = "net.CIDR"

    def __init__(self, interface: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> None:
        self.interface = interface

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CIDR) and self.interface == other.interface

    def __hash__(self) -> int:
        return hash(self.interface)

    def cel_string(self) -> str:
        return str(self.interface)

    def cel_ip(self) -> IP:
        return IP(ipaddress.ip_address(self.interface.ip))

    def cel_masked(self) -> CIDR:
        return CIDR(ipaddress.ip_interface(str(self.interface.network)))

    def cel_prefixLength(self) -> int:
        return self.interface.network.prefixlen

    def cel_containsIP(self, other: Value) -> bool:
        address = other if isinstance(other, IP) else make_ip(other)
        network: Any = self.interface.network
        return bool(address.address in network)

    def cel_containsCIDR(self, other: Value) -> bool:
        there = (other if isinstance(other, CIDR) else make_cidr(other)).interface.network
        here: Any = self.interface.network
        return here.version == there.version and bool(there.subnet_of(here))


def make_cidr(value: Value) -> CIDR:
    text = _text(value)
    try:
        if "/" not in text or "%" in text:
            raise ValueError(text)
        return CIDR(ipaddress.ip_interface(text))
    except ValueError:
        raise CELError(
            f"network address parse error during conversion from string: "
            f"netip.ParsePrefix({names.quoted(text)}): no '/'"
            if "/" not in text
            else "network address parse error during conversion from string: "
            f"netip.ParsePrefix({names.quoted(text)}): bad address or prefix"
        ) from None


def _is_canonical(value: Value) -> bool:
    return bool(str(make_ip(value).address) == value)


_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?"
)


class Semver(Opaque):
    cel_type = "kubernetes.Semver"

    def __init__(self, numbers: tuple[int, int, int], before: str) -> None:
        self.numbers = numbers
        self.before = before

    @property
    def _rank(self) -> tuple[Any, ...]:
        parts = [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in self.before.split(".")]
        return (*self.numbers, not self.before, parts if self.before else [])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Semver) and self._rank == other._rank

    def __hash__(self) -> int:
        return hash((self.numbers, self.before))

    def cel_major(self) -> int:
        return self.numbers[0]

    def cel_minor(self) -> int:
        return self.numbers[1]

    def cel_patch(self) -> int:
        return self.numbers[2]

    def cel_compareTo(self, other: Value) -> int:
        if not isinstance(other, Semver):
            raise no_overload()
        return (self._rank > other._rank) - (self._rank < other._rank)

    def cel_isLessThan(self, other: Value) -> bool:
        return self.cel_compareTo(other) < 0

    def cel_isGreaterThan(self, other: Value) -> bool:
        return self.cel_compareTo(other) > 0


def make_semver(value: Value, normalize: Value = False) -> Semver:
    text = _text(value)
    if normalize:
        text = text.removeprefix("v")
        core = re.match(r"[\d.]*", text)
        assert core is not None
        numbers = [part.lstrip("0") or "0" for part in core[0].split(".") if part]
        text = ".".join([*numbers, "0", "0"][: max(3, len(numbers))]) + text[core.end() :]
    match = _SEMVER.fullmatch(text)
    if match is None:
        raise CELError(f"No Major.Minor.Patch elements found: {text}")
    major, minor, patch, before, _ = match.groups()
    return Semver((int(major), int(minor), int(patch)), before or "")


class Format(Opaque):
    """A named format, as ``format.dns1123Label()`` gives it."""

    cel_type = "kubernetes.NamedFormat"

    def __init__(self, name: str, check: Callable[[str], list[str]]) -> None:
        self.name = name
        self._check = check

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Format) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def cel_validate(self, value: Value) -> Optional:
        faults = self._check(_text(value))
        return Optional(True, faults) if faults else NONE


def _prefix(check: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """A name that something will be appended to may end in a dash."""
    return lambda value: check(value[:-1] + "a" if value.endswith("-") else value)


def _tried(pattern: str, why: str) -> Callable[[str], list[str]]:
    compiled = re.compile(pattern)
    return lambda value: [] if compiled.fullmatch(value) else [why]


def _uri(value: str) -> list[str]:
    try:
        make_url(value)
    except CELError as error:
        return [str(error)]
    return []


def _made(make: Callable[[str], object]) -> Callable[[str], list[str]]:
    def check(value: str) -> list[str]:
        try:
            make(value)
        except (CELError, ValueError) as error:
            return [str(error)]
        return []

    return check


FORMATS = {
    form.name: form
    for form in (
        Format("dns1123Label", names.is_dns1123_label),
        Format("dns1123Subdomain", names.is_dns1123_subdomain),
        Format("dns1035Label", names.is_dns1035_label),
        Format("qualifiedName", names.is_qualified_name),
        Format("dns1123LabelPrefix", _prefix(names.is_dns1123_label)),
        Format("dns1123SubdomainPrefix", _prefix(names.is_dns1123_subdomain)),
        Format("dns1035LabelPrefix", _prefix(names.is_dns1035_label)),
        Format("labelValue", names.is_label_value),
        Format("uri", _uri),
        Format(
            "uuid",
            _tried(
                r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}",
                "does not match the UUID format",
            ),
        ),
        Format(
            "byte",
            _tried(
                r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?",
                "invalid base64",
            ),
        ),
        Format("date", _tried(r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])", "invalid date")),
        Format("datetime", _made(timestamp)),
    )
}


def _named(name: Value) -> Optional:
    found = FORMATS.get(_text(name))
    return NONE if found is None else Optional(True, found)


def install() -> None:
    """Add all this to CEL's functions."""
    one: dict[str, Function] = {
        "quantity": make_quantity,
        "isQuantity": _succeeds(make_quantity),
        "url": make_url,
        "isURL": _succeeds(make_url),
        "ip": make_ip,
        "isIP": _succeeds(make_ip),
        "cidr": make_cidr,
        "isCIDR": _succeeds(make_cidr),
        "semver": make_semver,
        "isSemver": _succeeds(make_semver),
        "ip.isCanonical": _is_canonical,
        "format.named": _named,
    }
    functions.FUNCTIONS.update(one)
    functions.ARITIES.update((name, 1) for name in one)
    functions.ARITIES.update({("semver", 2), ("isSemver", 2)})
    for form in FORMATS.values():
        functions.FUNCTIONS[f"format.{form.name}"] = lambda form=form: form


install()
