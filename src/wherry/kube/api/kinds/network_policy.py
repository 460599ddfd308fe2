"""NetworkPolicies.

Upstream: pkg/apis/networking/v1/defaults.go and pkg/apis/networking/validation/validation.go.
"""

from __future__ import annotations

import ipaddress
from datetime import datetime
from typing import Any

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import checks, fields, label_selectors
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.durations import age

_PROTOCOLS = ("TCP", "UDP", "SCTP")
_TYPES = ("Ingress", "Egress")
_SIDES = (("ingress", "from"), ("egress", "to"))


class NetworkPolicy(Kind):
    """Who may talk to some pods, and whom they may talk to."""

    has_generation = True
    columns = (
        NAME_COLUMN,
        Column("Pod-Selector", description="The pods it is about."),
        AGE_COLUMN,
    )

    def default(self, o: Object) -> None:
        spec = o.setdefault("spec", {})
        spec.setdefault("podSelector", {})
        for side, _ in _SIDES:
            for rule in spec.get(side) or ():
                for port in rule.get("ports") or ():
                    port.setdefault("protocol", "TCP")
        if not spec.get("policyTypes"):
            spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        spec = o.get("spec") or {}
        label_selectors.check_selector(spec.get("podSelector"), "spec.podSelector", faults)
        for side, peers in _SIDES:
            for index, rule in enumerate(spec.get(side) or ()):
                where = f"spec.{side}[{index}]"
                for at, port in enumerate(rule.get("ports") or ()):
                    _check_port(port, f"{where}.ports[{at}]", faults)
                for at, peer in enumerate(rule.get(peers) or ()):
                    _check_peer(peer, f"{where}.{peers}[{at}]", faults)
        types = spec.get("policyTypes") or ()
        if len(types) > len(_TYPES):
            why = "may not specify more than two policyTypes"
            faults.append(fields.invalid("spec.policyTypes", list(types), why))
            return faults
        for index, kind in enumerate(types):
            if kind not in _TYPES:
                faults.append(fields.not_supported(f"spec.policyTypes[{index}]", kind, _TYPES))
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta = o["metadata"]
        selector = label_selectors.selector_text((o.get("spec") or {}).get("podSelector"))
        return [meta.get("name", ""), selector, age(meta.get("creationTimestamp"), now)]


def _check_port(port: Object, path: str, faults: Faults) -> None:
    if (protocol := port.get("protocol")) is not None and protocol not in _PROTOCOLS:
        faults.append(fields.not_supported(f"{path}.protocol", protocol, _PROTOCOLS))
    number, end = port.get("port"), port.get("endPort")
    where = f"{path}.endPort"
    if number is not None:
        checks.port(number, f"{path}.port", faults)
    if end is None:
        return
    if number is None:
        why = "may not be specified when `port` is not specified"
        faults.append(fields.invalid(where, end, why))
    elif isinstance(number, str):
        why = "may not be specified when `port` is non-numeric"
        faults.append(fields.invalid(where, end, why))
    else:
        if end < number:
            why = "must be greater than or equal to `port`"
            faults.append(fields.invalid(where, number, why))
        checks.port_number(end, where, faults)


def _check_peer(peer: Object, path: str, faults: Faults) -> None:
    given = [k for k in ("podSelector", "namespaceSelector", "ipBlock") if k in peer]
    for name in ("podSelector", "namespaceSelector"):
        label_selectors.check_selector(peer.get(name), f"{path}.{name}", faults)
    if not given:
        faults.append(fields.required(path, "must specify a peer"))
    if "ipBlock" in given:
        _check_block(peer["ipBlock"], f"{path}.ipBlock", faults)
        if len(given) > 1:
            why = "may not specify both ipBlock and another peer"
            faults.append(fields.forbidden(path, why))


def _check_block(block: Object, path: str, faults: Faults) -> None:
    cidr = block.get("cidr", "")
    if not cidr:
        faults.append(fields.required(f"{path}.cidr"))
        return
    before = len(faults)
    checks.cidr(cidr, f"{path}.cidr", faults)
    if len(faults) > before:
        return
    network = ipaddress.ip_interface(cidr).network
    for index, text in enumerate(block.get("except") or ()):
        where, before = f"{path}.except[{index}]", len(faults)
        checks.cidr(text, where, faults)
        if len(faults) > before:
            continue
        inner = ipaddress.ip_interface(text).network
        within = inner.version == network.version and inner.network_address in network
        if not within or inner.prefixlen <= network.prefixlen:
            why = f'must be a strict subset of "{cidr}"'
            faults.append(fields.invalid(where, text, why))
