"""Which names a Service has, and what they mean. Pure functions.

(Kubernetes DNS specification 1.1, sections 2.3 to 2.6)
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
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


NOTHING = Entry()


@dataclass(frozen=True, slots=True)
class Described:
    """What one Service brings into the zone. Names are in small letters, without a final dot."""

    entries: dict[str, Entry]
    pointers: dict[str, str]
    """The names of addresses."""
    endpoints: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The addresses of endpoints, by the one label that stands before the Service's name; where
    they are many, too, they cost little more than their text."""


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
    ports = [
        (port.get("name") or "", port.get("protocol") or "TCP", port["port"])
        for port in spec.get("ports") or ()
    ]
    endpoints: dict[str, tuple[str, ...]] = {}
    for endpoint, address in _ready(slices):
        label = _host(endpoint, address)
        endpoints[label] = (*endpoints.get(label, ()), address)
    entries = {name: Entry(tuple(addresses), tuple(Target(name, number) for _, _, number in ports))}
    for port, protocol, number in ports:
        _put_port(entries, name, port, protocol, [Target(name, number)])
    return Described(entries, {_normal(address): name for address in addresses}, endpoints)


def _headless(name: str, slices: list[Object]) -> Described:
    """Each ready endpoint has a name of its own, and all of them share the Service's."""
    # (Dicts for their keys: sets that keep the order in which they were made.)
    hosts: dict[str, dict[str, None]] = {}
    pointers: dict[str, str] = {}
    ports: dict[tuple[str, str], dict[Target, None]] = {}
    own: dict[str, dict[Target, None]] = {}
    for slice_ in slices:
        numbers = [
            (ports.setdefault((port.get("name") or "", port.get("protocol") or "TCP"), {}), number)
            for port in slice_.get("ports") or ()
            if (number := port.get("port"))
        ]
        for endpoint, address in _ready((slice_,)):
            host = f"{_host(endpoint, address)}.{name}"
            hosts.setdefault(host, {})[address] = None
            pointers.setdefault(_normal(address), host)
            for targets, number in numbers:
                target = Target(host, number)
                targets[target] = own.setdefault(host, {})[target] = None
    if not hosts:
        return Described({}, {})  # without endpoints there is no such name
    everyone = tuple(dict.fromkeys(a for found in hosts.values() for a in found))
    everywhere = tuple(dict.fromkeys(t for found in ports.values() for t in found))
    entries = {name: Entry(everyone, everywhere)}
    for host, found in hosts.items():
        entries[host] = Entry(tuple(found), tuple(own.get(host, ())))
    for (port, protocol), found_targets in ports.items():
        if found_targets:
            _put_port(entries, name, port, protocol, [*found_targets])
    return Described(entries, pointers)


def _put_port(
    entries: dict[str, Entry], name: str, port: str, protocol: str, targets: list[Target]
) -> None:
    """The name of a port, ``_http._tcp.name``; the one above it exists and has nothing."""
    if port:
        above = f"_{protocol}.{name}".lower()
        entries.setdefault(above, NOTHING)
        entries[f"_{port}.{above}".lower()] = Entry(targets=tuple(targets))


def _can_be_asked(alias: str) -> bool:
    """The API lets more pass: labels that fit no question (RFC 1035, section 2.3.4), addresses."""
    labels = alias.split(".")
    return all(0 < len(label) <= _LONGEST_LABEL for label in labels) and not labels[-1].isdigit()


def _ready(slices: Iterable[Object]) -> Iterator[tuple[Object, str]]:
    """The ready endpoints with each of their addresses."""
    for slice_ in slices:
        if slice_.get("addressType") != "FQDN":
            for endpoint in slice_.get("endpoints") or ():
                if is_ready(endpoint):
                    for address in endpoint.get("addresses") or ():
                        yield endpoint, address


def _host(endpoint: Object, address: str) -> str:
    """Its host name; its address with dashes where it has none."""
    name: str = endpoint.get("hostname") or address.replace(".", "-").replace(":", "-")
    return name.lower()


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
