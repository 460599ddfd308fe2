"""What is wrong with a CustomResourceDefinition.

Its schemas are judged by ``schema_checks``, their rules by ``rule_checks``.
Upstream: k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go.
"""

from __future__ import annotations

from typing import Any

from wherry.kube.api import names
from wherry.kube.api.custom import paths
from wherry.kube.api.custom.schema_checks import check_schema
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import fields

Object = dict[str, Any]
Faults = list[FieldError]

_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")


def check_definition(o: Object, old: Object | None) -> Faults:
    """Every fault of its name and spec."""
    faults: Faults = []
    spec = o.get("spec") or {}
    given = spec.get("names") or {}
    group, plural = spec.get("group", ""), given.get("plural", "")
    name = o["metadata"].get("name", "")
    if name != f"{plural}.{group}":
        why = 'must be spec.names.plural+"."+spec.group'
        faults.append(fields.invalid("metadata.name", name, why))
    if not group:
        faults.append(fields.required("spec.group"))
    else:
        faults += [
            fields.invalid("spec.group", group, why) for why in names.is_dns1123_subdomain(group)
        ]
        if "." not in group:
            faults.append(
                fields.invalid("spec.group", group, "should be a domain with at least one dot")
            )
    scope = spec.get("scope", "")
    if not scope:
        faults.append(fields.required("spec.scope"))
    elif scope not in ("Cluster", "Namespaced"):
        faults.append(fields.not_supported("spec.scope", scope, ("Cluster", "Namespaced")))
    _check_names(given, faults)
    versions = spec.get("versions") or []
    loose = bool(spec.get("preserveUnknownFields"))
    for i, version in enumerate(versions):
        _check_version(version, f"spec.versions[{i}]", faults, loose=loose)
    known = [version.get("name", "") for version in versions]
    if len(set(known)) != len(known):
        faults.append(fields.invalid("spec.versions", known, "must contain unique version names"))
    if sum(bool(version.get("storage")) for version in versions) != 1:
        why = "must have exactly one version marked as storage version"
        faults.append(fields.invalid("spec.versions", versions, why))
    if loose and not ((old or {}).get("spec") or {}).get("preserveUnknownFields"):
        faults.append(fields.invalid("spec.preserveUnknownFields", True, "must be false"))
    _check_conversion(spec.get("conversion") or {}, faults)
    return faults


def _check_names(given: Object, faults: Faults) -> None:
    for field in ("plural", "singular", "kind", "listKind"):
        name, path = given.get(field, ""), f"spec.names.{field}"
        if not name:
            faults.append(fields.required(path))
            continue
        text = name if field in ("plural", "singular") else name.lower()
        wrong = names.is_dns1035_label(text)
        if wrong:
            lower = "" if text == name else "may have mixed case, but should otherwise match: "
            faults.append(fields.invalid(path, name, lower + ",".join(wrong)))
    for i, name in enumerate(given.get("shortNames") or ()):
        if wrong := names.is_dns1035_label(name):
            faults.append(fields.invalid(f"spec.names.shortNames[{i}]", name, ",".join(wrong)))
    for i, name in enumerate(given.get("categories") or ()):
        if wrong := names.is_dns1035_label(name):
            faults.append(fields.invalid(f"spec.names.categories[{i}]", name, ",".join(wrong)))
    if given.get("kind") and given.get("kind") == given.get("listKind"):
        why = "kind and listKind may not be the same"
        faults.append(fields.invalid("spec.names.listKind", given["listKind"], why))


def _check_conversion(conversion: Object, faults: Faults) -> None:
    path = "spec.conversion"
    strategy = conversion.get("strategy", "None")
    webhook = conversion.get("webhook")
    if strategy not in ("None", "Webhook"):
        faults.append(fields.not_supported(f"{path}.strategy", strategy, ("None", "Webhook")))
    if strategy == "None" and webhook:
        why = "should not be set when strategy is not set to Webhook"
        faults.append(fields.forbidden(f"{path}.webhook", why))
    if strategy != "Webhook":
        return
    client = (webhook or {}).get("clientConfig")
    below = f"{path}.webhookClientConfig"
    if not client:
        why = "required when strategy is set to Webhook"
        faults.append(fields.required(below, why))
    elif bool(client.get("url")) == bool(client.get("service")):
        faults.append(fields.required(below, "exactly one of url or service is required"))
    elif client.get("url") and not client["url"].startswith("https://"):
        faults.append(
            fields.invalid(
                f"{below}.url",
                client["url"],
                "'https' is the only allowed URL scheme; desired format: https://host[/path]",
            )
        )
    versions = (webhook or {}).get("conversionReviewVersions") or []
    if not versions:
        faults.append(fields.required(f"{path}.conversionReviewVersions"))
    elif not {"v1", "v1beta1"} & set(versions):
        faults.append(
            fields.invalid(
                f"{path}.conversionReviewVersions",
                versions,
                "must include at least one of v1, v1beta1",
            )
        )


def _check_version(version: Object, path: str, faults: Faults, *, loose: bool) -> None:
    """``loose``: a definition of v1beta1, whose schema need not be structural or there at all."""
    name = version.get("name", "")
    faults += [fields.invalid(f"{path}.name", name, w) for w in names.is_dns1035_label(name)]
    if version.get("deprecationWarning") and not version.get("deprecated"):
        why = "can only be set for deprecated versions"
        faults.append(
            fields.invalid(f"{path}.deprecationWarning", version["deprecationWarning"], why)
        )
    raw = (version.get("schema") or {}).get("openAPIV3Schema")
    below = f"{path}.schema.openAPIV3Schema"
    if raw is None:
        if not loose:
            faults.append(fields.required(below, "schemas are required"))
        raw = {}
    elif not loose:
        check_schema(raw, below, faults)
    subresources = version.get("subresources") or {}
    if "scale" in subresources:
        _check_scale(subresources["scale"], f"{path}.subresources.scale", faults)
    for i, column in enumerate(version.get("additionalPrinterColumns") or ()):
        _check_column(column, f"{path}.additionalPrinterColumns[{i}]", faults)
    selected = version.get("selectableFields") or []
    if len(selected) > 8:
        faults.append(fields.too_many(f"{path}.selectableFields", len(selected), 8))
    seen = set()
    for i, each in enumerate(selected):
        where, at = f"{path}.selectableFields[{i}].jsonPath", each.get("jsonPath", "")
        if not at:
            faults.append(fields.required(where))
        elif at in seen:
            faults.append(fields.duplicate(where, at))
        elif why := _unselectable(raw, at):
            faults.append(fields.invalid(where, at, why))
        seen.add(at)


def _unselectable(schema: Object, path: str) -> str:
    steps = paths.simple(path)
    if steps is None:
        return "is an invalid path: only names may stand in it"
    if steps[0] == "metadata":
        return "must not point to fields in metadata"
    for name in steps:
        below: Object | None = (schema.get("properties") or {}).get(name)
        if below is None:
            return f"is an invalid path: does not refer to a valid field: {name}"
        schema = below
    if schema.get("type") not in ("string", "boolean", "integer"):
        return (
            "must point to a field of type string, boolean or integer. Enum string fields and "
            "strings with formats are allowed."
        )
    return ""


def _check_scale(scale: Object, path: str, faults: Faults) -> None:
    for name, above, needed in (
        ("specReplicasPath", ".spec.", True),
        ("statusReplicasPath", ".status.", True),
        ("labelSelectorPath", "", False),
    ):
        text, where = scale.get(name) or "", f"{path}.{name}"
        if not text:
            if needed:
                faults.append(fields.required(where))
            continue
        allowed = (above,) if above else (".spec.", ".status.")
        if not text.startswith(allowed):
            what = " or ".join(f"be a json path under {each[:-1]}" for each in allowed)
            if len(allowed) > 1:
                what = "be a json path under either .spec or .status"
            faults.append(fields.invalid(where, text, f"should {what}"))
        elif paths.simple(text) is None:
            faults.append(
                fields.invalid(where, text, "should be a json path: no array notation is allowed")
            )


def _check_column(column: Object, path: str, faults: Faults) -> None:
    if not column.get("name"):
        faults.append(fields.required(f"{path}.name"))
    type = column.get("type", "")
    if not type:
        options = ", ".join(_COLUMN_TYPES)
        faults.append(fields.required(f"{path}.type", f"must be one of {options}"))
    elif type not in _COLUMN_TYPES:
        options = ", ".join(_COLUMN_TYPES)
        faults.append(fields.invalid(f"{path}.type", type, f"must be one of {options}"))
    form = column.get("format", "")
    if form and form not in _COLUMN_FORMATS:
        options = ", ".join(_COLUMN_FORMATS)
        faults.append(fields.invalid(f"{path}.format", form, f"must be one of {options}"))
    text = column.get("jsonPath", "")
    if not text:
        faults.append(fields.required(f"{path}.JSONPath"))
        return
    try:
        if not text.startswith("."):
            raise paths.BadPath("must start with '.'")
        paths.parse(text)
    except paths.BadPath as error:
        faults.append(fields.invalid(f"{path}.JSONPath", text, f"is an invalid json path: {error}"))
