"""CEL's conversions from one type to another."""

from __future__ import annotations

import datetime
import json
import math

from wherry.kube.api.cel.operators import ranged
from wherry.kube.api.cel.syntax import UInt
from wherry.kube.api.cel.values import NUMBERS, CELError, Value, no_overload

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def integer(value: Value) -> Value:
    kind = type(value)
    if kind is float:
        if math.isnan(value) or not -(2.0**63) < value < 2.0**63:
            raise CELError("integer overflow")
        return int(value)
    if kind is datetime.datetime:
        return math.floor((value - _EPOCH).total_seconds())
    if kind is str:
        try:
            return ranged(int(value), int, "integer")
        except ValueError:
            raise CELError(
                f"strconv.ParseInt: parsing {json.dumps(value)}: invalid syntax"
            ) from None
    if kind in (int, UInt):
        return ranged(int(value), int, "integer")
    raise no_overload()


def unsigned(value: Value) -> Value:
    kind = type(value)
    if (kind is float and not (math.isnan(value) or math.isinf(value))) or kind is str:
        value = int(value)
    elif kind not in (int, UInt):
        raise no_overload()
    return ranged(int(value), UInt, "unsigned integer")


def double(value: Value) -> Value:
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


def string(value: Value) -> str:
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


def boolean(value: Value) -> bool:
    if type(value) is bool:
        return value
    if isinstance(value, str):
        if value in ("1", "t", "T", "true", "TRUE", "True"):
            return True
        if value in ("0", "f", "F", "false", "FALSE", "False"):
            return False
        raise CELError(f"strconv.ParseBool: parsing {json.dumps(value)}: invalid syntax")
    raise no_overload()


def octets(value: Value) -> bytes:
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


def size(value: Value) -> int:
    if isinstance(value, str | bytes | list | dict):
        return len(value)
    raise no_overload()
