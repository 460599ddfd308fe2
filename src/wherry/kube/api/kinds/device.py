"""Devices: classes of them, claims on them, and what there is (dynamic resource allocation).

Upstream: pkg/registry/resource and pkg/printers/internalversion/printers.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import fields
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.durations import age
from wherry.kube.api.kinds.equality import equal


class Specified(Kind):
    """A kind whose spec is counted in its generation, with no rules but its schema's."""

    has_generation = True


class ResourceClaim(Specified):
    """A demand for devices."""

    columns = (
        NAME_COLUMN,
        Column("State", description="What became of it."),
        AGE_COLUMN,
    )

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        return _unchanged(new, old)

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, status = o["metadata"], o.get("status") or {}
        states = ["deleted"] if meta.get("deletionTimestamp") else []
        if status.get("allocation") is None:
            states = states or ["pending"]
        else:
            states += ["allocated", "reserved"] if status.get("reservedFor") else ["allocated"]
        created = age(meta.get("creationTimestamp"), now)
        return [meta.get("name", ""), ",".join(states), created]


class ResourceClaimTemplate(Kind):
    """Claims that are made along with pods."""

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        return _unchanged(new, old)


class ResourceSlice(Specified):
    """Devices that there are."""

    columns = (
        NAME_COLUMN,
        Column("Node", description="Where they are."),
        Column("Driver", description="Whose they are."),
        Column("Pool", description="The pool they belong to."),
        AGE_COLUMN,
    )
    field_names = frozenset({"spec.nodeName", "spec.driver"})

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, spec = o["metadata"], o.get("spec") or {}
        return [
            meta.get("name", ""),
            spec.get("nodeName") or "<unset>",
            spec.get("driver", ""),
            (spec.get("pool") or {}).get("name", ""),
            age(meta.get("creationTimestamp"), now),
        ]

    def selectable_fields(self, o: Object) -> dict[str, str]:
        spec = o.get("spec") or {}
        return {
            **super().selectable_fields(o),
            "spec.nodeName": spec.get("nodeName", ""),
            "spec.driver": spec.get("driver", ""),
        }


def _unchanged(new: Object, old: Object) -> list[FieldError]:
    if equal(new.get("spec"), old.get("spec")):
        return []
    return [fields.invalid("spec", new.get("spec"), fields.IMMUTABLE)]
