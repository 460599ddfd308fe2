"""YAML texts as Kubernetes reads them: YAML 1.1 as Go's yaml.v2 has it, ending in JSON values.

PyYAML's own loader differs where it matters: it makes dates of texts like 2026-01-01, a number of
22:22 and a string of 1e3, takes a key that stands twice in silence, and its fast form crashes on
deep nesting. So libyaml only cuts the text into events, and their values are made here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

_MOST_VALUES = 400_000
"""More values than this, aliases expanded, and the text is a bomb, not a manifest."""

_WORDS: dict[str, Any] = {
    word: value
    for words, value in (
        ("y Y yes Yes YES true True TRUE on On ON", True),
        ("n N no No NO false False FALSE off Off OFF", False),
        ("~ null Null NULL", None),
    )
    for word in words.split()
}
_WORDS[""] = None
_INTEGER = re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]+|0|[1-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_TEXT_TAGS = ("!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:binary")


class YAMLFault(ValueError):
    """A text that is no YAML we take; ``str()`` is Go's sentence."""


def load(body: bytes, most_levels: int) -> tuple[Any, list[str]]:
    """The first document's value and the complaints about keys set twice in one map.

    Args:
        most_levels: how deep lists and maps may nest.

    Raises:
        YAMLFault: the text is malformed, or has what JSON cannot express.
    """
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        reader = _Reader(yaml.parse(body, Loader=loader), most_levels)
        return reader.document(), reader.complaints()
    except yaml.YAMLError as error:
        raise YAMLFault(_sentence(error)) from error


def _sentence(error: yaml.YAMLError) -> str:
    """libyaml's complaint with the line as Go counts it."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    if mark is None:
        return f"yaml: {problem}"
    line = mark.line + (1 if isinstance(error, yaml.scanner.ScannerError) else 0)
    return f"yaml: line {line}: {problem}" if line else f"yaml: {problem}"


class _Reader:
    """Recursive descent over the parser's events."""

    def __init__(self, events: Iterator[Any], most_levels: int) -> None:
        self._events = events
        self._levels_left = most_levels
        self._values = 0  # so far, aliases expanded
        self._anchors: dict[str, tuple[Any, int]] = {}  # the value, and how many values it is
        self._open: set[str] = set()
        self._repeated: list[str] = []

    def document(self) -> Any:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                return self._value(next(self._events))
        return None

    def complaints(self) -> list[str]:
        if not self._repeated:
            return []
        return ["yaml: unmarshal errors:\n" + "\n".join(self._repeated)]

    def _value(self, event: Any) -> Any:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        before = self._values
        self._count(1)
        if event.anchor:
            self._open.add(event.anchor)
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
        else:
            self._levels_left -= 1
            if self._levels_left < 0:
                raise YAMLFault("yaml: exceeded max depth")
            is_list = isinstance(event, yaml.SequenceStartEvent)
            value = self._sequence() if is_list else self._mapping()
            self._levels_left += 1
        if event.anchor:
            self._open.discard(event.anchor)
            self._anchors[event.anchor] = (value, self._values - before)
        return value

    def _count(self, values: int) -> None:
        self._values += values
        if self._values > _MOST_VALUES:
            raise YAMLFault("yaml: document contains excessive aliasing")

    def _alias(self, event: Any) -> Any:
        if event.anchor in self._open:
            raise YAMLFault(f"yaml: anchor '{event.anchor}' value contains itself")
        if event.anchor not in self._anchors:
            raise YAMLFault(f"yaml: unknown anchor '{event.anchor}' referenced")
        value, size = self._anchors[event.anchor]
        self._count(size)
        return value

    def _sequence(self) -> list[Any]:
        out = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            out.append(self._value(event))
        return out

    def _mapping(self) -> dict[str, Any]:
        out: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]:
                merged = {**self._merged(), **merged}
                continue
            key = _key(self._value(event), event)
            if key in out:
                line = event.start_mark.line + 1
                self._repeated.append(f'  line {line}: key "{key}" already set in map')
            out[key] = self._value(next(self._events))
        return {**merged, **out} if merged else out

    def _merged(self) -> dict[str, Any]:
        """The value of ``<<``: a map, or a list of maps of which the first wins."""
        value = self._value(next(self._events))
        out: dict[str, Any] = {}
        for part in reversed(value if isinstance(value, list) else [value]):
            if not isinstance(part, dict):
                raise YAMLFault("yaml: map merge requires map or sequence of maps as the value")
            out |= part
        return out


def _key(value: Any, event: Any) -> str:
    if isinstance(value, dict | list):
        line = event.start_mark.line + 1
        raise YAMLFault(f"yaml: line {line}: a map or list cannot be a key")
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)


def _scalar(event: Any) -> Any:
    """Quoted texts are texts, unless a tag says otherwise; bare words mean what they look like."""
    if event.tag in _TEXT_TAGS or (event.tag is None and not event.implicit[0]):
        return event.value
    return plain_scalar(event.value)


def plain_scalar(text: str) -> Any:
    """What a bare word means in YAML 1.1 as Go reads it."""
    if text in _WORDS:
        return _WORDS[text]
    if match := _INTEGER.fullmatch(text):
        number = _whole(text, match[1])
        if number is not None:
            return number
    if _FLOAT.fullmatch(text):
        return _number(float(text), text)
    if _NOT_FINITE.fullmatch(text):
        raise YAMLFault(f"json: unsupported value: {text}")
    return text


def _number(value: float, text: str) -> Any:
    """JSON has one number: Go writes 3.0 as 3, and so an integer field takes it."""
    if math.isinf(value):
        return text
    return int(value) if value.is_integer() and abs(value) < 1e21 else value


def _whole(text: str, digits: str) -> int | None:
    bare = digits.replace("_", "")
    sign = -1 if text.startswith("-") else 1
    base = {"0b": 2, "0x": 16, "0o": 8}.get(bare[:2])
    try:
        if base:
            return sign * int(bare[2:], base)
        return sign * int(bare, 8 if bare.startswith("0") and len(bare) > 1 else 10)
    except ValueError:  # nothing but underscores, or more digits than Python reads
        return None
