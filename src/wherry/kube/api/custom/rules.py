"""Validation rules in CEL (``x-kubernetes-validations``), run over an object and its former state.

Upstream: k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel;
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from wherry.kube.api import cel
from wherry.kube.api.cel.conversions import duration, timestamp
from wherry.kube.api.custom.structural import Faults, Structural, type_of
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import fields

_SELF = frozenset({"self"})
_BOTH = frozenset({"self", "oldSelf"})
_BUDGET = 10_000_000
"""Steps that all rules of an object may take together."""
_PER_RULE = 1_000_000

_REASONS = {
    "FieldValueInvalid": "FieldValueInvalid",
    "FieldValueForbidden": "FieldValueForbidden",
    "FieldValueRequired": "FieldValueRequired",
    "FieldValueDuplicate": "FieldValueDuplicate",
}
_ABSENT = object()


def compile_rule(rule: dict[str, Any]) -> cel.Program:
    """Raises CompileError."""
    return cel.compile(rule["rule"], _BOTH)


def compile_message(rule: dict[str, Any]) -> cel.Program:
    """Raises CompileError."""
    return cel.compile(rule["messageExpression"], _BOTH)


class _Left:
    """What is left of an object's budget."""

    def __init__(self) -> None:
        self.steps = _BUDGET


def check_rules(schema: Structural, value: Any, old: Any, faults: Faults) -> None:
    """Faults that the rules find in an object; ``old`` is None where it is new."""
    if schema.has_rules:
        _walk(schema, value, _ABSENT if old is None else old, "", faults, _Left(), root=True)


def _walk(
    schema: Structural,
    value: Any,
    old: Any,
    path: str,
    faults: Faults,
    left: _Left,
    *,
    root: bool = False,
) -> None:
    if not schema.has_rules or value is None:
        return
    if schema.rules:
        _judge(schema, value, old, path, faults, left, root=root)
    if type(value) is dict:
        before = old if type(old) is dict else {}
        for name, each in value.items():
            part = schema.properties.get(name) or schema.additional
            if part is not None and part.has_rules:
                below = f"{path}.{name}" if path else name
                if part is schema.additional:
                    below = f"{path}[{name}]"
                _walk(part, each, before.get(name, _ABSENT), below, faults, left)
    elif type(value) is list and schema.items is not None:
        # Only items of maps can be told apart, so only they have a former state.
        keyed: dict[Any, Any] = {}
        if schema.list_type == "map" and type(old) is list:
            keyed = {schema.key_of(each): each for each in old}
        for i, each in enumerate(value):
            former = keyed.get(schema.key_of(each), _ABSENT) if keyed else _ABSENT
            _walk(schema.items, each, former, f"{path}[{i}]", faults, left)


def _judge(
    schema: Structural,
    value: Any,
    old: Any,
    path: str,
    faults: Faults,
    left: _Left,
    *,
    root: bool,
) -> None:
    given = {"self": typed(schema, value, root=root)}
    if old is not _ABSENT:
        given["oldSelf"] = typed(schema, old, root=root)
    for rule in schema.rules:
        try:
            program = compile_rule(rule)
        except cel.CompileError as error:
            faults.append(_fault(path, value, f"rule compile error: {error}", ""))
            continue
        variables = dict(given)
        if "oldSelf" in program.names:
            optional = rule.get("optionalOldSelf")
            if optional:
                before = given.get("oldSelf", _ABSENT)
                variables["oldSelf"] = cel.Optional(
                    before is not _ABSENT, None if before is _ABSENT else before
                )
            elif "oldSelf" not in given:
                continue  # a rule about changes; this is none
        try:
            held, rest = program.measured(variables, min(left.steps, _PER_RULE))
            left.steps -= min(left.steps, _PER_RULE) - rest
        except cel.CostExceeded:
            faults.append(
                _fault(
                    path,
                    value,
                    f"'{_short(rule['rule'])}': call cost exceeds limit for rule: {rule['rule']}",
                    "",
                )
            )
            return
        except cel.CELError as error:
            faults.append(
                _fault(path, value, f"rule evaluation error: '{rule['rule']}': {error}", "")
            )
            continue
        if held is not True:
            where = path + (rule.get("fieldPath") or "")
            faults.append(
                _fault(
                    where.removeprefix(".") if not path else where,
                    value,
                    _message(rule, variables),
                    rule.get("reason") or "",
                )
            )


def _message(rule: dict[str, Any], variables: dict[str, Any]) -> str:
    if rule.get("messageExpression"):
        try:
            said = compile_message(rule).evaluate(variables, _PER_RULE)
        except (cel.CELError, cel.CompileError):
            said = ""
        if isinstance(said, str) and said.strip() and "\n" not in said:
            return said
    if rule.get("message"):
        return str(rule["message"])
    return f"failed rule: {rule['rule'].strip()}"


def _short(rule: str) -> str:
    return rule if len(rule) < 100 else rule[:100] + "..."


def _fault(path: str, value: Any, message: str, reason: str) -> FieldError:
    reason = _REASONS.get(reason, "FieldValueInvalid")
    match reason:
        case "FieldValueForbidden":
            return fields.forbidden(path, message)
        case "FieldValueRequired":
            return fields.required(path, message)
        case "FieldValueDuplicate":
            return fields.duplicate(path, type_of(value), message)
    kind = type_of(value)
    return fields.invalid(path, kind if kind in ("object", "array") else value, message)


# --- values as rules see them -------------------------------------------------------------------


class _Keyed(list[Any]):
    """A list that is a set or a map: items are equal in any order, and join by their keys."""

    schema: Structural

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, list) or len(other) != len(self):
            return False
        mine = {self.schema.key_of(each): each for each in self}
        theirs = {self.schema.key_of(each): each for each in other}
        return list.__eq__(
            [mine[key] for key in sorted(mine)], [theirs[key] for key in sorted(theirs)]
        )

    __hash__ = None

    def cel_joined(self, other: list[Any]) -> list[Any]:
        joined = {self.schema.key_of(each): each for each in self}
        joined.update({self.schema.key_of(each): each for each in other})
        out = _Keyed(joined.values())
        out.schema = self.schema
        return out


def typed(schema: Structural, value: Any, *, root: bool = False) -> Any:
    """``value`` as rules see it: times and bytes by their formats, numbers by their types, lists
    by their kinds; of metadata only the name."""
    if type(value) is dict:
        out = {}
        for name, each in value.items():
            if (root or schema.embedded) and name == "metadata" and isinstance(each, dict):
                out[name] = {k: each[k] for k in ("name", "generateName") if k in each}
                continue
            part = schema.properties.get(name) or schema.additional
            if part is not None:
                out[name] = typed(part, each)
            elif (
                schema.preserve
                or schema.additional_any
                or ((root or schema.embedded) and name in ("apiVersion", "kind"))
            ):
                out[name] = each
        return out
    if type(value) is list:
        items = schema.items
        made = [typed(items, each) for each in value] if items is not None else value
        if schema.list_type in ("set", "map"):
            keyed = _Keyed(made)
            keyed.schema = schema
            return keyed
        return made
    if type(value) is str and schema.formats:
        return _formatted(schema.raw.get("format"), value)
    if schema.type == "number" and type(value) is int:
        return float(value)
    if schema.type == "integer" and type(value) is float:
        return int(value)
    return value


def _formatted(name: str | None, value: str) -> Any:
    try:
        match name:
            case "date-time" | "date":
                return timestamp(value if name == "date-time" else f"{value}T00:00:00Z")
            case "duration":
                return duration(value)
            case "byte":
                return base64.b64decode(value, validate=True)
    except (cel.CELError, ValueError, binascii.Error):
        return value  # the schema's own check has told of it
    return value
