"""EndpointSlices.

Upstream: pkg/apis/discovery/{v1/defaults,validation/validation}.go and
pkg/registry/discovery/endpointslice/strategy.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from wherry.kube.api import names
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import checks, fields
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.durations import age

_ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")
_ADDRESSES: Final = 100
_PORTS: Final = 100
_ENDPOINTS: Final = 1000
_TOPOLOGY: Final = 16
_ZONES: Final = 8
_SHOWN: Final = 3


class EndpointSlice(Kind):
    """Some of the addresses behind a Service."""

    columns = (
        NAME_COLUMN,
        Column("AddressType", description="The kind of all its addresses."),
        Column("Ports", description="The ports of all its endpoints."),
        Column("Endpoints", description="Addresses, the first few."),
        AGE_COLUMN,
    )
    has_generation = True

    def default(self, o: Object) -> None:
        o.setdefault("endpoints", [])
        for port in o.get("ports") or ():
            port.setdefault("name", "")
            if not port.get("protocol"):
                port["protocol"] = "TCP"

    def changes_generation(self, new: Object, old: Object) -> bool:
        if new["metadata"].get("labels") != old["metadata"].get("labels"):
            return True
        return any(new.get(k) != old.get(k) for k in ("addressType", "endpoints", "ports"))

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        kind = o.get("addressType", "")
        checks.one_of(kind, _ADDRESS_TYPES, "addressType", faults)
        _check_endpoints(o.get("endpoints") or (), kind, faults)
        _check_ports(o.get("ports") or (), faults)
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        kind, before = new.get("addressType", ""), old.get("addressType", "")
        return self.validate_body(new) + fields.immutable("addressType", kind, before)

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta = o["metadata"]
        ports = [str(p.get("port") or p.get("name") or "*") for p in o.get("ports") or ()]
        endpoints = o.get("endpoints") or ()
        return [
            meta.get("name", ""),
            o.get("addressType", ""),
            _first_of(ports),
            _first_of([a for endpoint in endpoints for a in endpoint.get("addresses") or ()]),
            age(meta.get("creationTimestamp"), now),
        ]


def _first_of(values: Sequence[str]) -> str:
    text = ",".join(values[:_SHOWN])
    if len(values) > _SHOWN:
        return f"{text} + {len(values) - _SHOWN} more..."
    return text or "<unset>"


def _check_endpoints(endpoints: Sequence[Object], kind: str, faults: Faults) -> None:
    if len(endpoints) > _ENDPOINTS:
        faults.append(fields.too_many("endpoints", len(endpoints), _ENDPOINTS))
        return
    for index, endpoint in enumerate(endpoints):
        path = f"endpoints[{index}]"
        addresses = endpoint.get("addresses") or ()
        if not addresses:
            why = "must contain at least 1 address"
            faults.append(fields.required(f"{path}.addresses", why))
        elif len(addresses) > _ADDRESSES:
            faults.append(fields.too_many(f"{path}.addresses", len(addresses), _ADDRESSES))
        for at, address in enumerate(addresses):
            _check_address(address, kind, f"{path}.addresses[{at}]", faults)
        if (node := endpoint.get("nodeName")) is not None:
            checks.node_name(node, f"{path}.nodeName", faults)
        if topology := endpoint.get("deprecatedTopology"):
            where = f"{path}.deprecatedTopology"
            if len(topology) > _TOPOLOGY:
                faults.append(fields.too_many(where, len(topology), _TOPOLOGY))
            checks.labels(topology, where, faults)
        if (hostname := endpoint.get("hostname")) is not None:
            checks.dns_label(hostname, f"{path}.hostname", faults)
        zones = (endpoint.get("hints") or {}).get("forZones") or ()
        _check_zones(zones, f"{path}.hints.forZones", faults)


def _check_address(address: str, kind: str, path: str, faults: Faults) -> None:
    if kind in ("IPv4", "IPv6"):
        checks.ip_of_family(address, 4 if kind == "IPv4" else 6, path, faults)
        checks.non_special_ip(address, path, faults)
    elif kind == "FQDN":
        if not address:
            faults.append(fields.required(path))
            return
        name = address.removesuffix(".")
        for message in names.is_dns1123_subdomain(name):
            faults.append(fields.invalid(path, address, message))
        if "." not in name:
            why = "should be a domain with at least two segments separated by dots"
            faults.append(fields.invalid(path, address, why))


def _check_zones(zones: Sequence[Object], path: str, faults: Faults) -> None:
    if len(zones) > _ZONES:
        faults.append(fields.too_many(path, len(zones), _ZONES))
        return
    seen: set[str] = set()
    for index, zone in enumerate(zones):
        where, name = f"{path}[{index}].name", zone.get("name", "")
        checks.check(names.is_label_value, name, where, faults)
        if name in seen:
            faults.append(fields.duplicate(f"{path}[{index}].name", name))
        seen.add(name)


def _check_ports(ports: Sequence[Object], faults: Faults) -> None:
    if len(ports) > _PORTS:
        faults.append(fields.too_many("ports", len(ports), _PORTS))
        return
    seen: set[str] = set()
    for index, port in enumerate(ports):
        path, name = f"ports[{index}]", port.get("name", "")
        if name:
            checks.dns_label(name, f"{path}.name", faults)
        if name in seen:
            faults.append(fields.duplicate(f"{path}.name", name))
        seen.add(name)
        checks.protocol(port.get("protocol"), f"{path}.protocol", faults)
        if (protocol := port.get("appProtocol")) is not None:
            checks.qualified_name(protocol, f"{path}.appProtocol", faults)
