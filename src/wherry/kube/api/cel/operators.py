"""CEL's operators."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable

from wherry.kube.api.cel.syntax import UInt
from wherry.kube.api.cel.values import CELError, Value, compare, equal, no_overload

Function = Callable[..., Value]

_INT = -(2**63), 2**63 - 1
_UINT = 0, 2**64 - 1


def ranged(value: int, kind: type, word: str) -> Value:
    low, high = _UINT if kind is UInt else _INT
    if not low <= value <= high:
        raise CELError(f"{word} overflow")
    return UInt(value) if kind is UInt else value


def _word(kind: type) -> str:
    return "unsigned integer" if kind is UInt else "integer"


def add(a: Value, b: Value) -> Value:
    kind, other = type(a), type(b)
    if kind is other:
        if kind is str:
            return a + b
        if kind is int or kind is UInt:
            return ranged(int(a) + int(b), kind, _word(kind))
        if kind in (float, bytes, datetime.timedelta):
            return a + b
    if isinstance(a, list) and isinstance(b, list):
        joined = getattr(a, "cel_joined", None)  # lists that are sets or maps join by their keys
        return joined(b) if joined else [*a, *b]
    if {kind, other} == {datetime.datetime, datetime.timedelta}:
        return a + b
    if isinstance(a, str) and isinstance(b, str):
        return str(a) + str(b)
    raise no_overload()


def subtract(a: Value, b: Value) -> Value:
    kind, other = type(a), type(b)
    if kind is other:
        if kind is int or kind is UInt:
            return ranged(int(a) - int(b), kind, _word(kind))
        if kind in (float, datetime.timedelta, datetime.datetime):
            return a - b
    if kind is datetime.datetime and other is datetime.timedelta:
        return a - b
    raise no_overload()


def multiply(a: Value, b: Value) -> Value:
    kind = type(a)
    if kind is type(b):
        if kind is int or kind is UInt:
            return ranged(int(a) * int(b), kind, _word(kind))
        if kind is float:
            return a * b
    raise no_overload()


def divide(a: Value, b: Value) -> Value:
    kind = type(a)
    if kind is not type(b):
        raise no_overload()
    if kind is float:
        if b == 0:
            return (
                math.nan
                if a == 0 or math.isnan(a)
                else math.copysign(math.inf, a) * (math.copysign(1, b))
            )
        return a / b
    if kind is not int and kind is not UInt:
        raise no_overload()
    if b == 0:
        raise CELError("division by zero")
    quotient = abs(a) // abs(b)  # towards zero
    return ranged(quotient if (a < 0) == (b < 0) else -quotient, kind, _word(kind))


def modulo(a: Value, b: Value) -> Value:
    kind = type(a)
    if kind is not type(b) or (kind is not int and kind is not UInt):
        raise no_overload()
    if b == 0:
        raise CELError("modulus by zero")
    rest = abs(a) % abs(b)
    return kind(-rest if a < 0 else rest)


def minus(a: Value) -> Value:
    if type(a) is int:
        return ranged(-a, int, "integer")
    if type(a) in (float, datetime.timedelta):
        return -a
    raise no_overload()


def negate(a: Value) -> Value:
    if type(a) is not bool:
        raise no_overload()
    return not a


def contains(value: Value, container: Value) -> bool:
    if isinstance(container, list):
        return any(equal(value, each) for each in container)
    if isinstance(container, dict):
        return isinstance(value, str | int) and value in container
    raise no_overload()


OPERATORS: dict[str, Function] = {
    "+": add,
    "-": subtract,
    "*": multiply,
    "/": divide,
    "%": modulo,
    "<": lambda a, b: compare(a, b) < 0,
    "<=": lambda a, b: compare(a, b) <= 0,
    ">": lambda a, b: compare(a, b) > 0,
    ">=": lambda a, b: compare(a, b) >= 0,
}
