"""Endpoints.

Upstream: validateEndpointSubsets in pkg/apis/core/validation/validation.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import checks, fields
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.durations import age
from wherry.kube.api.kinds.label_selectors import NONE

_SHOWN: Final = 3


class Endpoints(Kind):
    """The addresses behind a Service, all in one object."""

    columns = (
        NAME_COLUMN,
        Column("Endpoints", description="Addresses with ports, the first few."),
        AGE_COLUMN,
    )
    create_on_update = True

    def default(self, o: Object) -> None:
        for subset in o.get("subsets") or ():
            for port in subset.get("ports") or ():
                if not port.get("protocol"):
                    port["protocol"] = "TCP"

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        for index, subset in enumerate(o.get("subsets") or ()):
            path = f"subsets[{index}]"
            if not subset.get("addresses") and not subset.get("notReadyAddresses"):
                why = "must specify `addresses` or `notReadyAddresses`"
                faults.append(fields.required(path, why))
            for kind in ("addresses", "notReadyAddresses"):
                for at, address in enumerate(subset.get(kind) or ()):
                    _check_address(address, f"{path}.{kind}[{at}]", faults)
            ports = subset.get("ports") or ()
            for at, port in enumerate(ports):
                _check_port(port, f"{path}.ports[{at}]", faults, named=len(ports) > 1)
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta = o["metadata"]
        return [meta.get("name", ""), _text(o), age(meta.get("creationTimestamp"), now)]


def _check_address(address: Object, path: str, faults: Faults) -> None:
    ip = address.get("ip", "")
    checks.ip(ip, f"{path}.ip", faults)
    if hostname := address.get("hostname"):
        checks.dns_label(hostname, f"{path}.hostname", faults)
    if (node := address.get("nodeName")) is not None:
        checks.node_name(node, f"{path}.nodeName", faults)
    checks.non_special_ip(ip, f"{path}.ip", faults)


def _check_port(port: Object, path: str, faults: Faults, *, named: bool) -> None:
    if name := port.get("name"):
        checks.dns_label(name, f"{path}.name", faults)
    elif named:
        faults.append(fields.required(f"{path}.name"))
    checks.port_number(port.get("port", 0), f"{path}.port", faults)
    checks.protocol(port.get("protocol"), f"{path}.protocol", faults)
    if (protocol := port.get("appProtocol")) is not None:
        checks.qualified_name(protocol, f"{path}.appProtocol", faults)


def _text(o: Object) -> str:
    """The first three, and how many more: ``10.0.0.1:80,10.0.0.2:80 + 1 more...``."""
    listed: list[str] = []
    for subset in o.get("subsets") or ():
        addresses = [address.get("ip", "") for address in subset.get("addresses") or ()]
        if ports := subset.get("ports"):
            for port in ports:
                listed += [_join(address, port.get("port", 0)) for address in addresses]
        else:
            listed += addresses
    if not o.get("subsets"):
        return NONE
    text = ",".join(listed[:_SHOWN])
    return f"{text} + {len(listed) - _SHOWN} more..." if len(listed) > _SHOWN else text


def _join(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
