"""ServiceCIDRs and IPAddresses.

Upstream: pkg/apis/networking/validation/validation.go and pkg/registry/networking.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from wherry.kube.api import names
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import checks, fields
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.durations import age
from wherry.kube.api.kinds.equality import equal

DEFAULT: Final = "kubernetes"
"""The ServiceCIDR of the ranges that the API server was started with."""


def is_ready(o: Object) -> bool:
    """Whether addresses are given of it: unless it is going, or somebody says that it is not
    ready. Nobody says anything yet of one that is new."""
    for condition in (o.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Ready" and condition.get("status") != "True":
            return False
    return o["metadata"].get("deletionTimestamp") is None


def has_address(cidr: str, address: str) -> bool:
    """Whether Services may have that address of the range: not the range's own, in IPv4 nor the
    last one."""
    network, ip = ipaddress.ip_network(cidr), ipaddress.ip_address(address)
    if ip.version != network.version or ip not in network or ip == network.network_address:
        return False
    return ip.version == 6 or ip != network.broadcast_address


def overlapped(cidr: str, nodes: Iterable[Object]) -> str:
    """What of the cluster's nodes has an address in common with that range, in a few words; empty
    where nothing has."""
    for node in sorted(nodes, key=lambda node: str(node["metadata"]["name"])):
        name, spec = node["metadata"]["name"], node.get("spec") or {}
        for pods in spec.get("podCIDRs") or filter(None, [spec.get("podCIDR")]):
            if overlap(cidr, pods):
                return f"{pods}, the pods of node {name}"
        for told in (node.get("status") or {}).get("addresses") or ():
            if told.get("type") in ("InternalIP", "ExternalIP") and overlap(cidr, told["address"]):
                return f"{told['address']}, an address of node {name}"
    return ""


def places(node: Object) -> tuple[Any, Any]:
    """What of a node ``overlapped`` looks at."""
    return (node.get("spec") or {}).get("podCIDRs"), (node.get("status") or {}).get("addresses")


def overlap(one: str, other: str) -> bool:
    """Whether two ranges have an address in common; what is no range has none."""
    try:
        first, second = ipaddress.ip_network(one), ipaddress.ip_network(other, strict=False)
    except ValueError:
        return False
    return first.version == second.version and first.overlaps(second)


def known(present: Iterable[Object], configured: Sequence[str]) -> list[str]:
    """All ranges of Services, the default ones first, each once.

    ``configured`` are those, until there is a ServiceCIDR that says them.
    """
    found = sorted(present, key=lambda o: (o["metadata"]["name"] != DEFAULT, o["metadata"]["name"]))
    cidrs = [] if found and found[0]["metadata"]["name"] == DEFAULT else list(configured)
    for o in found:
        cidrs += (o.get("spec") or {}).get("cidrs") or ()
    return list(dict.fromkeys(cidrs))


def ready(present: Sequence[Object], configured: Sequence[str]) -> list[str]:
    """Those of them that addresses are given of."""
    closed = [o for o in present if not is_ready(o)]
    default_closed = any(o["metadata"]["name"] == DEFAULT for o in closed)
    return known(
        [o for o in present if is_ready(o)],
        () if default_closed else configured,
    )


class ServiceCIDR(Kind):
    """A range that services get their addresses from."""

    has_generation = True
    columns = (
        NAME_COLUMN,
        Column("CIDRs", description="The range, one of each family at most."),
        AGE_COLUMN,
    )

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        cidrs = (o.get("spec") or {}).get("cidrs") or ()
        if not cidrs:
            faults.append(fields.required("spec.cidrs", "at least one CIDR required"))
            return faults
        if len(cidrs) > 2:
            why = "may only hold up to 2 values"
            return [fields.invalid("spec.cidrs", fields.Struct(cidrs=list(cidrs)), why)]
        for index, cidr in enumerate(cidrs):
            checks.strict_cidr(cidr, f"spec.cidrs[{index}]", faults)
        if not faults and not checks.one_per_family(cidrs):
            why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and "
            why += "2001:db8::/64"
            faults.append(fields.invalid("spec.cidrs", list(cidrs), why))
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        """A range may get one of the other family beside it; nothing else of it changes."""
        cidrs = (new.get("spec") or {}).get("cidrs") or []
        before = (old.get("spec") or {}).get("cidrs") or []
        widened = (len(before), len(cidrs)) == (1, 2)
        if len(cidrs) != len(before) and not widened:
            return [fields.invalid("spec.cidrs", cidrs, fields.IMMUTABLE)]
        faults = [
            fields.invalid(f"spec.cidrs[{index}]", cidrs[index], fields.IMMUTABLE)
            for index, cidr in enumerate(before)
            if cidrs[index] != cidr
        ]
        return faults + self.validate_body(new) if widened else faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta = o["metadata"]
        cidrs = ",".join((o.get("spec") or {}).get("cidrs") or ())
        return [meta.get("name", ""), cidrs, age(meta.get("creationTimestamp"), now)]


class IPAddress(Kind):
    """An address that is in use, and by what."""

    has_generation = True
    columns = (
        NAME_COLUMN,
        Column("ParentRef", description="What uses it."),
        AGE_COLUMN,
    )

    def name_messages(self, name: str, prefix: bool) -> list[str]:
        address = checks.parse_ip(name)
        if address is None:
            return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
        return [] if str(address) == name else [f'must be in canonical form ("{address}")']

    def validate_body(self, o: Object) -> list[FieldError]:
        parent = (o.get("spec") or {}).get("parentRef")
        if parent is None:
            return [fields.required("spec.parentRef")]
        faults: list[FieldError] = []
        if group := parent.get("group"):
            checks.check(names.is_dns1123_subdomain, group, "spec.parentRef.group", faults)
        for name in ("resource", "name", "namespace"):
            if value := parent.get(name):
                checks.check(names.is_path_segment, value, f"spec.parentRef.{name}", faults)
            elif name != "namespace":
                faults.append(fields.required(f"spec.parentRef.{name}"))
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        parent = (new.get("spec") or {}).get("parentRef")
        if equal(parent, (old.get("spec") or {}).get("parentRef")):
            return []
        return [fields.invalid("spec.parentRef", parent, fields.IMMUTABLE)]

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, parent = o["metadata"], (o.get("spec") or {}).get("parentRef") or {}
        words = [parent.get(k, "") for k in ("resource", "group", "namespace", "name")]
        kind = f"{words[0]}.{words[1]}" if words[1] else words[0]
        shown = "/".join(word for word in (kind, *words[2:]) if word)
        return [meta.get("name", ""), shown, age(meta.get("creationTimestamp"), now)]
