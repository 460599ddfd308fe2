"""PodTemplates.

Upstream: pkg/registry/core/podtemplate/strategy.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import label_selectors
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.durations import age
from wherry.kube.api.kinds.equality import equal
from wherry.kube.api.kinds.podspec.defaults import default_template
from wherry.kube.api.kinds.podspec.spec import check_template
from wherry.kube.api.kinds.replicated import template_cells


class PodTemplate(Kind):
    """A template of pods that stands for itself."""

    has_generation = True
    columns = (
        NAME_COLUMN,
        Column("Containers", description="Names of its containers."),
        Column("Images", description="Images of its containers."),
        Column("Pod Labels", description="Labels of its pods."),
        AGE_COLUMN,
    )

    def default(self, o: Object) -> None:
        default_template(o.setdefault("template", {}))

    def changes_generation(self, new: Object, old: Object) -> bool:
        return not equal(new.get("template"), old.get("template"))

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        check_template(o.get("template") or {}, "template", faults)
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta = o["metadata"]
        labels = ((o.get("template") or {}).get("metadata") or {}).get("labels")
        return [
            meta.get("name", ""),
            *template_cells(o),
            label_selectors.labels_text(labels),
            age(meta.get("creationTimestamp"), now),
        ]
