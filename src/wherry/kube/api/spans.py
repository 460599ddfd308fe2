"""Durations as metav1.Duration has them: ``15.03s``, ``1m30s``, ``500ms`` (Go's time.Duration)."""

from __future__ import annotations

import re

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}  # fmt: skip  # noqa: E501
_PIECE = re.compile(r"([0-9]+)(?:\.([0-9]*))?(ns|us|µs|ms|s|m|h)")
_FORM = re.compile(rf"([+-]?)((?:{_PIECE.pattern})+|0)")


def parse(text: str) -> float:
    """Seconds. Raises ValueError where it is no duration."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f'time: invalid duration "{text}"')
    total = 0.0
    for whole, fraction, unit in _PIECE.findall(match[2]):
        total += float(f"{whole}.{fraction or 0}") * _UNITS[unit]
    return (-total if match[1] == "-" else total) / 10**9


def text(nanoseconds: int) -> str:
    """The one way to write it."""
    if nanoseconds < 0:
        return f"-{text(-nanoseconds)}"
    if nanoseconds == 0:
        return "0s"
    for unit in ("ns", "µs", "ms"):
        if nanoseconds < _UNITS[unit] * 1000:
            return _decimal(nanoseconds, _UNITS[unit]) + unit
    minutes, rest = divmod(nanoseconds, _UNITS["m"])
    hours, minutes = divmod(minutes, 60)
    said = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{said}{_decimal(rest, _UNITS['s'])}s"


def _decimal(number: int, unit: int) -> str:
    whole, fraction = divmod(number, unit)
    if not fraction:
        return str(whole)
    digits = len(str(unit)) - 1
    return f"{whole}.{fraction:0{digits}d}".rstrip("0")
