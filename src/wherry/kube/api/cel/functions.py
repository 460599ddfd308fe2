"""CEL's operators and standard functions, and the extensions Kubernetes turns on.

A function takes values and returns one; what it cannot take is "no such overload". Methods are
functions whose first argument is the receiver. ``call`` runs one and words what goes wrong.
Upstream: cel-go's stdlib and ext; k8s.io/apiserver/pkg/cel/library.
"""

from __future__ import annotations

import base64
import datetime
import itertools
import json
import math
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

from wherry.kube.api import regex
from wherry.kube.api.cel.syntax import UInt
from wherry.kube.api.cel.values import (
    NONE,
    NUMBERS,
    CELError,
    Optional,
    Type,
    Value,
    compare,
    equal,
    no_overload,
    type_name,
)

Function = Callable[..., Value]

_INT = -(2**63), 2**63 - 1
_UINT = 0, 2**64 - 1
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_STEP = 10
"""Characters or items that cost as much as one step."""


def call(take: Callable[[int], None], function: Function, *arguments: Value) -> Value:
    """``function`` of the arguments; what looks through them is paid by their size."""
    size = 0
    for each in arguments:
        if isinstance(each, str | bytes | list | dict):
            size += len(each)
    take(1 + size // _STEP)
    try:
        value = function(*arguments)
    except TypeError:
        raise no_overload() from None
    except (ValueError, OverflowError, ArithmeticError, AttributeError, KeyError) as error:
        raise CELError(str(error)) from None
    if isinstance(value, str | list) and len(value) > 1000:
        take(len(value) // _STEP)
    return value


# --- operators ---------------------------------------------------------------------------------


def _ranged(value: int, kind: type, word: str) -> Value:
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
            return _ranged(int(a) + int(b), kind, _word(kind))
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
            return _ranged(int(a) - int(b), kind, _word(kind))
        if kind in (float, datetime.timedelta, datetime.datetime):
            return a - b
    if kind is datetime.datetime and other is datetime.timedelta:
        return a - b
    raise no_overload()


def multiply(a: Value, b: Value) -> Value:
    kind = type(a)
    if kind is type(b):
        if kind is int or kind is UInt:
            return _ranged(int(a) * int(b), kind, _word(kind))
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
    return _ranged(quotient if (a < 0) == (b < 0) else -quotient, kind, _word(kind))


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
        return _ranged(-a, int, "integer")
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


# --- conversions -------------------------------------------------------------------------------


def _int(value: Value) -> Value:
    kind = type(value)
    if kind is float:
        if math.isnan(value) or not -(2.0**63) < value < 2.0**63:
            raise CELError("integer overflow")
        return int(value)
    if kind is datetime.datetime:
        return math.floor((value - _EPOCH).total_seconds())
    if kind is str:
        try:
            return _ranged(int(value), int, "integer")
        except ValueError:
            raise CELError(
                f"strconv.ParseInt: parsing {json.dumps(value)}: invalid syntax"
            ) from None
    if kind in (int, UInt):
        return _ranged(int(value), int, "integer")
    raise no_overload()


def _uint(value: Value) -> Value:
    kind = type(value)
    if (kind is float and not (math.isnan(value) or math.isinf(value))) or kind is str:
        value = int(value)
    elif kind not in (int, UInt):
        raise no_overload()
    return _ranged(int(value), UInt, "unsigned integer")


def _double(value: Value) -> Value:
    if type(value) in (*NUMBERS, str):
        return float(value)
    raise no_overload()


def go_number(value: float) -> str:
    """A double as Go prints it with %g."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    text = repr(value)
    return text.removesuffix(".0")


def _string(value: Value) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return str(value)
        case int():
            return str(int(value))
        case float():
            return go_number(value)
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                raise CELError("invalid UTF-8 in bytes, cannot convert to string") from None
        case datetime.datetime():
            return _timestamp_text(value)
        case datetime.timedelta():
            return f"{go_number(value.total_seconds())}s"
    text = getattr(value, "cel_string", None)
    if text is not None:
        return str(text())
    raise no_overload()


def _timestamp_text(value: datetime.datetime) -> str:
    text = value.astimezone(datetime.UTC).isoformat().replace("+00:00", "")
    if "." in text:
        text = text.rstrip("0")
    return text + "Z"


def _bool(value: Value) -> bool:
    if type(value) is bool:
        return value
    if isinstance(value, str):
        if value in ("1", "t", "T", "true", "TRUE", "True"):
            return True
        if value in ("0", "f", "F", "false", "FALSE", "False"):
            return False
        raise CELError(f"strconv.ParseBool: parsing {json.dumps(value)}: invalid syntax")
    raise no_overload()


def _bytes(value: Value) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    raise no_overload()


def timestamp(value: Value) -> datetime.datetime:
    """An RFC 3339 text, or seconds since 1970, as a timestamp."""
    if isinstance(value, datetime.datetime):
        return value
    if type(value) is int:
        return _EPOCH + datetime.timedelta(seconds=value)
    if not isinstance(value, str):
        raise no_overload()
    try:
        moment = datetime.datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or "T" not in value.upper():
        raise CELError(
            f'parsing time {json.dumps(value)} as "2006-01-02T15:04:05Z07:00": '
            f'cannot parse {json.dumps(value)} as "2006"'
        )
    return moment


_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}


def duration(value: Value) -> datetime.timedelta:
    """Go's text of a duration (``1h30m``) as one."""
    if isinstance(value, datetime.timedelta):
        return value
    if not isinstance(value, str):
        raise no_overload()
    import re

    if value.lstrip("+-") == "0":
        return datetime.timedelta()
    if not re.fullmatch(r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|ms|s|m|h))+", value):
        raise CELError(f"time: invalid duration {json.dumps(value)}")
    parts = re.findall(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)", value)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return datetime.timedelta(seconds=-seconds if value.startswith("-") else seconds)


def _size(value: Value) -> int:
    if isinstance(value, str | bytes | list | dict):
        return len(value)
    raise no_overload()


# --- strings -----------------------------------------------------------------------------------


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise no_overload()
    return value


def _whole(value: Value) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise no_overload()
    return int(value)


def _matches(value: Value, pattern: Value) -> bool:
    return regex.search(_text(pattern), _text(value))


def _find(value: Value, pattern: Value) -> str:
    match = regex.compiled(_text(pattern)).search(_text(value))
    return match.group() if match else ""


def _find_all(value: Value, pattern: Value, limit: Value = -1) -> list[str]:
    found = [m.group() for m in regex.compiled(_text(pattern)).finditer(_text(value))]
    most = _whole(limit)
    return found if most < 0 else found[:most]


def _char_at(value: Value, index: Value) -> str:
    text, at = _text(value), _whole(index)
    if not 0 <= at <= len(text):
        raise CELError(f"index out of range: {at}")
    return text[at : at + 1]


def _index_of(value: Value, part: Value, start: Value = 0) -> int:
    if isinstance(value, list):
        return next((i for i, each in enumerate(value) if equal(each, part)), -1)
    text, at = _text(value), _whole(start)
    if not 0 <= at <= len(text):
        raise CELError(f"index out of range: {at}")
    return text.find(_text(part), at)


def _last_index_of(value: Value, part: Value, end: Value = None) -> int:
    if isinstance(value, list):
        return max((i for i, each in enumerate(value) if equal(each, part)), default=-1)
    text, wanted = _text(value), _text(part)
    if end is None:
        return text.rfind(wanted)
    if not 0 <= _whole(end) <= len(text):
        raise CELError(f"index out of range: {end}")
    return text.rfind(wanted, 0, end + len(wanted))


def _replace(value: Value, old: Value, new: Value, limit: Value = -1) -> str:
    return _text(value).replace(_text(old), _text(new), _whole(limit))


def _split(value: Value, separator: Value, limit: Value = -1) -> list[str]:
    text, by, most = _text(value), _text(separator), _whole(limit)
    if most == 0:
        return []
    if not by:
        parts = list(text)
        return (
            parts
            if most < 0 or len(parts) <= most
            else [*parts[: most - 1], "".join(parts[most - 1 :])]
        )
    return text.split(by, most - 1 if most > 0 else -1)


def _substring(value: Value, start: Value, end: Value = None) -> str:
    text, low = _text(value), _whole(start)
    high = len(text) if end is None else _whole(end)
    if not 0 <= low <= len(text):
        raise CELError(f"index out of range: {low}")
    if not 0 <= high <= len(text):
        raise CELError(f"index out of range: {high}")
    if low > high:
        raise CELError(f"invalid substring range. start: {low}, end: {high}")
    return text[low:high]


_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009"
    "\u200a\u2028\u2029\u202f\u205f\u3000"
)


def _ascii(value: Value, *, upper: bool) -> str:
    return "".join((c.upper() if upper else c.lower()) if c.isascii() else c for c in _text(value))


def _join(value: Value, separator: Value = "") -> str:
    if not isinstance(value, list):
        raise no_overload()
    return _text(separator).join(map(_text, value))


def shown(value: Value) -> str:
    """A value as ``%s`` prints it."""
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    if isinstance(value, dict):
        pairs = sorted((shown(k), shown(v)) for k, v in value.items())
        return "{" + ", ".join(f"{k}: {v}" for k, v in pairs) + "}"
    if value is None:
        return "null"
    if isinstance(value, Type):
        return value.name
    return _string(value)


def _format(template: Value, arguments: Value) -> str:
    text, out, used, at = _text(template), [], 0, 0
    if not isinstance(arguments, list):
        raise no_overload()
    while (percent := text.find("%", at)) >= 0:
        out.append(text[at:percent])
        at = percent + 1
        if text[at : at + 1] == "%":
            out.append("%")
            at += 1
            continue
        precision = 6
        if text[at : at + 1] == ".":
            end = at + 1
            while text[end : end + 1].isdigit():
                end += 1
            precision = min(int(text[at + 1 : end] or 0), 100)
            at = end
        verb = text[at : at + 1]
        at += 1
        if used >= len(arguments):
            raise CELError(f"index {used} out of range")
        out.append(_formatted(verb, arguments[used], precision))
        used += 1
    if used < len(arguments):
        raise CELError("too many arguments supplied to string.format")
    return "".join([*out, text[at:]])


def _formatted(verb: str, value: Value, precision: int) -> str:
    number = isinstance(value, int) and not isinstance(value, bool)
    match verb:
        case "s":
            return shown(value)
        case "d" if number:
            return str(int(value))
        case "f" | "e" if number or isinstance(value, float):
            return f"{float(value):.{precision}{verb}}"
        case "b" if number or isinstance(value, bool):
            return f"{int(value):b}"
        case "o" if number:
            return f"{int(value):o}"
        case "x" | "X" if number:
            return f"{int(value):{verb}}"
        case "x" | "X" if isinstance(value, str | bytes):
            digits = (value.encode() if isinstance(value, str) else value).hex()
            return digits.upper() if verb == "X" else digits
    if verb not in "sdfeboxX" or not verb:
        raise CELError(
            f'could not parse formatting clause: unrecognized formatting clause "{verb}"'
        )
    raise CELError(f"error during formatting: {verb} clause cannot be used on {type_name(value)}")


# --- lists -------------------------------------------------------------------------------------


def _list(value: Value) -> list[Value]:
    if not isinstance(value, list):
        raise no_overload()
    return value


def _is_sorted(value: Value) -> bool:
    items = _list(value)
    return all(compare(a, b) <= 0 for a, b in itertools.pairwise(items))


def _sum(value: Value) -> Value:
    items = _list(value)
    total: Value = 0
    for i, each in enumerate(items):
        total = add(total, each) if i else each
    return total


def _extreme(sign: int, word: str) -> Function:
    def pick(*values: Value) -> Value:
        items = _list(values[0]) if len(values) == 1 and isinstance(values[0], list) else values
        if not items:
            raise CELError(f"{word} called on empty list")
        best = items[0]
        for each in items[1:]:
            if compare(each, best) == sign:
                best = each
        return best

    return pick


def _slice(value: Value, start: Value, end: Value) -> list[Value]:
    items, low, high = _list(value), _whole(start), _whole(end)
    if low < 0 or high < 0:
        raise CELError(f"cannot slice({low}, {high}), negative indexes not supported")
    if low > high:
        raise CELError(
            f"cannot slice({low}, {high}), start index must be less than or equal to end index"
        )
    if high > len(items):
        raise CELError(f"cannot slice({low}, {high}), list is length {len(items)}")
    return items[low:high]


def _flatten(value: Value, depth: Value = 1) -> list[Value]:
    out: list[Value] = []
    for each in _list(value):
        out += (
            (_flatten(each, depth - 1) if depth > 1 else each) if isinstance(each, list) else [each]
        )
    return out


def _distinct(value: Value) -> list[Value]:
    out: list[Value] = []
    for each in _list(value):
        if not contains(each, out):
            out.append(each)
    return out


def _sorted(value: Value) -> list[Value]:
    from functools import cmp_to_key

    return sorted(_list(value), key=cmp_to_key(compare))


def _reverse(value: Value) -> Value:
    if isinstance(value, str | list):
        return value[::-1]
    raise no_overload()


def _set_contains(a: Value, b: Value) -> bool:
    return all(contains(each, _list(a)) for each in _list(b))


def _intersects(a: Value, b: Value) -> bool:
    return any(contains(each, _list(a)) for each in _list(b))


# --- times -------------------------------------------------------------------------------------


def _zoned(value: Value, zone: Value) -> datetime.datetime:
    if not isinstance(value, datetime.datetime):
        raise no_overload()
    if zone is None:
        return value.astimezone(datetime.UTC)
    name = _text(zone)
    if name[:1] in "+-" or name[:1].isdigit():
        sign, (hours, _, minutes) = -1 if name[0] == "-" else 1, name.lstrip("+-").partition(":")
        offset = datetime.timedelta(hours=int(hours), minutes=int(minutes or 0))
        return value.astimezone(datetime.timezone(sign * offset))
    try:
        return value.astimezone(ZoneInfo(name))
    except (KeyError, ValueError, OSError):
        raise CELError(f"unknown time zone {name}") from None


def _part(read: Callable[[datetime.datetime], int]) -> Function:
    return lambda value, zone=None: read(_zoned(value, zone))


def _clock(unit: int, read: Callable[[datetime.datetime], int]) -> Function:
    """A part of a timestamp, or a duration counted in that many seconds."""

    def get(value: Value, zone: Value = None) -> int:
        if isinstance(value, datetime.timedelta):
            return math.trunc(value.total_seconds() / unit)
        return read(_zoned(value, zone))

    return get


def _milliseconds(value: Value, zone: Value = None) -> int:
    if isinstance(value, datetime.timedelta):
        return math.trunc(value.total_seconds() * 1000)
    return _zoned(value, zone).microsecond // 1000


# --- math, encodings, optionals ----------------------------------------------------------------


def _number(value: Value) -> Any:
    if type(value) not in NUMBERS:
        raise no_overload()
    return value


def _round(value: float) -> float:
    return math.copysign(math.floor(abs(value) + 0.5), value)


def _decode(value: Value) -> bytes:
    text = _text(value)
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _encode(value: Value) -> str:
    if not isinstance(value, bytes):
        raise no_overload()
    return base64.b64encode(value).decode()


def _not_zero(value: Value) -> Optional:
    empty = value is None or value in (0, "", b"", False) or value == [] or value == {}
    return NONE if empty else Optional(True, value)


def _dyn(value: Value) -> Value:
    return value


_greatest, _least = _extreme(1, "math.greatest"), _extreme(-1, "math.least")

FUNCTIONS: dict[str, Function] = {
    "bool": _bool,
    "bytes": _bytes,
    "double": _double,
    "duration": duration,
    "dyn": _dyn,
    "int": _int,
    "matches": _matches,
    "size": _size,
    "string": _string,
    "timestamp": timestamp,
    "type": lambda value: Type(type_name(value)),
    "uint": _uint,
    "base64.decode": _decode,
    "base64.encode": _encode,
    "jsonpatch.escapeKey": lambda v: _text(v).replace("~", "~0").replace("/", "~1"),
    "math.abs": lambda v: abs(_number(v)),
    "math.ceil": lambda v: float(math.ceil(v)),
    "math.floor": lambda v: float(math.floor(v)),
    "math.greatest": _greatest,
    "math.isFinite": lambda v: math.isfinite(_number(v)),
    "math.isInf": lambda v: math.isinf(_number(v)),
    "math.isNaN": lambda v: math.isnan(_number(v)),
    "math.least": _least,
    "math.round": lambda v: _round(_number(v)),
    "math.sign": lambda v: type(v)((_number(v) > 0) - (v < 0)),
    "math.trunc": lambda v: float(math.trunc(v)),
    "optional.none": lambda: NONE,
    "optional.of": lambda value: Optional(True, value),
    "optional.ofNonZeroValue": _not_zero,
    "sets.contains": _set_contains,
    "sets.equivalent": lambda a, b: _set_contains(a, b) and _set_contains(b, a),
    "sets.intersects": _intersects,
    "strings.quote": lambda v: json.dumps(_text(v), ensure_ascii=False),
}
"""By name; those with a dot are called with what stands before it."""

METHODS: dict[str, Function] = {
    "charAt": _char_at,
    "contains": lambda v, part: _text(part) in _text(v),
    "distinct": _distinct,
    "endsWith": lambda v, part: _text(v).endswith(_text(part)),
    "find": _find,
    "findAll": _find_all,
    "flatten": _flatten,
    "format": _format,
    "getDate": _part(lambda t: t.day),
    "getDayOfMonth": _part(lambda t: t.day - 1),
    "getDayOfWeek": _part(lambda t: t.isoweekday() % 7),
    "getDayOfYear": _part(lambda t: t.timetuple().tm_yday - 1),
    "getFullYear": _part(lambda t: t.year),
    "getHours": _clock(3600, lambda t: t.hour),
    "getMilliseconds": _milliseconds,
    "getMinutes": _clock(60, lambda t: t.minute),
    "getMonth": _part(lambda t: t.month - 1),
    "getSeconds": _clock(1, lambda t: t.second),
    "indexOf": _index_of,
    "isSorted": _is_sorted,
    "join": _join,
    "lastIndexOf": _last_index_of,
    "lowerAscii": lambda v: _ascii(v, upper=False),
    "matches": _matches,
    "max": lambda v: _extreme(1, "max")(_list(v)),
    "min": lambda v: _extreme(-1, "min")(_list(v)),
    "replace": _replace,
    "reverse": _reverse,
    "size": _size,
    "slice": _slice,
    "sort": _sorted,
    "split": _split,
    "startsWith": lambda v, part: _text(v).startswith(_text(part)),
    "substring": _substring,
    "sum": _sum,
    "trim": lambda v: _text(v).strip(_SPACE),
    "upperAscii": lambda v: _ascii(v, upper=True),
}

ARITIES: set[tuple[str, int]] = {(name, 1) for name in FUNCTIONS} | {("matches", 2)}
"""Functions without a receiver, with how many arguments they take."""
VARIADIC: frozenset[str] = frozenset()
