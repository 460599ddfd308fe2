"""What is wrong with the schema of a custom resource: whether it is structural, above all.

Upstream: k8s.io/apiextensions-apiserver/pkg/apiserver/schema/validation.go.
"""

from __future__ import annotations

from typing import Any

from wherry.kube.api import regex
from wherry.kube.api.custom.rule_checks import check_rules
from wherry.kube.api.custom.structural import Structural
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import fields

Object = dict[str, Any]
Faults = list[FieldError]

_TYPES = ("array", "boolean", "integer", "number", "object", "string")


def check_schema(raw: Object, path: str, faults: Faults) -> None:
    """Every fault of the schema of a version, which stands at ``path``."""
    before = len(faults)
    if raw.get("type") != "object":
        if not raw.get("type"):
            faults.append(fields.required(f"{path}.type", "must not be empty at the root"))
        else:
            faults.append(fields.invalid(f"{path}.type", raw["type"], "must be object at the root"))
    if raw.get("nullable"):
        faults.append(fields.forbidden(f"{path}.nullable", "nullable cannot be true at the root"))
    metadata = (raw.get("properties") or {}).get("metadata")
    if metadata is not None:
        rest = set(metadata) - {"type", "description", "properties"}
        if rest or set(metadata.get("properties") or {}) - {"name", "generateName"}:
            why = (
                "must not specify anything other than name and generateName, but metadata is "
                "implicitly specified"
            )
            faults.append(fields.forbidden(f"{path}.properties[metadata]", why))
    _check_structure(raw, path, faults)
    if len(faults) == before:  # only of a schema that is one
        check_rules(raw, raw, path, faults)
        if len(faults) == before:
            _check_defaults(raw, path, faults)


_UNSTRUCTURAL = (
    "$ref", "definitions", "dependencies", "patternProperties", "additionalItems", "id", "$schema",
)  # fmt: skip
_JUNCTORS = ("allOf", "anyOf", "oneOf")


def _check_structure(raw: Object, path: str, faults: Faults) -> None:
    for name in _UNSTRUCTURAL:
        if raw.get(name):
            faults.append(fields.forbidden(f"{path}.{name}", f"{name} is not supported"))
    if raw.get("uniqueItems"):
        why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        faults.append(fields.forbidden(f"{path}.uniqueItems", why))
    type = raw.get("type", "")
    free = raw.get("x-kubernetes-preserve-unknown-fields")
    either = raw.get("x-kubernetes-int-or-string")
    if type and type not in _TYPES:
        faults.append(fields.not_supported(f"{path}.type", type, _TYPES))
    if either and type:
        why = "must be empty if x-kubernetes-int-or-string is true"
        faults.append(fields.forbidden(f"{path}.type", why))
    if free is False:
        why = "must be true or undefined"
        faults.append(fields.invalid(f"{path}.x-kubernetes-preserve-unknown-fields", False, why))
    if raw.get("x-kubernetes-embedded-resource"):
        if type != "object":
            why = "must be object if x-kubernetes-embedded-resource is true"
            faults.append(fields.invalid(f"{path}.type", type, why))
        if not raw.get("properties") and not free:
            why = (
                "must not be empty if x-kubernetes-embedded-resource is true without "
                "x-kubernetes-preserve-unknown-fields"
            )
            faults.append(fields.required(f"{path}.properties", why))
    if raw.get("properties") and raw.get("additionalProperties") is not None:
        why = "additionalProperties and properties are mutual exclusive"
        faults.append(fields.forbidden(f"{path}.additionalProperties", why))
    if raw.get("additionalProperties") is False:
        faults.append(
            fields.forbidden(
                f"{path}.additionalProperties", "additionalProperties cannot be set to false"
            )
        )
    if type == "array" and not isinstance(raw.get("items"), dict):
        if isinstance(raw.get("items"), list):
            faults.append(
                fields.forbidden(f"{path}.items", "items must be a schema object and not an array")
            )
        else:
            faults.append(fields.required(f"{path}.items", "must be specified"))
    _check_lists(raw, type, path, faults)
    _check_values(raw, path, faults)
    for name, part in (raw.get("properties") or {}).items():
        _check_typed(part, f"{path}.properties[{name}]", faults, "specified object fields")
    if isinstance(raw.get("additionalProperties"), dict):
        _check_typed(
            raw["additionalProperties"],
            f"{path}.additionalProperties",
            faults,
            "specified object fields",
        )
    if isinstance(raw.get("items"), dict):
        _check_typed(raw["items"], f"{path}.items", faults, "specified array items")


def _check_typed(part: Object, path: str, faults: Faults, what: str) -> None:
    if (
        not part.get("type")
        and not part.get("x-kubernetes-int-or-string")
        and not part.get("x-kubernetes-preserve-unknown-fields")
        and not part.get("$ref")
    ):
        faults.append(fields.required(f"{path}.type", f"must not be empty for {what}"))
    _check_structure(part, path, faults)


def _check_lists(raw: Object, type: str, path: str, faults: Faults) -> None:
    kind = raw.get("x-kubernetes-list-type")
    if kind is not None:
        if type != "array":
            why = "must be array if x-kubernetes-list-type is specified"
            faults.append(fields.invalid(f"{path}.type", type, why))
        if kind not in ("atomic", "map", "set"):
            faults.append(
                fields.not_supported(
                    f"{path}.x-kubernetes-list-type", kind, ("atomic", "set", "map")
                )
            )
    shape = raw.get("x-kubernetes-map-type")
    if shape is not None and shape not in ("atomic", "granular"):
        faults.append(
            fields.not_supported(f"{path}.x-kubernetes-map-type", shape, ("atomic", "granular"))
        )
    keys = raw.get("x-kubernetes-list-map-keys") or []
    if kind != "map":
        if keys:
            why = "x-kubernetes-list-map-keys must only be set when x-kubernetes-list-type is map"
            faults.append(fields.forbidden(f"{path}.x-kubernetes-list-map-keys", why))
        return
    if not keys:
        why = "must not be empty if x-kubernetes-list-type is map"
        faults.append(fields.required(f"{path}.x-kubernetes-list-map-keys", why))
    items = raw.get("items")
    if not isinstance(items, dict):
        return
    if items.get("type") != "object":
        why = "must be object if parent array's x-kubernetes-list-type is map"
        faults.append(fields.invalid(f"{path}.items.type", items.get("type", ""), why))
    properties, needed = items.get("properties") or {}, items.get("required") or ()
    for i, key in enumerate(keys):
        if key not in properties:
            why = "entries must all be names of item properties"
            faults.append(fields.invalid(f"{path}.x-kubernetes-list-map-keys[{i}]", key, why))
        elif key not in needed and "default" not in properties[key]:
            why = (
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a "
                "required property"
            )
            faults.append(fields.required(f"{path}.items.properties[{key}].default", why))


def _check_values(raw: Object, path: str, faults: Faults, *, nested: bool = False) -> None:
    """Faults of what validates a value; ``nested``: in a junctor, where nothing else may stand."""
    pattern = raw.get("pattern")
    if pattern:
        try:
            regex.compiled(pattern)
        except regex.BadPattern as error:
            why = f"must be a valid regular expression, but isn't: {error}"
            faults.append(fields.invalid(f"{path}.pattern", pattern, why))
    if nested:
        both = raw.get("x-kubernetes-int-or-string")
        for name, empty in (
            ("description", "be empty"), ("type", "be empty"), ("default", "be undefined"),
            ("additionalProperties", "be undefined"), ("nullable", "be false"),
            ("x-kubernetes-preserve-unknown-fields", "be undefined"),
            ("x-kubernetes-embedded-resource", "be false"),
            ("x-kubernetes-validations", "be empty"),
        ):  # fmt: skip
            if raw.get(name) not in (None, "", False) and not both:
                faults.append(fields.forbidden(f"{path}.{name}", f"must {empty} to be structural"))
        for name, part in (raw.get("properties") or {}).items():
            _check_values(part, f"{path}.properties[{name}]", faults, nested=True)
        if isinstance(raw.get("items"), dict):
            _check_values(raw["items"], f"{path}.items", faults, nested=True)
    allowed = _int_or_string_forms(raw)
    for name in _JUNCTORS:
        if (name, True) in allowed:
            continue
        for i, part in enumerate(raw.get(name) or ()):
            _check_values(part, f"{path}.{name}[{i}]", faults, nested=True)
    if isinstance(raw.get("not"), dict):
        _check_values(raw["not"], f"{path}.not", faults, nested=True)


def _int_or_string_forms(raw: Object) -> set[tuple[str, bool]]:
    """The junctors in which types may stand, as they say again that both are allowed."""
    if not raw.get("x-kubernetes-int-or-string"):
        return set()
    return {("anyOf", True), ("allOf", True)}


def _check_defaults(raw: Object, path: str, faults: Faults) -> None:
    default = raw.get("default")
    if default is not None:
        schema = Structural(raw)
        unknown: list[str] = []
        if schema.prune(default, "", unknown) is not default:
            faults.append(
                fields.invalid(f"{path}.default", default, "must not have unknown fields")
            )
        schema.validate(default, f"{path}.default", faults)
    for name, part in (raw.get("properties") or {}).items():
        _check_defaults(part, f"{path}.properties[{name}]", faults)
    for name in ("items", "additionalProperties"):
        if isinstance(raw.get(name), dict):
            _check_defaults(raw[name], f"{path}.{name}", faults)
