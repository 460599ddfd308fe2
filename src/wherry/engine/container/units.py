"""Times and durations as Docker writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from wherry.engine.errors import BadParameter

ZERO_TIME = "0001-01-01T00:00:00Z"


def timestamp(nanoseconds: int, *, fixed: bool = False) -> str:
    """RFC 3339 in UTC with up to nine decimals, as Go's RFC3339Nano; with ``fixed``, always nine.

    0 stands for "never" and is Go's zero time.
    """
    if not nanoseconds:
        return ZERO_TIME
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    date = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f"{fraction:09d}"
    if not fixed:
        digits = digits.rstrip("0")
    return f"{date}.{digits}Z" if digits else f"{date}Z"


_RFC3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2})(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d{2}:?\d{2})"
)


def parse_rfc3339(text: str) -> int:
    """Nanoseconds since the epoch.

    Raises:
        ValueError: it is not such a time.
    """
    match = _RFC3339.fullmatch(text)
    if not match:
        raise ValueError(f"not an RFC 3339 time: {text}")
    whole, fraction, zone = match.groups()
    moment = datetime.fromisoformat(whole + ("+00:00" if zone in "Zz" else zone))
    return int(moment.timestamp()) * 1_000_000_000 + int((fraction or "").ljust(9, "0"))


def parse_since(text: str, name: str = "since") -> int:
    """A ``since`` or ``until`` parameter, in nanoseconds; 0 where there is none.

    Clients send Unix seconds with an optional fraction; RFC 3339 is understood as well.

    Raises:
        BadParameter: it is neither.
    """
    if not text:
        return 0
    seconds, _, fraction = text.partition(".")
    if re.fullmatch(r"-?\d+", seconds) and re.fullmatch(r"\d*", fraction):
        return int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, "0"))
    try:
        return parse_rfc3339(text)
    except ValueError:
        raise BadParameter(f'invalid value for "{name}": "{text}"') from None


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def parse_duration(text: str) -> float | None:
    """Seconds of a Go duration such as ``1h30m`` or ``10s``; None where it is none."""
    parts = re.findall(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|s|us|µs|ns)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def go_duration(nanoseconds: int) -> str:
    """A duration as Go prints it: ``1h0m30s``, ``1.5s``, ``100ms``."""
    if nanoseconds < 0:
        return f"-{go_duration(-nanoseconds)}"
    if nanoseconds == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if nanoseconds < 1_000 * size:
            return f"{_decimal(nanoseconds, size)}{unit}"
    minutes, rest = divmod(nanoseconds, 60_000_000_000)
    seconds = f"{_decimal(rest, 1_000_000_000)}s"
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def _decimal(value: int, unit: int) -> str:
    whole, fraction = divmod(value, unit)
    digits = str(fraction).rjust(len(str(unit)) - 1, "0").rstrip("0") if fraction else ""
    return f"{whole}.{digits}" if digits else str(whole)


def moment(text: str, now: int) -> int:
    """The time that a date, a number of Unix seconds, or a duration before ``now`` means.

    All in nanoseconds since the epoch.

    Raises:
        BadParameter: it is none of them.
    """
    duration = parse_duration(text)
    if duration is not None:
        return now - int(duration * 1_000_000_000)
    if re.fullmatch(r"\d+(\.\d{1,9})?", text):
        whole, _, fraction = text.partition(".")
        return int(whole) * 1_000_000_000 + int(fraction.ljust(9, "0"))
    completed = text
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        completed = f"{text}T00:00:00Z"
    elif re.fullmatch(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}", text):
        completed = f"{text}:00Z"
    elif re.fullmatch(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?", text):
        completed = f"{text}Z"
    try:
        return parse_rfc3339(completed)
    except ValueError:
        raise BadParameter(f'failed to parse value as time or duration: "{text}"') from None


def human_duration(seconds: float) -> str:
    """How long, roughly, in words; the thresholds are those of Docker's go-units."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    for limit, divisor, unit in (
        (24 * 7 * 2, 24, "days"),
        (24 * 30 * 2, 24 * 7, "weeks"),
        (24 * 365 * 2, 24 * 30, "months"),
    ):
        if hours < limit:
            return f"{hours // divisor} {unit}"
    return f"{hours // (24 * 365)} years"
