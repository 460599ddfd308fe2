"""ControllerRevisions.

Upstream: pkg/apis/apps/validation/validation.go and pkg/registry/apps/controllerrevision.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import fields
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.durations import age
from wherry.kube.api.meta import controller_of


class ControllerRevision(Kind):
    """A template as a StatefulSet or DaemonSet once had it."""

    columns = (
        NAME_COLUMN,
        Column("Controller", description="Whose template it was."),
        Column("Revision", "integer", description="Its number in the order of revisions."),
        AGE_COLUMN,
    )

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        if o.get("data") is None:
            faults.append(fields.required("data", "data is mandatory"))
        return faults + fields.non_negative("revision", o.get("revision", 0))

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        faults = fields.non_negative("revision", new.get("revision", 0))
        return faults + fields.immutable("data", new.get("data"), old.get("data"))

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, owner = o["metadata"], controller_of(o)
        shown = "<none>"
        if owner is not None:
            group = owner.get("apiVersion", "").rpartition("/")[0]
            kind = owner.get("kind", "").lower() + (f".{group}" if group else "")
            shown = f"{kind}/{owner.get('name', '')}"
        created = age(meta.get("creationTimestamp"), now)
        return [meta.get("name", ""), shown, o.get("revision", 0), created]
