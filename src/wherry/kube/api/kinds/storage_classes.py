"""StorageClasses and VolumeAttributesClasses.

Upstream: pkg/apis/storage/v1/defaults.go and pkg/apis/storage/validation/validation.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import checks, fields
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.durations import age
from wherry.kube.api.kinds.equality import equal

DEFAULT_ANNOTATION: Final = "storageclass.kubernetes.io/is-default-class"
"""On the class of claims that name none."""

_OLD_DEFAULT: Final = "storageclass.beta.kubernetes.io/is-default-class"
_VAC_DEFAULT: Final = "volumeattributesclass.alpha.kubernetes.io/is-default-class"
_POLICIES = ("Delete", "Retain")
_MODES = ("Immediate", "WaitForFirstConsumer")
_PARAMETERS_SIZE: Final = 256 * 1024
_PARAMETERS_LIMIT: Final = 512


class StorageClass(Kind):
    """A kind of storage, and who makes volumes of it."""

    columns = (
        NAME_COLUMN,
        Column("Provisioner", description="Who makes its volumes."),
        Column("ReclaimPolicy", description="What happens to a volume that is given back."),
        Column("VolumeBindingMode", description="When a volume is made."),
        Column("AllowVolumeExpansion", description="Whether volumes can grow."),
        AGE_COLUMN,
    )

    def default(self, o: Object) -> None:
        if not o.get("reclaimPolicy"):
            o["reclaimPolicy"] = "Delete"
        if not o.get("volumeBindingMode"):
            o["volumeBindingMode"] = "Immediate"

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        _check_driver(o.get("provisioner", ""), "provisioner", faults)
        _check_parameters(o.get("parameters") or {}, "parameters", faults)
        checks.one_of(o.get("reclaimPolicy"), _POLICIES, "reclaimPolicy", faults, needed=False)
        checks.one_of(o.get("volumeBindingMode"), _MODES, "volumeBindingMode", faults)
        for index, term in enumerate(o.get("allowedTopologies") or ()):
            _check_topology(term, f"allowedTopologies[{index}]", faults)
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        faults = self.validate_body(new)
        for name in ("parameters", "provisioner", "reclaimPolicy"):
            if not equal(new.get(name), old.get(name)):
                faults.append(fields.forbidden(name, f"updates to {name} are forbidden."))
        mode, before = new.get("volumeBindingMode"), old.get("volumeBindingMode")
        return faults + fields.immutable("volumeBindingMode", mode, before)

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta = o["metadata"]
        return [
            _name(meta, DEFAULT_ANNOTATION, _OLD_DEFAULT),
            o.get("provisioner", ""),
            o.get("reclaimPolicy") or "Delete",
            o.get("volumeBindingMode") or "<unset>",
            "true" if o.get("allowVolumeExpansion") else "false",
            age(meta.get("creationTimestamp"), now),
        ]


class VolumeAttributesClass(Kind):
    """Properties of volumes that can be changed while they are in use."""

    columns = (
        NAME_COLUMN,
        Column("DriverName", description="The driver that knows them."),
        AGE_COLUMN,
    )

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        _check_driver(o.get("driverName", ""), "driverName", faults)
        parameters = o.get("parameters") or {}
        if not parameters:
            why = "must contain at least one key/value pair"
            faults.append(fields.required("parameters", why))
        _check_parameters(parameters, "parameters", faults)
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        for name in ("driverName", "parameters"):
            if not equal(new.get(name), old.get(name)):
                faults.append(fields.forbidden(name, f"updates to {name} are forbidden."))
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta = o["metadata"]
        created = age(meta.get("creationTimestamp"), now)
        return [_name(meta, _VAC_DEFAULT), o.get("driverName", ""), created]


def _name(meta: Object, *annotations: str) -> str:
    given = meta.get("annotations") or {}
    default = any(given.get(name) == "true" for name in annotations)
    return f"{meta.get('name', '')} (default)" if default else str(meta.get("name", ""))


def _check_driver(name: str, path: str, faults: Faults) -> None:
    if not name:
        faults.append(fields.required(path))
    else:
        checks.qualified_name(name.lower(), path, faults)


def _check_parameters(parameters: Object, path: str, faults: Faults) -> None:
    if len(parameters) > _PARAMETERS_LIMIT:
        faults.append(fields.too_long(path, _PARAMETERS_LIMIT))
        return
    size = 0
    for key, value in parameters.items():
        if not key:
            faults.append(fields.invalid(path, key, "field can not be empty."))
        size += len(key.encode()) + len(value.encode())
    if size > _PARAMETERS_SIZE:
        faults.append(fields.too_long(path, _PARAMETERS_SIZE))


def _check_topology(term: Object, path: str, faults: Faults) -> None:
    for index, expression in enumerate(term.get("matchLabelExpressions") or ()):
        where = f"{path}.matchLabelExpressions[{index}]"
        if not expression.get("values"):
            faults.append(fields.required(f"{where}.values"))
        checks.qualified_name(expression.get("key", ""), f"{where}.key", faults)
