"""DaemonSets.

Upstream: pkg/apis/apps/v1/{defaults,conversion}.go, pkg/apis/apps/validation/validation.go and
pkg/registry/apps/daemonset/strategy.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import counts, fields, label_selectors
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.durations import age
from wherry.kube.api.kinds.equality import equal
from wherry.kube.api.kinds.podspec.defaults import default_template
from wherry.kube.api.kinds.replica_set import immutable_selector
from wherry.kube.api.kinds.replicated import (
    TEMPLATE_COLUMNS,
    check_replicated_template,
    check_selector,
    template_cells,
)

TEMPLATE_GENERATION: Final = "deprecated.daemonset.template.generation"
"""The annotation that counts the changes of the template, kept for old clients."""

_STRATEGIES = ("RollingUpdate", "OnDelete")
_NEEDED_COUNTS = (
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
)
_COUNTS = (
    *_NEEDED_COUNTS,
    "observedGeneration",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
)


class DaemonSet(Kind):
    """A pod of one template on each node."""

    has_generation = True
    columns = (
        NAME_COLUMN,
        Column("Desired", "integer", description="Nodes that should run the pod."),
        Column("Current", "integer", description="Nodes that run it."),
        Column("Ready", "integer", description="Nodes where it is ready."),
        Column("Up-to-date", "integer", description="Nodes that run the current template."),
        Column("Available", "integer", description="Nodes where it is available."),
        Column("Node Selector", description="The labels a node must have."),
        AGE_COLUMN,
        *TEMPLATE_COLUMNS,
    )

    def default(self, o: Object) -> None:
        spec = o.setdefault("spec", {})
        if (template := spec.get("template")) is not None:
            default_template(template)
        strategy = spec.setdefault("updateStrategy", {})
        if not strategy.get("type"):
            strategy["type"] = "RollingUpdate"
        if strategy["type"] == "RollingUpdate":
            rolling = strategy.setdefault("rollingUpdate", {})
            rolling.setdefault("maxUnavailable", 1)
            rolling.setdefault("maxSurge", 0)
        spec.setdefault("revisionHistoryLimit", 10)

    def initial_status(self, o: Object) -> Object:
        return dict.fromkeys(_NEEDED_COUNTS, 0)

    def prepare_create(self, o: Object) -> None:
        super().prepare_create(o)
        _annotate(o, 1)

    def prepare_update(self, new: Object, old: Object) -> None:
        super().prepare_update(new, old)
        text = (old["metadata"].get("annotations") or {}).get(TEMPLATE_GENERATION, "")
        count = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
        before, after = old.get("spec") or {}, new.get("spec") or {}
        changed = not equal(before.get("template"), after.get("template"))
        _annotate(new, count + changed)

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        spec = o.get("spec") or {}
        selector = label_selectors.parse(spec.get("selector"))
        check_selector(spec.get("selector"), faults, "daemonset")
        check_replicated_template(spec.get("template") or {}, selector, "DaemonSet", faults)
        faults += fields.non_negative("spec.minReadySeconds", spec.get("minReadySeconds", 0))
        _check_strategy(spec.get("updateStrategy") or {}, faults)
        limit = spec.get("revisionHistoryLimit", 0)
        faults += fields.non_negative("spec.revisionHistoryLimit", limit)
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        return self.validate_body(new) + immutable_selector(new, old)

    def validate_status(self, new: Object, old: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        status, before = new.get("status") or {}, old.get("status") or {}
        for name in _COUNTS:
            faults += fields.non_negative(f"status.{name}", status.get(name, 0))
        count = status.get("collisionCount")
        if "collisionCount" in before and (count is None or count < before["collisionCount"]):
            why = "cannot be decremented"
            faults.append(fields.invalid("status.collisionCount", count or 0, why))
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, spec, status = o["metadata"], o.get("spec") or {}, o.get("status") or {}
        nodes = ((spec.get("template") or {}).get("spec") or {}).get("nodeSelector")
        return [
            meta.get("name", ""),
            status.get("desiredNumberScheduled", 0),
            status.get("currentNumberScheduled", 0),
            status.get("numberReady", 0),
            status.get("updatedNumberScheduled", 0),
            status.get("numberAvailable", 0),
            label_selectors.labels_text(nodes),
            age(meta.get("creationTimestamp"), now),
            *template_cells(spec),
            label_selectors.selector_text(spec.get("selector")),
        ]


def _annotate(o: Object, generation: int) -> None:
    annotations = o["metadata"].get("annotations") or {}
    o["metadata"]["annotations"] = {**annotations, TEMPLATE_GENERATION: str(generation)}


def _check_strategy(strategy: Object, faults: Faults) -> None:
    kind, rolling = strategy.get("type", ""), strategy.get("rollingUpdate")
    if kind == "OnDelete":
        return
    if kind != "RollingUpdate":
        faults.append(fields.not_supported("spec.updateStrategy.type", kind, _STRATEGIES))
        return
    where = "spec.updateStrategy.rollingUpdate"
    if rolling is None:
        faults.append(fields.required(where))
        return
    unavailable, surge = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
    if counts.number(unavailable) and counts.number(surge):
        why = "may not be set when maxUnavailable is non-zero"
        faults.append(fields.invalid(f"{where}.maxSurge", surge, why))
    elif not counts.number(unavailable) and not counts.number(surge):
        faults.append(fields.required(f"{where}.maxUnavailable", "cannot be 0 when maxSurge is 0"))
    for name, value in (("maxUnavailable", unavailable), ("maxSurge", surge)):
        counts.check_count(value, f"{where}.{name}", faults)
        counts.check_at_most_all(value, f"{where}.{name}", faults)
