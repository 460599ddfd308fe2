"""Leases.

Upstream: pkg/apis/coordination/validation/validation.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import checks, fields
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.durations import age


class Lease(Kind):
    """Who holds something, and until when unless it is renewed."""

    columns = (
        NAME_COLUMN,
        Column("Holder", description="Who holds it."),
        AGE_COLUMN,
    )
    create_on_update = True
    unconditional_update = False

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        spec = o.get("spec") or {}
        seconds = spec.get("leaseDurationSeconds")
        if seconds is not None and seconds <= 0:
            where = "spec.leaseDurationSeconds"
            faults.append(fields.invalid(where, seconds, "must be greater than 0"))
        transitions = spec.get("leaseTransitions", 0)
        faults += fields.non_negative("spec.leaseTransitions", transitions)
        if (strategy := spec.get("strategy")) is not None:
            if "/" in strategy:
                checks.qualified_name(strategy, "spec.strategy.strategy", faults)
            elif strategy != "OldestEmulationVersion":
                supported = ("OldestEmulationVersion",)
                faults.append(fields.not_supported("spec.strategy.strategy", strategy, supported))
        if spec.get("preferredHolder") and not strategy:
            why = "may only be specified if `strategy` is defined"
            faults.append(fields.forbidden("spec.preferredHolder", why))
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta = o["metadata"]
        holder = (o.get("spec") or {}).get("holderIdentity", "")
        return [meta.get("name", ""), holder, age(meta.get("creationTimestamp"), now)]
