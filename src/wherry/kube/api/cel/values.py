"""CEL's values as Python has them, and what all operations on them share.

int, float, str, bool, bytes, None, list, dict stand for themselves; `UInt` for uint, datetime for
timestamp, timedelta for duration. Types of libraries are subclasses of `Opaque`.
"""

from __future__ import annotations

import datetime
from typing import Any, ClassVar

from wherry.kube.api.cel.syntax import UInt

Value = Any


class CELError(Exception):
    """An evaluation that failed; ``str()`` is cel-go's text."""


class CostExceeded(CELError):
    """An evaluation that did more than it may. Nothing catches it on the way."""

    def __init__(self) -> None:
        super().__init__("operation cancelled: actual cost limit exceeded")


def no_overload() -> CELError:
    return CELError("no such overload")


class Opaque:
    """A value with methods: ``x.name(…)`` calls ``x.cel_name(…)``, ``x.name`` reads
    ``x.cel_field_name``. Subclass it to bring a type (an authorizer, say); instances must have
    ``__eq__`` and ``__hash__`` where they can be compared."""

    cel_type: ClassVar[str] = "opaque"
    methods: ClassVar[set[str]] = set()
    """The names of the methods of all subclasses."""

    def __init_subclass__(cls) -> None:
        Opaque.methods.update(
            name.removeprefix("cel_") for name in vars(cls) if name.startswith("cel_")
        )


class Type(Opaque):
    """The type of a value, as a value."""

    cel_type = "type"

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Type) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)


class Optional(Opaque):
    """A value, or none."""

    cel_type = "optional_type"
    __slots__ = ("held", "value")

    def __init__(self, held: bool, value: Value = None) -> None:
        self.held = held
        self.value = value

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Optional)
            and self.held == other.held
            and (not self.held or equal(self.value, other.value))
        )

    __hash__ = None  # type: ignore[assignment]

    def cel_hasValue(self) -> bool:  # noqa: N802 - CEL's name
        return self.held

    def cel_value(self) -> Value:
        if not self.held:
            raise CELError("optional.none() dereference")
        return self.value

    def cel_orValue(self, other: Value) -> Value:  # noqa: N802 - CEL's name
        return self.value if self.held else other

    def cel_or(self, other: Value) -> Value:
        if not isinstance(other, Optional):
            raise no_overload()
        return self if self.held else other


NONE = Optional(False)

_TYPES: dict[type, str] = {
    bool: "bool",
    int: "int",
    UInt: "uint",
    float: "double",
    str: "string",
    bytes: "bytes",
    list: "list",
    dict: "map",
    type(None): "null_type",
    datetime.datetime: "google.protobuf.Timestamp",
    datetime.timedelta: "google.protobuf.Duration",
}


def type_name(value: Value) -> str:
    """The name of its type, as CEL says it."""
    return _TYPES.get(type(value)) or str(getattr(value, "cel_type", "dyn"))


NUMBERS = (int, float, UInt)
_PLAIN = (str, int, float, bool)


def equal(a: Value, b: Value) -> bool:
    """CEL's equality: numbers across types, everything else only within its type."""
    kind = type(a)
    if kind is type(b):
        if kind in _PLAIN:
            return bool(a == b)
        if kind is list:
            return len(a) == len(b) and all(map(equal, a, b))
        if kind is dict:
            return len(a) == len(b) and all(k in b and equal(v, b[k]) for k, v in a.items())
        return bool(a == b)
    if kind in NUMBERS and type(b) in NUMBERS:
        return bool(a == b)
    if isinstance(a, dict) and isinstance(b, dict):
        return len(a) == len(b) and all(k in b and equal(v, b[k]) for k, v in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, str) and isinstance(b, str):
        return str(a) == str(b)
    return False


_ORDERED = (str, bytes, bool, datetime.datetime, datetime.timedelta)


def compare(a: Value, b: Value) -> int:
    """-1, 0 or 1. Raises CELError where the two have no order."""
    kind, other = type(a), type(b)
    if not (
        (kind in NUMBERS and other in NUMBERS)
        or (kind is other and kind in _ORDERED)
        or (isinstance(a, str) and isinstance(b, str))
    ):
        raise no_overload()
    return -1 if a < b else 1 if a > b else 0


def key_of(value: Value) -> Value:
    """A value as the key of a map. Raises CELError."""
    if type(value) is float and value.is_integer():
        return int(value)
    if isinstance(value, str | int):
        return value
    raise CELError(f"unsupported key type: {type_name(value)}")
