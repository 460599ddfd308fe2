"""Texts as nginx reads them back, whatever users wrote in them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator

Above = dict[str, list[str]]
"""What locations need beside the servers, as maps and zones: the lines, by what they are for."""


def quoted(text: str) -> str:
    """A text as nginx reads it back, but for variables, which it still fills in."""
    cleaned = re.sub(r"[\x00-\x1f\x7f]", "", text)
    return '"' + cleaned.replace("\\", "\\\\").replace('"', '\\"') + '"'


def plain(text: str) -> str:
    """A text for ``quoted`` in which nginx finds no variables."""
    return text.replace("$", "${dollar}")


def literal(text: str) -> str:
    """A text without variables where nginx would look for them."""
    return quoted(plain(text))


def name(*parts: str) -> str:
    """A name for something of ours, from any texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def host(address: str) -> str:
    """An IP address as nginx writes it before a port."""
    return f"[{address}]" if ":" in address else address


def on(value: bool) -> str:
    """How nginx writes a truth."""
    return "on" if value else "off"


def indented(lines: Iterable[str], depth: int) -> Iterator[str]:
    """The lines that say something, further in."""
    return ("    " * depth + line for line in lines if line)


def address(url: str, path: str, above: Above) -> str:
    """A variable with a URL: its host is looked for when it is needed, not before nginx starts.

    Args:
        url: as a user wrote it.
        path: that of a URL without one.
        above: gets what is needed.
    """
    rest = url.partition("://")[2]
    whole = url if "/" in rest or "$request_uri" in rest else url + path
    variable = f"$url_{name(whole)}"
    above[variable] = [f'map "" {variable} {{ default {quoted(whole)}; }}']
    return variable
