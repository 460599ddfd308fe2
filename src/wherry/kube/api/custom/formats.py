"""Formats of strings that validation knows; what has another name is not looked at.

Upstream: k8s.io/kube-openapi/pkg/validation/strfmt, and the list in
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import ipaddress
import re
from collections.abc import Callable
from urllib.parse import urlsplit


def _like(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda text: compiled.fullmatch(text) is not None


def _tried(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def test(text: str) -> bool:
        try:
            parse(text)
        except (ValueError, binascii.Error):
            return False
        return True

    return test


_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _date_time(text: str) -> object:
    if not _TIME.fullmatch(text):
        raise ValueError(text)
    return datetime.datetime.fromisoformat(text.upper())


def _cidr(text: str) -> object:
    if "/" not in text:
        raise ValueError(text)
    return ipaddress.ip_interface(text)


def _uri(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.scheme) or text.startswith("/")


def _uuid(third: str = "", fourth: str = "") -> Callable[[str], bool]:
    """UUIDs whose third and fourth groups begin so."""
    h = "[0-9a-fA-F]"
    third, fourth = third or h, fourth or h
    return _like(f"{h}{{8}}-?{h}{{4}}-?{third}{h}{{3}}-?{fourth}{h}{{3}}-?{h}{{12}}")


_LABEL = r"(?:[a-zA-Z0-9_](?:[a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?)"
_COLOR = r"(25[0-5]|2[0-4]\d|1?\d?\d)"

FORMATS: dict[str, Callable[[str], bool]] = {
    "bsonobjectid": _like(r"[0-9a-fA-F]{24}"),
    "byte": _tried(lambda text: base64.b64decode(text, validate=True)),
    "cidr": _tried(_cidr),
    "date": _tried(
        lambda text: datetime.date.fromisoformat(text if len(text) == 10 else "no date")
    ),
    "date-time": _tried(_date_time),
    "datetime": _tried(_date_time),
    "duration": _like(r"[-+]?(?:0|(?:(?:\d+\.?\d*|\.\d+)\s*(?:ns|us|µs|ms|s|m|h|d|w)\s*)+)"),
    "email": _like(r"[^@\s<>]+@[^@\s<>]+"),
    "hexcolor": _like(r"#?(?:[0-9a-fA-F]{3}|[0-9a-fA-F]{6})"),
    "hostname": lambda text: (
        len(text) <= 255 and bool(re.fullmatch(rf"{_LABEL}(?:\.{_LABEL})*\.?", text))
    ),
    "ipv4": _tried(ipaddress.IPv4Address),
    "ipv6": _tried(ipaddress.IPv6Address),
    "isbn": _like(r"(?:97[89][- ]?)?(?:\d[- ]?){9}[\dX]"),
    "isbn10": _like(r"(?:\d[- ]?){9}[\dX]"),
    "isbn13": _like(r"(?:\d[- ]?){13}"),
    "mac": _like(r"[0-9a-fA-F]{2}(?:[:-][0-9a-fA-F]{2}){5}(?:(?:[:-][0-9a-fA-F]{2}){2})?"),
    "rgbcolor": _like(rf"rgb\(\s*{_COLOR}\s*,\s*{_COLOR}\s*,\s*{_COLOR}\s*\)"),
    "ssn": _like(r"\d{3}[- ]?\d{2}[- ]?\d{4}"),
    "uri": _uri,
    "uuid": _uuid(),
    "uuid3": _uuid("3"),
    "uuid4": _uuid("4", "[89abAB]"),
    "uuid5": _uuid("5", "[89abAB]"),
}
