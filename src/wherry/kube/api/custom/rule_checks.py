"""What is wrong with the rules in a schema of a custom resource (``x-kubernetes-validations``).

Upstream: k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wherry.kube.api import cel
from wherry.kube.api.cel.syntax import Node, report
from wherry.kube.api.custom.rules import compile_message, compile_rule
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import fields

Object = dict[str, Any]
Faults = list[FieldError]

_REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")


def check_rules(raw: Object, root: Object, path: str, faults: Faults) -> None:
    """Every fault of the rules in a schema, a part of ``root``."""
    for i, rule in enumerate(raw.get("x-kubernetes-validations") or ()):
        _check_rule(rule, raw, raw is root, f"{path}.x-kubernetes-validations[{i}]", faults)
    for name, part in (raw.get("properties") or {}).items():
        check_rules(part, root, f"{path}.properties[{name}]", faults)
    for name in ("items", "additionalProperties"):
        if isinstance(raw.get(name), dict):
            check_rules(raw[name], root, f"{path}.{name}", faults)


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
