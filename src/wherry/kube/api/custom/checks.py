"""What is wrong with a CustomResourceDefinition.

Upstream: k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go and
.../pkg/apiserver/schema/validation.go (what makes a schema structural).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wherry.kube.api import cel, names, regex
from wherry.kube.api.cel.syntax import Node, report
from wherry.kube.api.custom import paths
from wherry.kube.api.custom.rules import compile_message, compile_rule
from wherry.kube.api.custom.structural import Structural
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import fields

Object = dict[str, Any]
Faults = list[FieldError]

_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")


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
        _check_schema(raw, below, faults)
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


# --- schemas -----------------------------------------------------------------------------------


def _check_schema(raw: Object, path: str, faults: Faults) -> None:
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
        _check_rules(raw, raw, path, faults)
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


# --- rules -------------------------------------------------------------------------------------


def _check_rules(raw: Object, root: Object, path: str, faults: Faults) -> None:
    for i, rule in enumerate(raw.get("x-kubernetes-validations") or ()):
        _check_rule(rule, raw, raw is root, f"{path}.x-kubernetes-validations[{i}]", faults)
    for name, part in (raw.get("properties") or {}).items():
        _check_rules(part, root, f"{path}.properties[{name}]", faults)
    for name in ("items", "additionalProperties"):
        if isinstance(raw.get(name), dict):
            _check_rules(raw[name], root, f"{path}.{name}", faults)


def _check_rule(rule: Object, raw: Object, is_root: bool, path: str, faults: Faults) -> None:
    text = rule.get("rule", "")
    if not text.strip():
        faults.append(fields.required(f"{path}.rule", "rule is not specified"))
        return
    try:
        program = compile_rule(rule)
        if (wrong := _undefined(program.tree, raw, is_root)) is not None:
            at, name = wrong
            raise cel.CompileError(report(text, at, f"undefined field '{name}'"))
    except cel.CompileError as error:
        faults.append(
            FieldError(
                f"{path}.rule",
                "FieldValueInvalid",
                f"Invalid value: {_go_rule(rule)}: compilation failed: {error}",
            )
        )
        return
    if "optionalOldSelf" in rule and "oldSelf" not in program.names:
        why = "may not be set if oldSelf is not used in rule"
        faults.append(fields.invalid(f"{path}.optionalOldSelf", rule["optionalOldSelf"], why))
    if rule.get("messageExpression"):
        try:
            compile_message(rule)
        except cel.CompileError as error:
            faults.append(
                FieldError(
                    f"{path}.messageExpression",
                    "FieldValueInvalid",
                    f"Invalid value: {_go_rule(rule)}: messageExpression compilation failed: "
                    f"{error}",
                )
            )
    message = rule.get("message", "")
    if "\n" in message:
        faults.append(
            fields.invalid(f"{path}.message", message, "message must not contain line breaks")
        )
    if "\n" in text.strip() and not message:
        why = "message must be specified if rule contains line breaks"
        faults.append(fields.required(f"{path}.message", why))
    reason = rule.get("reason")
    if reason is not None and reason not in _REASONS:
        faults.append(fields.not_supported(f"{path}.reason", reason, _REASONS))
    where = rule.get("fieldPath")
    if where and not _leads(raw, where):
        why = "fieldPath must be a valid path: does not refer to a valid field"
        faults.append(fields.invalid(f"{path}.fieldPath", where, why))


def _go_rule(rule: Object) -> str:
    """A rule as Go prints it."""
    reason = "(*apiextensions.FieldValueErrorReason)(nil)"
    return (
        f"apiextensions.ValidationRule{{Rule:{fields.quote(rule['rule'])}, "
        f"Message:{fields.quote(rule.get('message', ''))}, "
        f"MessageExpression:{fields.quote(rule.get('messageExpression', ''))}, Reason:{reason}, "
        f"FieldPath:{fields.quote(rule.get('fieldPath', ''))}, OptionalOldSelf:(*bool)(nil)}}"
    )


def _leads(raw: Object, path: str) -> bool:
    """Whether ``.spec.replicas`` or ``.map['key']`` is a field of the schema."""
    at: Any = raw
    text = path.replace("['", ".").replace("']", "")
    for name in text.removeprefix(".").split("."):
        at = (at.get("properties") or {}).get(name) or (
            at["additionalProperties"] if isinstance(at.get("additionalProperties"), dict) else None
        )
        if at is None:
            return False
    return True


_ROOT = {
    "apiVersion": {"type": "string"},
    "kind": {"type": "string"},
    "metadata": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "generateName": {"type": "string"}},
    },
}


def _undefined(node: Any, raw: Object, is_root: bool) -> tuple[int, str] | None:
    """The first field that a rule selects of self and the schema does not have."""
    if isinstance(node, Node):
        if node.kind == "select":
            schema = _schema_at(node.parts[0], raw, is_root)
            if schema is not None and not _knows(schema, node.parts[1]):
                return node.at, node.parts[1]
        return _undefined(node.parts, raw, is_root)
    if isinstance(node, list | tuple):
        return next(_found(_undefined(each, raw, is_root) for each in node), None)
    return None


def _found(each: Iterable[tuple[int, str] | None]) -> Any:
    return (one for one in each if one is not None)


def _schema_at(node: Node, raw: Object, is_root: bool) -> Object | None:
    """The schema of a part of self; None where it is something else, or unknown."""
    if node.kind == "name" and node.parts in ("self", "oldSelf"):
        if is_root or raw.get("x-kubernetes-embedded-resource"):
            return {**raw, "properties": {**(raw.get("properties") or {}), **_ROOT}}
        return raw
    if node.kind == "select":
        above = _schema_at(node.parts[0], raw, is_root)
        if above is None:
            return None
        field = cel.unescape(node.parts[1])
        found: Object | None = (above.get("properties") or {}).get(field)
        if found is None and isinstance(above.get("additionalProperties"), dict):
            return dict(above["additionalProperties"])
        return found
    return None


def _knows(schema: Object, field: str) -> bool:
    if schema.get("type") != "object":
        return not schema.get("type")
    if schema.get("additionalProperties") or schema.get("x-kubernetes-preserve-unknown-fields"):
        return True
    return cel.unescape(field) in (schema.get("properties") or {}) or not schema.get("properties")
