"""ConfigMaps.

Upstream: ValidateConfigMap in pkg/apis/core/validation/validation.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from wherry.kube.api import names
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import fields
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.durations import age

SIZE_LIMIT: Final = 1024 * 1024
"""Bytes of all values of a ConfigMap or Secret together."""


class ConfigMap(Kind):
    """Named pieces of configuration."""

    columns = (
        NAME_COLUMN,
        Column("Data", description="The number of keys."),
        AGE_COLUMN,
    )

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        data, binary = o.get("data") or {}, o.get("binaryData") or {}
        size = 0
        for key, value in data.items():
            path = f"data[{key}]"
            faults += [fields.invalid(path, key, m) for m in names.is_config_key(key)]
            if key in binary:
                why = "duplicate of key present in binaryData"
                faults.append(fields.invalid(path, key, why))
            size += len(value) if value.isascii() else len(value.encode())
        for key, value in binary.items():
            path = f"binaryData[{key}]"
            faults += [fields.invalid(path, key, m) for m in names.is_config_key(key)]
            size += decoded_size(value)
        if size > SIZE_LIMIT:
            faults.append(fields.too_long("[]", SIZE_LIMIT))  # the object as a whole
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        return frozen_faults(new, old, ("data", "binaryData")) + self.validate_body(new)

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta = o["metadata"]
        count = len(o.get("data") or ()) + len(o.get("binaryData") or ())
        return [meta.get("name", ""), count, age(meta.get("creationTimestamp"), now)]


def decoded_size(value: str) -> int:
    """Bytes that a base64 text stands for."""
    return len(value) * 3 // 4 - value[-2:].count("=")


def frozen_faults(new: Object, old: Object, names: Sequence[str]) -> list[FieldError]:
    """The complaints about changes to an object that was made immutable."""
    if not old.get("immutable"):
        return []
    why = "field is immutable when `immutable` is set"
    faults = [] if new.get("immutable") else [fields.forbidden("immutable", why)]
    changed = [name for name in names if (new.get(name) or {}) != (old.get(name) or {})]
    return faults + [fields.forbidden(name, why) for name in changed]
