"""PriorityClasses.

Upstream: pkg/apis/scheduling/validation/validation.go and pkg/apis/scheduling/helpers.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import checks, fields
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.durations import age

SYSTEM_CLASSES: Final = {
    "system-node-critical": 2_000_001_000,
    "system-cluster-critical": 2_000_000_000,
}
"""The classes every cluster has, and their values."""

HIGHEST: Final = 1_000_000_000
"""The largest value of a class that is not the system's."""

PREEMPT: Final = "PreemptLowerPriority"
_POLICIES = ("Never", PREEMPT)
_FIXED = "may not be changed in an update."


class PriorityClass(Kind):
    """A name for how important a pod is."""

    has_generation = True
    columns = (
        NAME_COLUMN,
        Column("Value", "integer", description="The priority of its pods."),
        Column("Global-Default", "boolean", description="For pods that name no class."),
        AGE_COLUMN,
        Column("PreemptionPolicy", description="Whether its pods displace others."),
    )

    def default(self, o: Object) -> None:
        if not o.get("preemptionPolicy"):
            o["preemptionPolicy"] = PREEMPT

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        name, value = o["metadata"].get("name", ""), o.get("value", 0)
        if name.startswith("system-"):
            if why := _unlike_system_class(name, value, default=bool(o.get("globalDefault"))):
                reserved = "priority class names with 'system-' prefix are reserved for system use"
                why = f"{reserved} only. error: {why}"
                faults.append(fields.forbidden("metadata.name", why))
        elif value > HIGHEST:
            why = f"maximum allowed value of a user defined priority is {HIGHEST}"
            faults.append(fields.forbidden("value", why))
        policy = o.get("preemptionPolicy")
        checks.one_of(policy, _POLICIES, "preemptionPolicy", faults, needed=False)
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        if new.get("value", 0) != old.get("value", 0):
            faults.append(fields.forbidden("value", _FIXED))
        policy, before = new.get("preemptionPolicy"), old.get("preemptionPolicy")
        return faults + fields.immutable("preemptionPolicy", policy, before)

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta = o["metadata"]
        return [
            meta.get("name", ""),
            o.get("value", 0),
            bool(o.get("globalDefault")),
            age(meta.get("creationTimestamp"), now),
            o.get("preemptionPolicy") or PREEMPT,
        ]


def _unlike_system_class(name: str, value: int, *, default: bool) -> str:
    """Why a class is none of the system's, or ""."""
    if name not in SYSTEM_CLASSES:
        return f"{name} is not a known system priority class"
    if value != SYSTEM_CLASSES[name]:
        return f"value of {name} PriorityClass must be {SYSTEM_CLASSES[name]}"
    return f"globalDefault of {name} PriorityClass must be false" if default else ""
