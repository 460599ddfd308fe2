"""Deployments.

Upstream: pkg/apis/apps/v1/defaults.go, pkg/apis/apps/validation/validation.go and
pkg/registry/apps/deployment/strategy.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import counts, fields, label_selectors
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Object
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.durations import age
from wherry.kube.api.kinds.replica_set import immutable_selector
from wherry.kube.api.kinds.replicated import (
    TEMPLATE_COLUMNS,
    Replicated,
    check_replicated_template,
    check_selector,
    template_cells,
)

_COUNTS = ("updatedReplicas", "readyReplicas", "availableReplicas")
_STRATEGIES = ("Recreate", "RollingUpdate")


class Deployment(Replicated):
    """Pods of one template, moved from one template to the next without a gap."""

    columns = (
        NAME_COLUMN,
        Column("Ready", description="Pods that are ready, of those asked for."),
        Column("Up-to-date", description="Pods of the current template."),
        Column("Available", description="Pods ready for at least minReadySeconds."),
        AGE_COLUMN,
        *TEMPLATE_COLUMNS,
    )
    status_counts = (*_COUNTS, "terminatingReplicas", "unavailableReplicas", "collisionCount")
    counts_within_replicas = _COUNTS

    def default(self, o: Object) -> None:
        super().default(o)
        spec = o["spec"]
        strategy = spec.setdefault("strategy", {})
        if not strategy.get("type"):
            strategy["type"] = "RollingUpdate"
        if strategy["type"] == "RollingUpdate":
            rolling = strategy.setdefault("rollingUpdate", {})
            rolling.setdefault("maxUnavailable", "25%")
            rolling.setdefault("maxSurge", "25%")
        spec.setdefault("revisionHistoryLimit", 10)
        spec.setdefault("progressDeadlineSeconds", 600)

    def changes_generation(self, new: Object, old: Object) -> bool:
        annotations = new["metadata"].get("annotations") or {}
        before = old["metadata"].get("annotations") or {}
        return super().changes_generation(new, old) or annotations != before

    def prepare_status_update(self, new: Object, old: Object) -> None:
        super().prepare_status_update(new, old)
        if "labels" in old["metadata"]:
            new["metadata"]["labels"] = old["metadata"]["labels"]
        else:
            new["metadata"].pop("labels", None)

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        spec = o.get("spec") or {}
        faults += fields.non_negative("spec.replicas", spec.get("replicas", 0))
        check_selector(spec.get("selector"), faults)
        template = spec.get("template") or {}
        check_replicated_template(template, self.selector_of(o), "ReplicaSet", faults)
        _check_strategy(spec.get("strategy") or {}, faults)
        ready = spec.get("minReadySeconds", 0)
        faults += fields.non_negative("spec.minReadySeconds", ready)
        limit = spec.get("revisionHistoryLimit", 0)
        faults += fields.non_negative("spec.revisionHistoryLimit", limit)
        if (deadline := spec.get("progressDeadlineSeconds")) is not None:
            faults += fields.non_negative("spec.progressDeadlineSeconds", deadline)
            if deadline <= ready:
                where, why = "spec.progressDeadlineSeconds", "must be greater than minReadySeconds"
                faults.append(fields.invalid(where, deadline, why))
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        return self.validate_body(new) + immutable_selector(new, old)

    def validate_status(self, new: Object, old: Object) -> list[FieldError]:
        faults = super().validate_status(new, old)
        count = (new.get("status") or {}).get("collisionCount")
        before = (old.get("status") or {}).get("collisionCount")
        if before is not None and (count is None or count < before):
            where = "status.collisionCount"
            faults.append(fields.invalid(where, count or 0, "cannot be decremented"))
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, spec, status = o["metadata"], o.get("spec") or {}, o.get("status") or {}
        return [
            meta.get("name", ""),
            f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}",
            status.get("updatedReplicas", 0),
            status.get("availableReplicas", 0),
            age(meta.get("creationTimestamp"), now),
            *template_cells(spec),
            label_selectors.selector_text(spec.get("selector")),
        ]


def _check_strategy(strategy: Object, faults: Faults) -> None:
    kind, rolling = strategy.get("type", ""), strategy.get("rollingUpdate")
    where = "spec.strategy.rollingUpdate"
    if kind == "Recreate":
        if rolling is not None:
            why = "may not be specified when strategy `type` is 'Recreate'"
            faults.append(fields.forbidden(where, why))
    elif kind != "RollingUpdate":
        shown = fields.Struct(Type=kind, RollingUpdate=_shown(rolling))
        faults.append(fields.not_supported("spec.strategy", shown, _STRATEGIES))
    elif rolling is None:
        why = "this should be defaulted and never be nil"
        faults.append(fields.required(where, why))
    else:
        unavailable, surge = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
        counts.check_count(unavailable, f"{where}.maxUnavailable", faults)
        counts.check_count(surge, f"{where}.maxSurge", faults)
        if counts.number(unavailable) == 0 and counts.number(surge) == 0:
            why = "may not be 0 when `maxSurge` is 0"
            faults.append(fields.invalid(f"{where}.maxUnavailable", unavailable, why))
        counts.check_at_most_all(unavailable, f"{where}.maxUnavailable", faults)


def _shown(rolling: Object | None) -> Object | None:
    if rolling is None:
        return None
    return {
        "MaxUnavailable": rolling.get("maxUnavailable", 0),
        "MaxSurge": rolling.get("maxSurge", 0),
    }
