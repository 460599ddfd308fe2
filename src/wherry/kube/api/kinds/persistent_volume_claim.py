"""PersistentVolumeClaims.

Upstream: pkg/apis/core/v1/defaults.go, pkg/apis/core/validation/validation.go and
pkg/registry/core/persistentvolumeclaim/strategy.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import access_modes, checks, fields, label_selectors
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.durations import age
from wherry.kube.api.kinds.equality import difference, equal
from wherry.kube.api.kinds.podspec import resources
from wherry.kube.api.quantity import ZERO, Quantity, QuantityError, parse

CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
"""The storage class as it was named before there was a field for it; it still counts."""

_VOLUME_MODES = ("Block", "Filesystem")
_SNAPSHOTS = "snapshot.storage.k8s.io"


class PersistentVolumeClaim(Kind):
    """A demand for a volume."""

    columns = (
        NAME_COLUMN,
        Column("Status", description="Pending, Bound or Lost."),
        Column("Volume", description="The volume bound to it."),
        Column("Capacity", description="The size of the volume."),
        Column("Access Modes", description="How the volume may be used."),
        Column("StorageClass", description="The class of storage asked for."),
        Column("VolumeAttributesClass", description="The class of attributes in use."),
        AGE_COLUMN,
        Column("VolumeMode", description="Filesystem or Block.", priority=1),
    )
    field_names = frozenset({"name"})

    def default(self, o: Object) -> None:
        default_claim(o)

    def initial_status(self, o: Object) -> Object:
        return {"phase": "Pending"}

    def prepare_create(self, o: Object) -> None:
        super().prepare_create(o)
        _mirror_source(o.get("spec") or {})

    def prepare_update(self, new: Object, old: Object) -> None:
        super().prepare_update(new, old)
        _mirror_source(new.get("spec") or {})

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        check_claim_spec(o.get("spec") or {}, "spec", faults)
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        faults = self.validate_body(new)
        after, before = dict(new.get("spec") or {}), dict(old.get("spec") or {})
        if not before.get("volumeName") and after.get("volumeName"):
            after["volumeName"] = before.get("volumeName")  # the binder's to set, once
        phase = (old.get("status") or {}).get("phase")
        if phase == "Bound":
            after["resources"] = _with_request(after, before)
            after["volumeAttributesClassName"] = before.get("volumeAttributesClassName")
        if _class_moved(new, old):
            after["storageClassName"] = before.get("storageClassName")
        if not equal(after, before):
            why = (
                "spec is immutable after creation except resources.requests and "
                "volumeAttributesClassName for bound claims"
            )
            shown = "\n".join(difference(before, after))
            faults.append(fields.forbidden("spec", f"{why}\n{shown}\n"))
        size, capacity = _requested(new), (old.get("status") or {}).get("capacity") or {}
        if size < _requested(old) and size <= _quantity(capacity.get("storage", "0")):
            why = "field can not be less than status.capacity"
            faults.append(fields.forbidden("spec.resources.requests.storage", why))
        chosen = (new.get("spec") or {}).get("volumeAttributesClassName")
        if before.get("volumeAttributesClassName") and not chosen:
            to = "nil" if chosen is None else "an empty string"
            why = f"update from non-nil value to {to} is forbidden"
            faults.append(fields.forbidden("spec.volumeAttributesClassName", why))
        return faults

    def validate_status(self, new: Object, old: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        status = new.get("status") or {}
        for name, value in (status.get("capacity") or {}).items():
            resources.check_quantity(name, value, f"status.capacity[{name}]", faults)
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, spec, status = o["metadata"], o.get("spec") or {}, o.get("status") or {}
        phase = "Terminating" if meta.get("deletionTimestamp") else status.get("phase", "")
        bound = bool(spec.get("volumeName"))
        capacity = (status.get("capacity") or {}).get("storage", "0") if bound else ""
        modes = access_modes.short(status.get("accessModes") or ()) if bound else ""
        return [
            meta.get("name", ""),
            phase,
            spec.get("volumeName", ""),
            capacity,
            modes,
            storage_class(o),
            spec.get("volumeAttributesClassName") or "<unset>",
            age(meta.get("creationTimestamp"), now),
            spec.get("volumeMode") or "<unset>",
        ]

    def selectable_fields(self, o: Object) -> dict[str, str]:
        values = super().selectable_fields(o)
        return {**values, "name": values["metadata.name"]}


def storage_class(o: Object) -> str:
    """The class a volume or claim names, by its annotation or its field; "" for none."""
    annotations = o["metadata"].get("annotations") or {}
    if CLASS_ANNOTATION in annotations:
        return str(annotations[CLASS_ANNOTATION])
    return (o.get("spec") or {}).get("storageClassName") or ""


def default_claim(o: Object) -> None:
    """The defaults of a claim, or of a StatefulSet's template of one, in place."""
    status, spec = o.setdefault("status", {}), o.setdefault("spec", {})
    if not status.get("phase"):
        status["phase"] = "Pending"
    spec.setdefault("volumeMode", "Filesystem")
    for requirements in (spec.get("resources") or {}, status):
        for name in ("limits", "requests", "capacity"):
            resources.canonicalize(requirements.get(name))
    if (reference := spec.get("dataSourceRef")) and not reference.get("namespace"):
        spec.setdefault("dataSource", {k: reference[k] for k in reference if k != "namespace"})


def check_claim_spec(spec: Object, path: str, faults: Faults) -> None:
    """Faults of what a claim asks for."""
    modes = spec.get("accessModes") or ()
    if not modes:
        why = "at least 1 access mode is required"
        faults.append(fields.required(f"{path}.accessModes", why))
    label_selectors.check_selector(spec.get("selector"), f"{path}.selector", faults)
    access_modes.check(modes, f"{path}.accessModes", faults)
    requests = (spec.get("resources") or {}).get("requests") or {}
    where = f"{path}.resources[storage]"
    if "storage" not in requests:
        faults.append(fields.required(where))
    else:
        storage = resources.check_quantity("storage", requests["storage"], where, faults)
        if storage is not None and storage <= ZERO:
            why = "must be greater than zero"
            faults.append(fields.invalid(f"{path}.resources[storage]", str(storage), why))
    if name := spec.get("storageClassName"):
        checks.dns_subdomain(name, f"{path}.storageClassName", faults)
    if (mode := spec.get("volumeMode")) is not None and mode not in _VOLUME_MODES:
        faults.append(fields.not_supported(f"{path}.volumeMode", mode, _VOLUME_MODES))
    for name in ("dataSource", "dataSourceRef"):
        if (source := spec.get(name)) is not None:
            _check_source(source, f"{path}.{name}", faults)
    both = spec.get("dataSource"), spec.get("dataSourceRef")
    if both[0] and both[1] and not both[1].get("namespace") and not equal(*both):
        why = "must match dataSourceRef"
        faults.append(fields.invalid(path, both[0], why))
    if name := spec.get("volumeAttributesClassName"):
        checks.dns_subdomain(name, f"{path}.volumeAttributesClassName", faults)


def _check_source(source: Object, path: str, faults: Faults) -> None:
    for name in ("name", "kind"):
        if not source.get(name):
            faults.append(fields.required(f"{path}.{name}"))
    group, kind = source.get("apiGroup") or "", source.get("kind", "")
    if not group and kind and kind != "PersistentVolumeClaim":
        why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
        faults.append(fields.invalid(path, kind, why))
    if group:
        checks.dns_subdomain(group, f"{path}.apiGroup", faults)


def _mirror_source(spec: Object) -> None:
    """``dataSource`` and ``dataSourceRef`` say the same where only the former is given."""
    source = spec.get("dataSource")
    if source and "dataSourceRef" not in spec:
        known = {("", "PersistentVolumeClaim"), (_SNAPSHOTS, "VolumeSnapshot")}
        if (source.get("apiGroup") or "", source.get("kind")) in known:
            spec["dataSourceRef"] = dict(source)


def _quantity(text: Any) -> Quantity:
    try:
        return parse(str(text))
    except QuantityError:
        return ZERO


def _requested(o: Object) -> Quantity:
    requests = ((o.get("spec") or {}).get("resources") or {}).get("requests") or {}
    return _quantity(requests.get("storage", "0"))


def _with_request(spec: Object, before: Object) -> Object:
    """The resources of ``spec``, with the size that ``before`` asked for."""
    wanted, old = dict(spec.get("resources") or {}), before.get("resources") or {}
    if "requests" in old:
        wanted["requests"] = {
            **(wanted.get("requests") or {}),
            "storage": old["requests"].get("storage"),
        }
    return wanted


def _class_moved(new: Object, old: Object) -> bool:
    """Whether nothing happened but that the class moved into its field, or came to one that had
    none: defaults may be set after a claim was made."""
    before, after = old.get("spec") or {}, new.get("spec") or {}
    if "storageClassName" in before:
        return False
    annotation = (old["metadata"].get("annotations") or {}).get(CLASS_ANNOTATION)
    return annotation in (None, after.get("storageClassName"))
