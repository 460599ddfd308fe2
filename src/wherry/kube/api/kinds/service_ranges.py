"""ServiceCIDRs and IPAddresses.

Upstream: pkg/apis/networking/validation/validation.go and pkg/registry/networking.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import checks, fields
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.durations import age
from wherry.kube.api.kinds.equality import equal


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
            faults.append(fields.invalid("spec", fields.Struct(cidrs=list(cidrs)), why))
        elif not checks.one_per_family(cidrs):
            why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and "
            why += "2001:db8::/64"
            faults.append(fields.invalid("spec", fields.Struct(cidrs=list(cidrs)), why))
        for index, cidr in enumerate(cidrs):
            checks.cidr(cidr, f"spec.cidrs[{index}]", faults)
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        cidrs = (new.get("spec") or {}).get("cidrs")
        before = (old.get("spec") or {}).get("cidrs")
        return fields.immutable("spec.cidrs", cidrs, before)

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
        for name in ("resource", "name"):
            if not parent.get(name):
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
