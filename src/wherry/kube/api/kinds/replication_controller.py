"""ReplicationControllers: ReplicaSets of the first hour, with a selector that is a plain map.

Upstream: pkg/registry/core/replicationcontroller/strategy.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import fields, label_selectors
from wherry.kube.api.kinds.base import Object
from wherry.kube.api.kinds.replica_set import ReplicaSet
from wherry.kube.api.kinds.replicated import check_replicated_template, replicas_cells
from wherry.kube.api.selectors import LabelSelector, labels_from_set


class ReplicationController(ReplicaSet):
    """A number of pods of one template, selected by equality alone."""

    orphans = True

    def default(self, o: Object) -> None:
        super().default(o)
        spec = o["spec"]
        labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
        if labels:
            if not spec.get("selector"):
                spec["selector"] = dict(labels)
            if not o.setdefault("metadata", {}).get("labels"):
                o["metadata"]["labels"] = dict(labels)

    def selector_of(self, o: Object) -> LabelSelector | None:
        return labels_from_set((o.get("spec") or {}).get("selector"))

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        spec = o.get("spec") or {}
        faults += fields.non_negative("spec.minReadySeconds", spec.get("minReadySeconds", 0))
        if not spec.get("selector"):
            faults.append(fields.required("spec.selector"))
        faults += fields.non_negative("spec.replicas", spec.get("replicas", 0))
        template, selector = spec.get("template"), self.selector_of(o)
        check_replicated_template(template, selector, "ReplicationController", faults)
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        return self.validate_body(new)

    def row(self, o: Object, now: datetime) -> list[Any]:
        selector = (o.get("spec") or {}).get("selector")
        return [*replicas_cells(o, now), label_selectors.labels_text(selector)]
