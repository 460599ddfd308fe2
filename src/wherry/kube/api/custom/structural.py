"""Structural schemas of custom resources, compiled once: pruning, defaulting, validation.

Upstream: k8s.io/apiextensions-apiserver/pkg/apiserver/schema and .../validation; the texts of
faults are go-openapi's, as its ``ValidateCustomResource`` words them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from wherry.kube.api import regex
from wherry.kube.api.custom.formats import FORMATS
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import fields
from wherry.kube.api.meta import clone

Faults = list[FieldError]

_MOST_UNKNOWN = 100
_IDENTITY = frozenset(("apiVersion", "kind", "metadata"))


def type_of(value: Any) -> str:
    """The JSON type of a value, as schemas call it."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


class Structural:
    """A schema and those below it. Immutable; may be shared."""

    __slots__ = (
        "additional", "additional_any", "checks", "default", "embedded", "formats", "has_default",
        "has_rules", "int_or_string", "items", "keys", "list_type", "nullable",
        "preserve", "properties", "raw", "required", "rules", "type", "values",
    )  # fmt: skip

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = raw
        self.type: str = raw.get("type", "")
        self.nullable = bool(raw.get("nullable"))
        self.has_default = raw.get("default") is not None
        self.default = raw.get("default")
        self.preserve = bool(raw.get("x-kubernetes-preserve-unknown-fields"))
        self.embedded = bool(raw.get("x-kubernetes-embedded-resource"))
        self.int_or_string = bool(raw.get("x-kubernetes-int-or-string"))
        self.list_type: str = raw.get("x-kubernetes-list-type", "")
        self.keys: tuple[str, ...] = tuple(raw.get("x-kubernetes-list-map-keys") or ())
        self.required: tuple[str, ...] = tuple(raw.get("required") or ())
        self.properties = {
            name: Structural(part) for name, part in (raw.get("properties") or {}).items()
        }
        items = raw.get("items")
        self.items = Structural(items) if isinstance(items, dict) else None
        additional = raw.get("additionalProperties")
        self.additional = Structural(additional) if isinstance(additional, dict) else None
        self.additional_any = additional is True
        self.rules = tuple(raw.get("x-kubernetes-validations") or ())
        below = [*self.properties.values()]
        below += [each for each in (self.items, self.additional) if each is not None]
        self.values: bool = any(each.values or each.has_default for each in below)
        """Whether a default stands somewhere below."""
        self.has_rules: bool = bool(self.rules) or any(each.has_rules for each in below)
        self.formats: bool = raw.get("format") in ("date-time", "date", "duration", "byte") or any(
            each.formats for each in below
        )
        self.checks = _checks(raw)

    def field(self, name: str) -> Structural | None:
        return self.properties.get(name) or self.additional

    # --- pruning --------------------------------------------------------------------------------

    def prune(self, value: Any, path: str, unknown: list[str], *, root: bool = False) -> Any:
        """``value`` without fields the schema does not know; where nothing goes, itself.

        ``unknown`` takes the complaints.
        """
        if type(value) is dict:
            embedded = root or self.embedded
            out = value
            for key, each in value.items():
                if embedded and key in _IDENTITY:
                    continue
                part = self.properties.get(key)
                if part is None:
                    part = self.additional
                if part is not None:
                    pruned = part.prune(each, f"{path}.{key}" if path else key, unknown)
                    if pruned is not each:
                        out = dict(value) if out is value else out
                        out[key] = pruned
                elif not self.preserve and not self.additional_any:
                    out = dict(value) if out is value else out
                    del out[key]
                    if len(unknown) < _MOST_UNKNOWN:
                        unknown.append(f'unknown field "{f"{path}.{key}" if path else key}"')
            return out
        if type(value) is list and self.items is not None:
            out_list = value
            for i, each in enumerate(value):
                pruned = self.items.prune(each, f"{path}[{i}]", unknown)
                if pruned is not each:
                    out_list = list(value) if out_list is value else out_list
                    out_list[i] = pruned
            return out_list
        return value

    # --- defaulting -----------------------------------------------------------------------------

    def fill(self, value: Any) -> None:
        """Put defaults where nothing is, in place. A null that may not be is nothing."""
        if not self.values:
            return
        if type(value) is dict:
            for name, part in self.properties.items():
                if part.has_default and (
                    name not in value or (value[name] is None and not part.nullable)
                ):
                    value[name] = clone(part.default)
                if name in value:
                    part.fill(value[name])
            if self.additional is not None:
                part = self.additional
                for name in value:
                    if name not in self.properties:
                        if value[name] is None and part.has_default and not part.nullable:
                            value[name] = clone(part.default)
                        part.fill(value[name])
        elif type(value) is list and self.items is not None:
            for i, each in enumerate(value):
                if each is None and self.items.has_default and not self.items.nullable:
                    value[i] = clone(self.items.default)
                self.items.fill(value[i])

    # --- validation -----------------------------------------------------------------------------

    def validate(self, value: Any, path: str, faults: Faults) -> None:
        """Every fault of ``value``, which stands at ``path``."""
        if value is None and self.nullable:
            return
        if not self._is_typed(value):
            found = type_of(value)
            wanted = self.type or "integer,string"
            faults.append(
                fields.type_invalid(
                    path, found, f"{path} in body must be of type {wanted}: {fields.quote(found)}"
                )
            )
            return
        for check in self.checks:
            check(value, path, faults)
        if type(value) is dict:
            for name in self.required:
                if name not in value:
                    faults.append(fields.required(_join(path, name)))
            if self.embedded:
                _check_embedded(value, path, faults)
            for name, each in value.items():
                part = self.properties.get(name) or self.additional
                if part is not None:
                    part.validate(each, _join(path, name), faults)
        elif type(value) is list:
            if self.items is not None:
                for i, each in enumerate(value):
                    self.items.validate(each, f"{path}[{i}]", faults)
            if self.list_type in ("set", "map"):
                self._check_unique(value, path, faults)

    def _is_typed(self, value: Any) -> bool:
        if self.int_or_string:
            return type(value) in (int, str)
        match self.type:
            case "object":
                return type(value) is dict
            case "array":
                return type(value) is list
            case "string":
                return type(value) is str
            case "boolean":
                return type(value) is bool
            case "integer":
                return type(value) is int or (type(value) is float and value.is_integer())
            case "number":
                return type(value) in (int, float)
        return value is not None or self.preserve or not self.type

    def key_of(self, item: Any) -> Any:
        """What tells an item of a list apart: its keys, or itself in a set."""
        if self.list_type == "set":
            return orjson.dumps(item, option=orjson.OPT_SORT_KEYS)
        if not isinstance(item, dict) or self.items is None:
            return None
        known = self.items.properties
        identity = {
            key: item[key] if key in item else (known[key].default if key in known else None)
            for key in self.keys
        }
        return orjson.dumps(identity)

    def _check_unique(self, value: list[Any], path: str, faults: Faults) -> None:
        seen = set()
        for i, each in enumerate(value):
            key = self.key_of(each)
            if key in seen:
                shown = orjson.loads(key) if self.list_type == "map" else each
                faults.append(fields.duplicate(f"{path}[{i}]", shown))
            seen.add(key)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _check_embedded(value: dict[str, Any], path: str, faults: Faults) -> None:
    for name in ("apiVersion", "kind"):
        if name not in value:
            faults.append(fields.required(f"{path}.{name}", "must not be empty"))
        elif not isinstance(value[name], str) or not value[name]:
            faults.append(fields.invalid(f"{path}.{name}", value[name], "must not be empty"))
    if not isinstance(value.get("metadata", {}), dict):
        faults.append(
            fields.type_invalid(f"{path}.metadata", value["metadata"], "must be an object")
        )


Check = Callable[[Any, str, Faults], None]


def _number(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    return str(value)


def _checks(raw: Mapping[str, Any]) -> tuple[Check, ...]:
    """The rules about a value itself that a schema states."""
    checks: list[Check] = []
    for name, make in _RULES.items():
        if raw.get(name) is not None:
            made = make(raw[name], raw)
            if made is not None:
                checks.append(made)
    return tuple(checks)


def _measure(types: tuple[type, ...], holds: Callable[[Any], bool], says: str) -> Check:
    def check(value: Any, path: str, faults: Faults) -> None:
        if type(value) in types and not holds(value):
            faults.append(fields.invalid(path, value, f"{path} in body {says}"))

    return check


def _minimum(limit: Any, raw: Mapping[str, Any]) -> Check:
    if raw.get("exclusiveMinimum"):
        return _measure(
            (int, float), lambda v: v > limit, f"should be greater than {_number(limit)}"
        )
    return _measure(
        (int, float), lambda v: v >= limit, f"should be greater than or equal to {_number(limit)}"
    )


def _maximum(limit: Any, raw: Mapping[str, Any]) -> Check:
    if raw.get("exclusiveMaximum"):
        return _measure((int, float), lambda v: v < limit, f"should be less than {_number(limit)}")
    return _measure(
        (int, float), lambda v: v <= limit, f"should be less than or equal to {_number(limit)}"
    )


def _multiple(step: Any, raw: Mapping[str, Any]) -> Check | None:
    if not step:
        return None
    return _measure(
        (int, float), lambda v: (v / step).is_integer(), f"should be a multiple of {_number(step)}"
    )


def _max_length(limit: int, raw: Mapping[str, Any]) -> Check:
    def check(value: Any, path: str, faults: Faults) -> None:
        if type(value) is str and len(value) > limit:
            faults.append(fields.too_long(path, limit))

    return check


def _most(kind: type[list[Any]] | type[dict[Any, Any]], limit: int) -> Check:
    def check(value: Any, path: str, faults: Faults) -> None:
        if type(value) is kind and len(value) > limit:
            faults.append(fields.too_many(path, len(value), limit))

    return check


def _pattern(pattern: str, raw: Mapping[str, Any]) -> Check:
    def holds(value: str) -> bool:
        return regex.search(pattern, value)

    return _measure((str,), holds, f"should match '{pattern}'")


def _enum(options: list[Any], raw: Mapping[str, Any]) -> Check:
    shown = [each if isinstance(each, str) else fields.go_json(each) for each in options]
    known = {(type(each), orjson.dumps(each, option=orjson.OPT_SORT_KEYS)) for each in options}

    def check(value: Any, path: str, faults: Faults) -> None:
        key = (type(value), orjson.dumps(value, option=orjson.OPT_SORT_KEYS))
        if key not in known:
            faults.append(fields.not_supported(path, value, shown))

    return check


def _format(name: str, raw: Mapping[str, Any]) -> Check | None:
    test = FORMATS.get(name)
    if test is None:
        return None

    def check(value: Any, path: str, faults: Faults) -> None:
        if type(value) is str and not test(value):
            why = f"{path} in body must be of type {name}: {fields.quote(value)}"
            faults.append(fields.invalid(path, value, why))

    return check


class _Valid(Structural):
    """A schema inside allOf, anyOf, oneOf or not: it validates, and no more."""

    __slots__ = ()


def _faults(schema: Structural, value: Any, path: str) -> Faults:
    found: Faults = []
    schema.validate(value, path, found)
    return found


def _quoted(path: str) -> str:
    return fields.quote(path)


def _all_of(parts: list[Any], raw: Mapping[str, Any]) -> Check:
    schemas = [_Valid(part) for part in parts]

    def check(value: Any, path: str, faults: Faults) -> None:
        found = [fault for schema in schemas for fault in _faults(schema, value, path)]
        if found:
            faults += found
            why = f"{_quoted(path)} must validate all the schemas (allOf)"
            faults.append(fields.invalid(path, value, why))

    return check


def _any_of(parts: list[Any], raw: Mapping[str, Any]) -> Check | None:
    if raw.get("x-kubernetes-int-or-string") and all(set(part) == {"type"} for part in parts):
        return None
    schemas = [_Valid(part) for part in parts]

    def check(value: Any, path: str, faults: Faults) -> None:
        outcomes = [_faults(schema, value, path) for schema in schemas]
        if all(outcomes):
            faults += sorted(outcomes, key=len)[0]
            why = f"{_quoted(path)} must validate at least one schema (anyOf)"
            faults.append(fields.invalid(path, value, why))

    return check


def _one_of(parts: list[Any], raw: Mapping[str, Any]) -> Check:
    schemas = [_Valid(part) for part in parts]

    def check(value: Any, path: str, faults: Faults) -> None:
        outcomes = [_faults(schema, value, path) for schema in schemas]
        valid = sum(not each for each in outcomes)
        if valid == 1:
            return
        found = f"Found {valid} valid alternatives" if valid else "Found none valid"
        if not valid:
            faults += sorted(outcomes, key=len)[0]
        why = f"{_quoted(path)} must validate one and only one schema (oneOf). {found}"
        faults.append(fields.invalid(path, value, why))

    return check


def _not(part: Any, raw: Mapping[str, Any]) -> Check:
    schema = _Valid(part)

    def check(value: Any, path: str, faults: Faults) -> None:
        if not _faults(schema, value, path):
            why = f"{_quoted(path)} must not validate the schema (not)"
            faults.append(fields.invalid(path, value, why))

    return check


def _plain(kind: type, holds: Callable[[Any, int], bool], says: str) -> Any:
    return lambda limit, raw: _measure((kind,), lambda v: holds(v, limit), says.format(limit))


_RULES: dict[str, Callable[[Any, Mapping[str, Any]], Check | None]] = {
    "enum": _enum,
    "format": _format,
    "minimum": _minimum,
    "maximum": _maximum,
    "multipleOf": _multiple,
    "minLength": _plain(str, lambda v, n: len(v) >= n, "should be at least {} chars long"),
    "maxLength": _max_length,
    "pattern": _pattern,
    "minItems": _plain(list, lambda v, n: len(v) >= n, "should have at least {} items"),
    "maxItems": lambda limit, raw: _most(list, limit),
    "minProperties": _plain(dict, lambda v, n: len(v) >= n, "should have at least {} properties"),
    "maxProperties": lambda limit, raw: _most(dict, limit),
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": _not,
}
