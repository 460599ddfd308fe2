"""Which names a Service has, and what they mean. Pure functions.

(Kubernetes DNS specification 1.1, sections 2.3 to 2.6)
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.endpoint_slices import is_ready

Object = dict[str, Any]

_LONGEST_LABEL = 63


@dataclass(frozen=True, slots=True)
class Target:
    """Where a port of a Service is: the name of a host, and the port there."""

    name: str
    port: int


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one name; a name may be known and have nothing."""

    addresses: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()
    alias: str = ""
    """The name it stands for, outside of the zone or in it."""
    weight: int = 0
    """Of each target (RFC 2782)."""


NOTHING = Entry()


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Endpoints whose ports have the same numbers."""

    ports: tuple[int, ...]
    addresses: dict[str, tuple[str, ...]]
    """By the one label that stands before the Service's name."""


@dataclass(frozen=True, slots=True)
class Described:
    """What one Service brings into the zone. Names are in small letters, without a final dot.

    What it says of an endpoint is worked out when somebody asks, so that endpoints cost little more
    than their text where they are many.
    """

    entries: dict[str, Entry]
    pointers: dict[str, str]
    """The names of its own addresses."""
    endpoints: tuple[Endpoints, ...] = ()
    hosts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The labels that endpoints have besides the one that says their address, by the address."""

    def addresses(self) -> set[str]:
        """Of its endpoints."""
        each = (group.addresses.values() for group in self.endpoints)
        return set(chain.from_iterable(chain.from_iterable(each)))

    def endpoint(self, label: str, name: str) -> Entry | None:
        """What is known of ``label.name``, where ``name`` is the Service's; None: no such."""
        addresses: dict[str, None] = {}
        ports: dict[int, None] = {}
        pairs = 0
        for group in self.endpoints:
            if found := group.addresses.get(label):
                addresses |= dict.fromkeys(found)
                ports |= dict.fromkeys(group.ports)
                pairs += len(found) * len(group.ports)
        if not addresses:
            return None
        host = f"{label}.{name}"
        targets = tuple(Target(host, port) for port in ports)
        return Entry(tuple(addresses), targets, weight=_weight(pairs))

    def labels(self, address: str) -> Iterator[str]:
        """The labels of the endpoint that has ``address``: its host name is the first."""
        yield from self.hosts.get(address, ())
        label = _dashed(address)
        if any(address in group.addresses.get(label, ()) for group in self.endpoints):
            yield label


def describe(service: Object, slices: Iterable[Object], domain: str) -> Described:
    """The names of ``service``, whose endpoints are in ``slices``, below ``domain``."""
    spec = service.get("spec") or {}
    name = f"{meta.name(service)}.{meta.namespace(service)}.svc.{domain}".lower()
    if spec.get("type") == "ExternalName":
        alias = (spec.get("externalName") or "").rstrip(".").lower()
        return Described({name: Entry(alias=alias)} if _can_be_asked(alias) else {}, {})
    if spec.get("clusterIP") == "None":
        return _headless(name, list(slices))
    addresses = [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP")] if ip]
    if not addresses:
        return Described({}, {})
    entries: dict[str, Entry] = {}
    ports: dict[Target, None] = {}
    for port in spec.get("ports") or ():
        target = Target(name, port["port"])
        ports[target] = None
        _put_port(entries, name, port, [target], len(addresses))
    pairs = len(addresses) * len(spec.get("ports") or ())
    entries[name] = Entry(tuple(addresses), tuple(ports), weight=_weight(pairs))
    pointers = {_normal(address): name for address in addresses}
    return Described(entries, pointers, *_endpoints(slices))


def _headless(name: str, slices: list[Object]) -> Described:
    """All ready endpoints share the Service's name."""
    # (Dicts for their keys: sets that keep the order in which they were made.)
    everyone: dict[str, None] = {}
    ports: dict[tuple[str, str], _Targets] = {}
    for slice_ in slices:
        numbers = [
            (ports.setdefault(_port_key(port), _Targets(port)), number)
            for port in slice_.get("ports") or ()
            if (number := port.get("port"))
        ]
        for label, address, _ in _ready(slice_):
            everyone[address] = None
            for targets, number in numbers:
                targets.add(Target(f"{label}.{name}", number))
    if not everyone:
        return Described({}, {})  # without endpoints there is no such name
    entries: dict[str, Entry] = {}
    for targets in ports.values():
        if targets.found:
            _put_port(entries, name, targets.port, targets.found, targets.pairs)
    everywhere = dict.fromkeys(chain.from_iterable(targets.found for targets in ports.values()))
    pairs = sum(targets.pairs for targets in ports.values())
    entries[name] = Entry(tuple(everyone), tuple(everywhere), weight=_weight(pairs))
    return Described(entries, {}, *_endpoints(slices))


class _Targets:
    """Where a port of a headless Service is, and of how many addresses that was said."""

    def __init__(self, port: Object) -> None:
        self.port = port
        self.found: dict[Target, None] = {}
        self.pairs = 0

    def add(self, target: Target) -> None:
        self.found[target] = None
        self.pairs += 1


def _endpoints(
    slices: Iterable[Object],
) -> tuple[tuple[Endpoints, ...], dict[str, tuple[str, ...]]]:
    """The ready endpoints, and what hosts they are."""
    groups: dict[tuple[int, ...], dict[str, tuple[str, ...]]] = {}
    hosts: dict[str, tuple[str, ...]] = {}
    for slice_ in slices:
        ports = slice_.get("ports") or ()
        labels = groups.setdefault(tuple(port["port"] for port in ports if port.get("port")), {})
        for label, address, says_address in _ready(slice_):
            known = labels.get(label)
            if known is None:
                labels[label] = (address,)
            elif address not in known:
                labels[label] = (*known, address)
            if not says_address and label not in (others := hosts.get(address, ())):
                hosts[address] = tuple(sorted((*others, label)))
    found = tuple(Endpoints(numbers, labels) for numbers, labels in groups.items() if labels)
    return found, hosts


def _put_port(
    entries: dict[str, Entry], name: str, port: Object, targets: Iterable[Target], pairs: int
) -> None:
    """The name of a port, ``_http._tcp.name``; the one above it exists and has nothing."""
    label, protocol = _port_key(port)
    if label:
        above = f"_{protocol}.{name}".lower()
        entries.setdefault(above, NOTHING)
        entries[f"_{label}.{above}".lower()] = Entry(targets=tuple(targets), weight=_weight(pairs))


def _port_key(port: Object) -> tuple[str, str]:
    return port.get("name") or "", port.get("protocol") or "TCP"


def _weight(pairs: int) -> int:
    """Of each of so many pairs of an address and a port, as CoreDNS deals 100 out to them."""
    return max(1, 100 // pairs) if pairs else 0


def _can_be_asked(alias: str) -> bool:
    """The API lets more pass: labels that fit no question (RFC 1035, section 2.3.4), addresses."""
    labels = alias.split(".")
    return all(0 < len(label) <= _LONGEST_LABEL for label in labels) and not labels[-1].isdigit()


def _ready(slice_: Object) -> Iterator[tuple[str, str, bool]]:
    """Each address of the ready endpoints: its label, itself, and whether the label says it.

    The label is the endpoint's host name, or the address as the slice has it, with dashes.
    """
    if slice_.get("addressType") != "FQDN":
        for endpoint in slice_.get("endpoints") or ():
            if is_ready(endpoint):
                host = endpoint.get("hostname")
                for text in endpoint.get("addresses") or ():
                    address = _normal(text)
                    dashed = _dashed(address)
                    label = host or (dashed if text == address else _dashed(text))
                    label = label.lower()
                    yield label, address, label == dashed


def _dashed(address: str) -> str:
    return address.replace(".", "-").replace(":", "-")


def _normal(address: str) -> str:
    return str(ipaddress.ip_address(address)) if ":" in address else address


def address_in_label(label: str) -> str | None:
    """The address that a pod's name says (``10-1-2-3``), None where it says none."""
    if "%" in label:
        return None  # an address with a scope is known on its own machine alone
    for text in (label.replace("-", "."), label.replace("-", ":")):
        try:
            return str(ipaddress.ip_address(text))
        except ValueError:
            continue
    return None
