"""CEL's standard functions and the extensions Kubernetes turns on, by their names.

A function takes values and returns one; what it cannot take is "no such overload". Methods are
functions whose first argument is the receiver. ``call`` runs one and words what goes wrong.
Upstream: cel-go's stdlib and ext; k8s.io/apiserver/pkg/cel/library.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from typing import Any

from wherry.kube.api.cel.conversions import (
    boolean,
    double,
    duration,
    integer,
    octets,
    size,
    string,
    timestamp,
    unsigned,
)
from wherry.kube.api.cel.lists import (
    contains_all,
    distinct,
    extreme,
    flatten,
    in_order,
    intersects,
    is_sorted,
    items_of,
    reverse,
    slice_of,
    total,
)
from wherry.kube.api.cel.operators import Function
from wherry.kube.api.cel.strings import (
    SPACE,
    char_at,
    find,
    find_all,
    format_with,
    index_of,
    join,
    last_index_of,
    matches,
    replace,
    split,
    substring,
    text_of,
    with_case,
)
from wherry.kube.api.cel.times import clock, milliseconds, part
from wherry.kube.api.cel.values import (
    NONE,
    NUMBERS,
    CELError,
    Optional,
    Type,
    Value,
    no_overload,
    type_name,
)

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


def _number(value: Value) -> Any:
    if type(value) not in NUMBERS:
        raise no_overload()
    return value


def _round(value: float) -> float:
    return math.copysign(math.floor(abs(value) + 0.5), value)


def _decode(value: Value) -> bytes:
    text = text_of(value)
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


_greatest, _least = extreme(1, "math.greatest"), extreme(-1, "math.least")

FUNCTIONS: dict[str, Function] = {
    "bool": boolean,
    "bytes": octets,
    "double": double,
    "duration": duration,
    "dyn": _dyn,
    "int": integer,
    "matches": matches,
    "size": size,
    "string": string,
    "timestamp": timestamp,
    "type": lambda value: Type(type_name(value)),
    "uint": unsigned,
    "base64.decode": _decode,
    "base64.encode": _encode,
    "jsonpatch.escapeKey": lambda v: text_of(v).replace("~", "~0").replace("/", "~1"),
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
    "sets.contains": contains_all,
    "sets.equivalent": lambda a, b: contains_all(a, b) and contains_all(b, a),
    "sets.intersects": intersects,
    "strings.quote": lambda v: json.dumps(text_of(v), ensure_ascii=False),
}
"""By name; those with a dot are called with what stands before it."""

METHODS: dict[str, Function] = {
    "charAt": char_at,
    "contains": lambda v, part: text_of(part) in text_of(v),
    "distinct": distinct,
    "endsWith": lambda v, part: text_of(v).endswith(text_of(part)),
    "find": find,
    "findAll": find_all,
    "flatten": flatten,
    "format": format_with,
    "getDate": part(lambda t: t.day),
    "getDayOfMonth": part(lambda t: t.day - 1),
    "getDayOfWeek": part(lambda t: t.isoweekday() % 7),
    "getDayOfYear": part(lambda t: t.timetuple().tm_yday - 1),
    "getFullYear": part(lambda t: t.year),
    "getHours": clock(3600, lambda t: t.hour),
    "getMilliseconds": milliseconds,
    "getMinutes": clock(60, lambda t: t.minute),
    "getMonth": part(lambda t: t.month - 1),
    "getSeconds": clock(1, lambda t: t.second),
    "indexOf": index_of,
    "isSorted": is_sorted,
    "join": join,
    "lastIndexOf": last_index_of,
    "lowerAscii": lambda v: with_case(v, upper=False),
    "matches": matches,
    "max": lambda v: extreme(1, "max")(items_of(v)),
    "min": lambda v: extreme(-1, "min")(items_of(v)),
    "replace": replace,
    "reverse": reverse,
    "size": size,
    "slice": slice_of,
    "sort": in_order,
    "split": split,
    "startsWith": lambda v, part: text_of(v).startswith(text_of(part)),
    "substring": substring,
    "sum": total,
    "trim": lambda v: text_of(v).strip(SPACE),
    "upperAscii": lambda v: with_case(v, upper=True),
}

ARITIES: set[tuple[str, int]] = {(name, 1) for name in FUNCTIONS} | {("matches", 2)}
"""Functions without a receiver, with how many arguments they take."""
VARIADIC: frozenset[str] = frozenset()
