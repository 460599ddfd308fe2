"""Secrets.

Upstream: ValidateSecret in pkg/apis/core/validation/validation.go.
"""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Any, Final

import orjson

from wherry.kube.api import names
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import fields
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.config_map import SIZE_LIMIT, decoded_size, frozen_faults
from wherry.kube.api.kinds.durations import age

SERVICE_ACCOUNT_NAME: Final = "kubernetes.io/service-account.name"

_DOCKER_KEYS = {
    "kubernetes.io/dockercfg": ".dockercfg",
    "kubernetes.io/dockerconfigjson": ".dockerconfigjson",
}
_REDACTED = "<secret contents redacted>"


class Secret(Kind):
    """Named pieces of data that are not for everyone."""

    columns = (
        NAME_COLUMN,
        Column("Type", description="What the data is for."),
        Column("Data", description="The number of keys."),
        AGE_COLUMN,
    )
    field_names = frozenset({"type"})

    def default(self, o: Object) -> None:
        if not o.get("type"):
            o["type"] = "Opaque"
        if texts := o.pop("stringData", None):  # for writing only: shown as data
            encoded = {k: base64.b64encode(v.encode()).decode() for k, v in texts.items()}
            o["data"] = {**(o.get("data") or {}), **encoded}

    def prepare_update(self, new: Object, old: Object) -> None:
        super().prepare_update(new, old)
        if not new.get("type"):
            new["type"] = old.get("type", "")

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        data: dict[str, str] = o.get("data") or {}
        for key in data:
            faults += [fields.invalid(f"data[{key}]", key, m) for m in names.is_config_key(key)]
        if sum(map(decoded_size, data.values())) > SIZE_LIMIT:
            faults.append(fields.too_long("data", SIZE_LIMIT))
        match o.get("type", ""):
            case "kubernetes.io/service-account-token":
                annotations = (o.get("metadata") or {}).get("annotations") or {}
                if not annotations.get(SERVICE_ACCOUNT_NAME):
                    path = f"metadata.annotations[{SERVICE_ACCOUNT_NAME}]"
                    faults.append(fields.required(path))
            case "kubernetes.io/dockercfg" | "kubernetes.io/dockerconfigjson" as kind:
                _check_docker(data, _DOCKER_KEYS[kind], faults)
            case "kubernetes.io/basic-auth":
                if "username" not in data and "password" not in data:
                    faults.append(fields.required("data[username]"))
                    faults.append(fields.required("data[password]"))
            case "kubernetes.io/ssh-auth":
                if not data.get("ssh-privatekey"):
                    faults.append(fields.required("data[ssh-privatekey]"))
            case "kubernetes.io/tls":
                for key in ("tls.crt", "tls.key"):
                    if key not in data:
                        faults.append(fields.required(f"data[{key}]"))
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        faults = fields.immutable("type", new.get("type", ""), old.get("type", ""))
        return faults + frozen_faults(new, old, ("data",)) + self.validate_body(new)

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta = o["metadata"]
        count = len(o.get("data") or ())
        created = age(meta.get("creationTimestamp"), now)
        return [meta.get("name", ""), o.get("type", ""), count, created]

    def selectable_fields(self, o: Object) -> dict[str, str]:
        values = super().selectable_fields(o)
        values["type"] = o.get("type", "")
        return values


def _check_docker(data: dict[str, str], key: str, faults: Faults) -> None:
    if key not in data:
        faults.append(fields.required(f"data[{key}]"))
        return
    try:
        content = base64.b64decode(data[key])
        valid = isinstance(orjson.loads(content), dict)
        why = "json: cannot unmarshal into Go value of type map[string]interface {}"
    except (binascii.Error, orjson.JSONDecodeError):
        valid = False
        why = "unexpected end of JSON input" if not data[key] else "invalid JSON"
    if not valid:
        faults.append(fields.invalid(f"data[{key}]", _REDACTED, why))
