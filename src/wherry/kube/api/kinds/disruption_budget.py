"""PodDisruptionBudgets.

Upstream: pkg/apis/policy/validation/validation.go and pkg/registry/policy/poddisruptionbudget.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import checks, counts, fields, label_selectors
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.durations import age

_COUNTS = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")
_POLICIES = ("AlwaysAllow", "IfHealthyBudget")


class PodDisruptionBudget(Kind):
    """How many of some pods may be evicted at a time."""

    unconditional_update = False
    has_generation = True
    columns = (
        NAME_COLUMN,
        Column("Min Available", description="Pods that must stay."),
        Column("Max Unavailable", description="Pods that may be away."),
        Column("Allowed Disruptions", "integer", description="Evictions allowed now."),
        AGE_COLUMN,
    )

    def initial_status(self, o: Object) -> Object:
        return dict.fromkeys(_COUNTS, 0)

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        spec = o.get("spec") or {}
        if "minAvailable" in spec and "maxUnavailable" in spec:
            why = "minAvailable and maxUnavailable cannot be both set"
            shown = fields.Struct(
                MinAvailable=spec["minAvailable"],
                Selector=label_selectors.as_shown(spec.get("selector")),
                MaxUnavailable=spec["maxUnavailable"],
                UnhealthyPodEvictionPolicy=spec.get("unhealthyPodEvictionPolicy"),
            )
            faults.append(fields.invalid("spec", shown, why))
        for name in ("minAvailable", "maxUnavailable"):
            if (count := spec.get(name)) is not None:
                counts.check_count(count, f"spec.{name}", faults)
                counts.check_at_most_all(count, f"spec.{name}", faults)
        label_selectors.check_selector(spec.get("selector"), "spec.selector", faults)
        if (policy := spec.get("unhealthyPodEvictionPolicy")) is not None:
            checks.one_of(policy, _POLICIES, "spec.unhealthyPodEvictionPolicy", faults)
        return faults

    def validate_status(self, new: Object, old: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        status = new.get("status") or {}
        for name in _COUNTS:
            faults += fields.non_negative(f"status.{name}", status.get(name, 0))
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, spec, status = o["metadata"], o.get("spec") or {}, o.get("status") or {}
        return [
            meta.get("name", ""),
            str(spec.get("minAvailable", "N/A")),
            str(spec.get("maxUnavailable", "N/A")),
            status.get("disruptionsAllowed", 0),
            age(meta.get("creationTimestamp"), now),
        ]
