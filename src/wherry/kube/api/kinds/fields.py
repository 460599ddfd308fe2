"""Faults in fields, one helper for each kind of fault, in upstream's exact wording.

A path is plain text (``spec.containers[0].name``); the caller joins it, because an f-string costs
less than a path object and most paths are never shown. How a bad value is printed is part of the
text clients see: strings as Go quotes them, everything else as Go's JSON.

Upstream: k8s.io/apimachinery/pkg/util/validation/field/errors.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson

from wherry.kube.api.errors import FieldError

IMMUTABLE: Final = "field is immutable"
NEGATIVE: Final = "must be greater than or equal to 0"
MAX_INT32: Final = 2**31 - 1

_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}


def _quoted_character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quote(text: str) -> str:
    """The text as Go's ``%q`` prints it."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return f'"{"".join(map(_quoted_character, text))}"'


class Struct(dict[str, Any]):
    """A value whose Go type is a struct: its keys are printed in their own order."""


def go_json(value: Any) -> str:
    """The value as Go's ``json.Marshal`` prints it: ``<``, ``>`` and ``&`` escaped, the keys of
    maps sorted (those of structs stand in the order of their fields)."""
    option = 0 if isinstance(value, Struct) else orjson.OPT_SORT_KEYS
    text = orjson.dumps(value, option=option).decode()
    for sign, escape in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        if sign in text:
            text = text.replace(sign, escape)
    return text


def show(value: Any) -> str:
    """A bad value as it stands behind ``Invalid value:``."""
    return quote(value) if isinstance(value, str) else go_json(value)


def _join(head: str, detail: str) -> str:
    return f"{head}: {detail}" if detail else head


def required(path: str, detail: str = "") -> FieldError:
    """Nothing is there, and something must be."""
    return FieldError(path, "FieldValueRequired", _join("Required value", detail))


def invalid(path: str, value: Any, detail: str) -> FieldError:
    """The value breaks a rule, which ``detail`` states."""
    return FieldError(path, "FieldValueInvalid", _join(f"Invalid value: {show(value)}", detail))


def type_invalid(path: str, value: Any, detail: str) -> FieldError:
    """The value is of another type than the schema's."""
    text = _join(f"Invalid value: {show(value)}", detail)
    return FieldError(path, "FieldValueTypeInvalid", text)


def not_supported(path: str, value: Any, supported: Iterable[str]) -> FieldError:
    """The value is none of those an enumerated field takes; ``supported`` in upstream's order."""
    names = ", ".join(map(quote, supported))
    detail = f"supported values: {names}" if names else ""
    text = _join(f"Unsupported value: {show(value)}", detail)
    return FieldError(path, "FieldValueNotSupported", text)


def duplicate(path: str, value: Any, detail: str = "") -> FieldError:
    """The value must be unique and was seen before."""
    text = _join(f"Duplicate value: {show(value)}", detail)
    return FieldError(path, "FieldValueDuplicate", text)


def not_found(path: str, value: Any, detail: str = "") -> FieldError:
    """The value names something that is not there."""
    return FieldError(path, "FieldValueNotFound", _join(f"Not found: {show(value)}", detail))


def forbidden(path: str, detail: str) -> FieldError:
    """The value may be well formed but is not allowed here and now."""
    return FieldError(path, "FieldValueForbidden", _join("Forbidden", detail))


def too_long(path: str, limit: int) -> FieldError:
    """Longer than ``limit`` bytes."""
    unit = "byte" if limit == 1 else "bytes"
    return FieldError(path, "FieldValueTooLong", f"Too long: may not be more than {limit} {unit}")


def too_many(path: str, actual: int, limit: int) -> FieldError:
    """``actual`` items where ``limit`` are allowed."""
    unit = "item" if limit == 1 else "items"
    text = f"Too many: {actual}: must have at most {limit} {unit}"
    return FieldError(path, "FieldValueTooMany", text)


def between(low: int, high: int) -> str:
    """The detail for a number out of its range."""
    return f"must be between {low} and {high}, inclusive"


def non_negative(path: str, value: int) -> list[FieldError]:
    """The complaint about a number below zero."""
    return [invalid(path, value, NEGATIVE)] if value < 0 else []


def immutable(path: str, new: Any, old: Any) -> list[FieldError]:
    """The complaint about a value that changed and must not; absent and empty are the same."""
    if new == old or (not new and not old and new is not False and old is not False):
        return []
    return [invalid(path, new, IMMUTABLE)]
