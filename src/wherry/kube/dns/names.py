"""Which names a Service has, and what they mean. Pure functions.

(Kubernetes DNS specification 1.1, sections 2.3 to 2.5)
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from wherry.kube.api import meta

Object = dict[str, Any]


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


def describe(service: Object, slices: Iterable[Object], domain: str) -> Described:
    """The names of ``service``, whose endpoints are in ``slices``, below ``domain``."""
    spec = service.get("spec") or {}
    name = f"{meta.name(service)}.{meta.namespace(service)}.svc.{domain}".lower()
    if spec.get("type") == "ExternalName":
        alias = (spec.get("externalName") or "").rstrip(".").lower()
        return Described({name: Entry(alias=alias)} if alias else {}, {})
    if spec.get("clusterIP") == "None":
        return _headless(name, list(slices))
    addresses = [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP")] if ip]
    if not addresses:
        return Described({}, {})
    ports = [
        (port.get("name") or "", port.get("protocol") or "TCP", port["port"])
        for port in spec.get("ports") or ()
    ]
    entries = {name: Entry(tuple(addresses), tuple(Target(name, number) for _, _, number in ports))}
    for port, protocol, number in ports:
        _put_port(entries, name, port, protocol, [Target(name, number)])
    return Described(entries, {_normal(address): name for address in addresses})


def _headless(name: str, slices: list[Object]) -> Described:
    """Each ready endpoint has a name of its own, and all of them share the Service's."""
    # (Dicts for their keys: sets that keep the order in which they were made.)
    hosts: dict[str, dict[str, None]] = {}
    pointers: dict[str, str] = {}
    ports: dict[tuple[str, str], dict[Target, None]] = {}
    own: dict[str, dict[Target, None]] = {}
    for slice_ in slices:
        if slice_.get("addressType") == "FQDN":
            continue
        numbers = [
            (ports.setdefault((port.get("name") or "", port.get("protocol") or "TCP"), {}), number)
            for port in slice_.get("ports") or ()
            if (number := port.get("port"))
        ]
        for endpoint in slice_.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready") is False:
                continue
            for address in endpoint.get("addresses") or ():
                label = endpoint.get("hostname") or _label(address)
                host = f"{label}.{name}".lower()
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


def _label(address: str) -> str:
    """A name for a pod that has none: its address with dashes."""
    return address.replace(".", "-").replace(":", "-")


def _normal(address: str) -> str:
    return str(ipaddress.ip_address(address))


def address_in_label(label: str) -> str | None:
    """The address that a pod's name says (``10-1-2-3``), None where it says none."""
    for text in (label.replace("-", "."), label.replace("-", ":")):
        try:
            return str(ipaddress.ip_address(text))
        except ValueError:
            continue
    return None


def reversed_address(name: str) -> str | None:
    """The address that a name below ``in-addr.arpa`` or ``ip6.arpa`` means, None for no such."""
    labels = name.lower().rstrip(".").split(".")
    try:
        if labels[-2:] == ["in-addr", "arpa"] and len(labels) == 6:
            return str(ipaddress.IPv4Address(".".join(labels[3::-1])))
        if labels[-2:] == ["ip6", "arpa"] and len(labels) == 34:
            return str(ipaddress.IPv6Address(int("".join(labels[31::-1]), 16)))
    except ValueError:
        pass
    return None
