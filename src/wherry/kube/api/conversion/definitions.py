"""CustomResourceDefinitions of apiextensions.k8s.io/v1beta1: what all versions have in common stood
beside them, one version needed no list, and a schema need not be there or be structural.

Upstream: k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1/{conversion,defaults}.go.
"""

from __future__ import annotations

from wherry.kube.api.conversion.version import Conversion
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds.base import Object

_COMMON = {
    "validation": "schema",
    "subresources": "subresources",
    "additionalPrinterColumns": "additionalPrinterColumns",
    "selectableFields": "selectableFields",
}
"""Fields beside the list of versions, and what they are called in it."""
_WEBHOOK = {"webhookClientConfig": "clientConfig", "conversionReviewVersions": None}


def _default(o: Object) -> None:
    spec = o.setdefault("spec", {})
    spec.setdefault("scope", "Namespaced")
    spec.setdefault("preserveUnknownFields", True)
    if not spec.get("versions") and spec.get("version"):
        spec["versions"] = [{"name": spec["version"], "served": True, "storage": True}]
    conversion = spec.setdefault("conversion", {})
    conversion.setdefault("strategy", "None")
    if conversion["strategy"] == "Webhook" and not conversion.get("conversionReviewVersions"):
        conversion["conversionReviewVersions"] = ["v1beta1"]


def to_stored(o: Object) -> Object:
    """From v1beta1."""
    spec = dict(o.get("spec") or {})
    spec.pop("version", None)
    common = {name: spec.pop(field) for field, name in _COMMON.items() if field in spec}
    if spec.get("versions"):
        spec["versions"] = [_columns({**common, **v}, "JSONPath", "jsonPath")
                            for v in spec["versions"]]  # fmt: skip
    if conversion := spec.get("conversion"):
        kept = {k: v for k, v in conversion.items() if k not in _WEBHOOK}
        webhook = {
            to or field: conversion[field] for field, to in _WEBHOOK.items() if field in conversion
        }
        spec["conversion"] = {**kept, "webhook": webhook} if webhook else kept
    return _of(o, spec)


def from_stored(o: Object) -> Object:
    """To v1beta1: what all versions have in common stands beside them again."""
    spec = dict(o.get("spec") or {})
    versions: list[Object] = [
        _columns(v, "jsonPath", "JSONPath") for v in spec.get("versions") or ()
    ]
    if versions:
        spec["version"] = versions[0].get("name", "")
        for field, name in _COMMON.items():
            first = versions[0].get(name)
            if all(v.get(name) == first for v in versions):
                versions = [{k: x for k, x in v.items() if k != name} for v in versions]
                if first is not None:
                    spec[field] = first
        spec["versions"] = versions
    spec.setdefault("preserveUnknownFields", False)
    if conversion := spec.get("conversion"):
        webhook = conversion.get("webhook") or {}
        kept = {k: v for k, v in conversion.items() if k != "webhook"}
        for field, renamed in _WEBHOOK.items():
            if (renamed or field) in webhook:
                kept[field] = webhook[renamed or field]
        spec["conversion"] = kept
    return _of(o, spec)


def _of(o: Object, spec: Object) -> Object:
    return {**o, "spec": spec} if "spec" in o else o


def _columns(version: Object, old: str, new: str) -> Object:
    """The version with the path of its columns called otherwise."""
    columns = version.get("additionalPrinterColumns")
    if not columns:
        return version
    renamed = [{(new if k == old else k): v for k, v in column.items()} for column in columns]
    return {**version, "additionalPrinterColumns": renamed}


def _fault(fault: FieldError) -> FieldError | None:
    if fault.field == "spec.preserveUnknownFields":
        return None
    first = "spec.versions[0].schema."
    if fault.field.startswith(first):
        path = "spec.validation." + fault.field.removeprefix(first)
        return FieldError(path, fault.reason, fault.detail)
    return fault


DEFINITION = Conversion(to_stored, from_stored, default=_default, fault=_fault)
