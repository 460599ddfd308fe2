"""ReplicaSets.

Upstream: pkg/registry/apps/replicaset/strategy.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import fields, label_selectors
from wherry.kube.api.kinds.base import Object
from wherry.kube.api.kinds.replicated import (
    REPLICAS_COLUMNS,
    Replicated,
    check_replicated_template,
    check_selector,
    replicas_cells,
)

_COUNTS = ("fullyLabeledReplicas", "readyReplicas", "availableReplicas")


class ReplicaSet(Replicated):
    """A number of pods of one template."""

    columns = REPLICAS_COLUMNS
    field_names = frozenset({"status.replicas"})
    status_counts = (*_COUNTS, "terminatingReplicas")
    counts_within_replicas = _COUNTS

    def initial_status(self, o: Object) -> Object:
        return {"replicas": 0}

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        spec = o.get("spec") or {}
        faults += fields.non_negative("spec.replicas", spec.get("replicas", 0))
        faults += fields.non_negative("spec.minReadySeconds", spec.get("minReadySeconds", 0))
        check_selector(spec.get("selector"), faults)
        template = spec.get("template") or {}
        check_replicated_template(template, self.selector_of(o), "ReplicaSet", faults)
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        faults = self.validate_body(new)
        return faults + immutable_selector(new, old)

    def row(self, o: Object, now: datetime) -> list[Any]:
        selector = (o.get("spec") or {}).get("selector")
        return [*replicas_cells(o, now), label_selectors.selector_text(selector)]

    def selectable_fields(self, o: Object) -> dict[str, str]:
        values = super().selectable_fields(o)
        values["status.replicas"] = str((o.get("status") or {}).get("replicas", 0))
        return values


def immutable_selector(new: Object, old: Object) -> list[FieldError]:
    """The complaint about a changed ``spec.selector``."""
    selector = (new.get("spec") or {}).get("selector")
    if selector == (old.get("spec") or {}).get("selector"):
        return []
    shown = label_selectors.as_shown(selector)
    return [fields.invalid("spec.selector", shown, fields.IMMUTABLE)]
