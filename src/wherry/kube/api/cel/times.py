"""CEL's functions on timestamps and durations."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from zoneinfo import ZoneInfo

from wherry.kube.api.cel.operators import Function
from wherry.kube.api.cel.strings import text_of
from wherry.kube.api.cel.values import CELError, Value, no_overload


def _zoned(value: Value, zone: Value) -> datetime.datetime:
    if not isinstance(value, datetime.datetime):
        raise no_overload()
    if zone is None:
        return value.astimezone(datetime.UTC)
    name = text_of(zone)
    if name[:1] in "+-" or name[:1].isdigit():
        sign, (hours, _, minutes) = -1 if name[0] == "-" else 1, name.lstrip("+-").partition(":")
        offset = datetime.timedelta(hours=int(hours), minutes=int(minutes or 0))
        return value.astimezone(datetime.timezone(sign * offset))
    try:
        return value.astimezone(ZoneInfo(name))
    except (KeyError, ValueError, OSError):
        raise CELError(f"unknown time zone {name}") from None


def part(read: Callable[[datetime.datetime], int]) -> Function:
    return lambda value, zone=None: read(_zoned(value, zone))


def clock(unit: int, read: Callable[[datetime.datetime], int]) -> Function:
    """A part of a timestamp, or a duration counted in that many seconds."""

    def get(value: Value, zone: Value = None) -> int:
        if isinstance(value, datetime.timedelta):
            return math.trunc(value.total_seconds() / unit)
        return read(_zoned(value, zone))

    return get


def milliseconds(value: Value, zone: Value = None) -> int:
    if isinstance(value, datetime.timedelta):
        return math.trunc(value.total_seconds() * 1000)
    return _zoned(value, zone).microsecond // 1000
