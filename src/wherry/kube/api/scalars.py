"""The scalar types of the API: what JSON may stand for them, and their canonical form.

Each reader takes a JSON value and returns it as the API stores it, or raises ``Unreadable`` with
the word for what was found, or ``Malformed`` with a finished sentence. Texts are those of Go's
``encoding/json``, ``time`` and ``encoding/base64``, which clients of Kubernetes know.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from typing import Any

from wherry.kube.api import quantity


class Unreadable(Exception):
    """A JSON value that the type cannot hold.

    ``found`` is Go's word for the value; ``wanted`` the Go type, where it is not the field's own.
    """

    def __init__(self, found: str, wanted: str = "") -> None:
        super().__init__(found)
        self.found = found
        self.wanted = wanted


class Malformed(ValueError):
    """A text that its type cannot read; ``str()`` is the whole sentence."""


def word_for(value: Any) -> str:
    """What Go calls a JSON value in its errors."""
    match value:
        case str():
            return "string"
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case list():
            return "array"
        case dict():
            return "object"
    return "null"


def string(value: Any) -> str:
    if type(value) is str:
        return value
    raise Unreadable(word_for(value))


def boolean(value: Any) -> bool:
    if type(value) is bool:
        return value
    raise Unreadable(word_for(value))


def int32(value: Any) -> int:
    if type(value) is int and -(2**31) <= value < 2**31:
        return value
    raise Unreadable(_number(value))


def int64(value: Any) -> int:
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    raise Unreadable(_number(value))


def _number(value: Any) -> str:
    word = word_for(value)
    return f"number {value}" if word == "number" else word


def double(value: Any) -> float:
    if type(value) is float or type(value) is int:
        return value
    raise Unreadable(word_for(value))


def int_or_string(value: Any) -> int | str:
    """A number of 32 bits or a text: ports by number or name, counts or percentages."""
    if type(value) is str:
        return value
    try:
        return int32(value)
    except Unreadable as error:
        raise Unreadable(error.found, "int32") from None


def canonical_quantity(value: Any) -> str:
    """A quantity in canonical form; JSON numbers are welcome too."""
    if type(value) is not str:
        if type(value) not in (int, float):
            raise Malformed(quantity.MALFORMED)
        value = repr(value)
    try:
        return quantity.canonical(value.strip())
    except quantity.QuantityError as error:
        raise Malformed(str(error)) from None


def base64(value: Any) -> str:
    """Bytes as base64 with padding; line breaks within it are taken out."""
    if type(value) is not str:
        raise Unreadable(word_for(value))
    try:
        decoded = b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        plain = value.replace("\r", "").replace("\n", "")
        position = _base64_fault(value)
        if position is not None:
            raise Malformed(f"illegal base64 data at input byte {position}") from None
        decoded = b64decode(plain)
    return b64encode(decoded).decode()


_BASE64 = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")


def _base64_fault(text: str) -> int | None:
    """Where Go's decoder stops; None where it takes the whole text."""
    letters = [(i, c) for i, c in enumerate(text.encode()) if c not in b"\r\n"]
    end = len(text.encode())
    at = 0
    while at < len(letters):
        quad = letters[at : at + 4]
        for j, (offset, letter) in enumerate(quad):
            if letter in _BASE64:
                continue
            if letter != ord("=") or j < 2:
                return offset
            rest = letters[at + j + 1 :]
            if j == 2:
                if not rest:
                    return end
                if rest[0][1] != ord("="):
                    return rest[0][0]
                rest = rest[1:]
            return rest[0][0] if rest else None
        if len(quad) < 4:
            return end - len(quad)
        at += 4
    return None


_TIME_LAYOUT = "2006-01-02T15:04:05Z07:00"
_MICRO_LAYOUT = "2006-01-02T15:04:05.000000Z07:00"


def time(value: Any) -> str:
    """meta/v1 Time: RFC 3339, kept in UTC and whole seconds."""
    if type(value) is not str:
        raise Unreadable(word_for(value), "string")
    if len(value) == 20 and value[19] == "Z":
        try:  # most times were written by us or by a peer: already canonical
            datetime.fromisoformat(value)
        except ValueError:
            pass
        else:
            if value[10] == "T" and value[16] == ":":
                return value
    moment = _parse_time(value, _TIME_LAYOUT)
    return f"{moment.replace(microsecond=0, tzinfo=None).isoformat()}Z"


def micro_time(value: Any) -> str:
    """meta/v1 MicroTime: RFC 3339 with exactly six digits of fraction, kept in UTC."""
    if type(value) is not str:
        raise Unreadable(word_for(value), "string")
    moment = _parse_time(value, _MICRO_LAYOUT)
    return f"{moment.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


_ELEMENTS = (
    ("2006", re.compile(r"\d{4}")),
    ("-", re.compile("-")),
    ("01", re.compile(r"\d\d")),
    ("-", re.compile("-")),
    ("02", re.compile(r"\d\d")),
    ("T", re.compile("T")),
    ("15", re.compile(r"\d\d?")),
    (":", re.compile(":")),
    ("04", re.compile(r"\d\d")),
    (":", re.compile(":")),
    ("05", re.compile(r"\d\d")),
)
_FRACTION = re.compile(r"[.,]\d+")
_SIX_DIGITS = re.compile(r"[.,]\d{6}")
_ZONE = re.compile(r"Z|[+-]\d\d:\d\d")
_BOUNDS = (
    ("month", 1, 12), ("day", 1, 31), ("hour", 0, 23), ("minute", 0, 59), ("second", 0, 59),
)  # fmt: skip


def _parse_time(text: str, layout: str) -> datetime:
    """A moment as Go's time.Parse reads it in one of the two layouts, with its complaints."""
    rest = text
    found = []

    def take(pattern: re.Pattern[str], element: str) -> str:
        nonlocal rest
        match = pattern.match(rest)
        if not match:
            raise Malformed(
                f'parsing time "{text}" as "{layout}": cannot parse "{rest}" as "{element}"'
            )
        rest = rest[match.end() :]
        return match[0]

    for element, pattern in _ELEMENTS:
        part = take(pattern, element)
        if part.isdigit():
            found.append(int(part))
            if len(found) > 1:
                name, low, high = _BOUNDS[len(found) - 2]
                if not low <= found[-1] <= high:
                    raise Malformed(f'parsing time "{text}": {name} out of range')
    if layout is _MICRO_LAYOUT:
        fraction = take(_SIX_DIGITS, ".000000")
    else:
        match = _FRACTION.match(rest)
        fraction = match[0] if match else ""
        rest = rest[len(fraction) :]
    zone = take(_ZONE, "Z07:00")
    if rest:
        raise Malformed(f'parsing time "{text}": extra text: "{rest}"')
    year, month, day, hour, minute, second = found
    micros = int(fraction[1:7].ljust(6, "0")) if fraction else 0
    try:
        moment = datetime(year, month, day, hour, minute, second, micros, UTC)
        if zone != "Z":
            shift = datetime.fromisoformat(f"2000-01-01T00:00:00{zone}").utcoffset()
            assert shift is not None
            moment -= shift
    except (ValueError, OverflowError):
        raise Malformed(f'parsing time "{text}": day out of range') from None
    return moment
