"""Namespaces.

Upstream: pkg/registry/core/namespace/strategy.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import checks, fields, metadata
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.durations import age

NAME_LABEL = "kubernetes.io/metadata.name"
FINALIZER = "kubernetes"
"""In ``spec.finalizers`` while the namespace may still hold objects."""


class Namespace(Kind):
    """A space for names."""

    columns = (
        NAME_COLUMN,
        Column("Status", description="Active, or Terminating while it is emptied."),
        AGE_COLUMN,
    )
    field_names = frozenset({"status.phase"})

    def name_messages(self, name: str, prefix: bool) -> list[str]:
        return metadata.dns_label(name, prefix)

    def default(self, o: Object) -> None:
        meta = o.setdefault("metadata", {})
        if name := meta.get("name"):
            labels = meta.get("labels") or {}
            if labels.get(NAME_LABEL) != name:
                meta["labels"] = {**labels, NAME_LABEL: name}

    def prepare_create(self, o: Object) -> None:
        super().prepare_create(o)
        self.default(o)  # a generated name was not known before
        spec = o.get("spec") or {}
        finalizers = spec.get("finalizers") or []
        if FINALIZER not in finalizers:
            finalizers = [*finalizers, FINALIZER]
        o["spec"] = {**spec, "finalizers": finalizers}

    def initial_status(self, o: Object) -> Object:
        return {"phase": "Active"}

    def prepare_update(self, new: Object, old: Object) -> None:
        super().prepare_update(new, old)
        new["spec"] = old.get("spec") or {}

    def prepare_finalize_update(self, new: Object, old: Object) -> None:
        """For the subresource ``finalize``: nothing but ``spec.finalizers`` is taken."""
        super().prepare_update(new, old)

    def validate_body(self, o: Object) -> list[FieldError]:
        return _finalizer_faults(o, indexed=False)

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        return []

    def validate_finalize_update(self, new: Object, old: Object) -> list[FieldError]:
        """Faults of a request to ``finalize``."""
        faults = metadata.validate_update(new.get("metadata") or {}, old["metadata"])
        return faults + _finalizer_faults(new, indexed=True)

    def validate_status(self, new: Object, old: Object) -> list[FieldError]:
        phase = (new.get("status") or {}).get("phase", "")
        if not new["metadata"].get("deletionTimestamp"):
            if phase == "Active":
                return []
            why = "may only be 'Active' if `deletionTimestamp` is empty"
        else:
            if phase == "Terminating":
                return []
            why = "may only be 'Terminating' if `deletionTimestamp` is not empty"
        return [fields.invalid("status.Phase", phase, why)]

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, status = o["metadata"], o.get("status") or {}
        created = age(meta.get("creationTimestamp"), now)
        return [meta.get("name", ""), status.get("phase", ""), created]

    def selectable_fields(self, o: Object) -> dict[str, str]:
        values = super().selectable_fields(o)
        values["status.phase"] = (o.get("status") or {}).get("phase", "")
        return values


def _finalizer_faults(o: Object, *, indexed: bool) -> list[FieldError]:
    faults: list[FieldError] = []
    for index, finalizer in enumerate((o.get("spec") or {}).get("finalizers") or ()):
        path = f"spec.finalizers[{index}]" if indexed else "spec.finalizers"
        checks.qualified_name(finalizer, path, faults)
        faults += metadata.kube_finalizer(finalizer, path)
    return faults
