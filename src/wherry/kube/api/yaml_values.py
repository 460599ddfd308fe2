"""YAML texts as Kubernetes reads them: YAML 1.1 as Go's yaml.v2 has it, ending in JSON values.

PyYAML's own constructor differs where it matters: it makes dates of texts like 2026-01-01, a number
of 22:22 and a string of 1e3, and takes a key that stands twice in silence. So the nodes are
composed by libyaml and given their values here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
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
_TAG = "tag:yaml.org,2002:"
_resolve: Callable[[type, str, tuple[bool, bool]], str] = yaml.resolver.Resolver().resolve


class YAMLFault(ValueError):
    """A text that is no YAML we take; ``str()`` is Go's sentence."""


def load(body: bytes) -> tuple[Any, list[str]]:
    """The first document's value and the complaints about keys set twice in one map.

    Raises:
        YAMLFault: the text is malformed, or has what JSON cannot express.
    """
    base: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        loader = base(body)
    except yaml.YAMLError as error:
        raise YAMLFault(_sentence(error)) from error
    try:
        node = loader.get_node() if loader.check_node() else None
    except yaml.YAMLError as error:
        raise YAMLFault(_sentence(error)) from error
    except RecursionError:
        raise YAMLFault("yaml: exceeded max depth of 10000") from None
    finally:
        loader.dispose()
    if node is None:
        return None, []
    reader = _Reader()
    try:
        value = reader.value(node)
    except RecursionError:
        raise YAMLFault("yaml: exceeded max depth of 10000") from None
    if not reader.repeated:
        return value, []
    return value, ["yaml: unmarshal errors:\n" + "\n".join(reader.repeated)]


def _sentence(error: yaml.YAMLError) -> str:
    """libyaml's complaint with the line as Go counts it."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    if mark is None:
        return f"yaml: {problem}"
    line = mark.line + (1 if isinstance(error, yaml.scanner.ScannerError) else 0)
    return f"yaml: line {line}: {problem}" if line else f"yaml: {problem}"


class _Reader:
    def __init__(self) -> None:
        self.repeated: list[str] = []
        self._values = 0
        self._open: set[int] = set()

    def value(self, node: yaml.Node) -> Any:
        self._values += 1
        if self._values > _MOST_VALUES:
            raise YAMLFault("yaml: document contains excessive aliasing")
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node)
        if id(node) in self._open:
            raise YAMLFault(f"yaml: anchor at line {node.start_mark.line + 1} contains itself")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item) for item in node.value]
            return self.mapping(node)
        finally:
            self._open.discard(id(node))

    def mapping(self, node: yaml.Node) -> dict[str, Any]:
        out: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                for part in self.merged(value_node):
                    merged = {**part, **merged}
                continue
            key = self.key(key_node)
            if key in out:
                line = key_node.start_mark.line + 1
                self.repeated.append(f'  line {line}: key "{key}" already set in map')
            out[key] = self.value(value_node)
        return {**merged, **out} if merged else out

    def merged(self, node: yaml.Node) -> list[dict[str, Any]]:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not all(isinstance(part, yaml.MappingNode) for part in parts):
            raise YAMLFault("yaml: map merge requires map or sequence of maps as the value")
        values = [self.value(part) for part in parts]
        return [value for value in values if isinstance(value, dict)]

    def key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            line = node.start_mark.line + 1
            raise YAMLFault(f"yaml: line {line}: a map or list cannot be a key")
        value = self.scalar(node)
        if isinstance(value, bool):
            return "true" if value else "false"
        return "null" if value is None else str(value)

    def scalar(self, node: yaml.ScalarNode) -> Any:
        text: str = node.value
        if node.tag == _TAG + "binary":
            return text
        # A bare text that PyYAML would have taken for something else was tagged !!str.
        if node.tag == _TAG + "str" and (
            node.style or _resolve(yaml.ScalarNode, text, (True, False)) != node.tag
        ):
            return text
        return plain_scalar(text)


def plain_scalar(text: str) -> Any:
    """What a bare word means in YAML 1.1 as Go reads it."""
    if text in _WORDS:
        return _WORDS[text]
    if match := _INTEGER.fullmatch(text):
        number = _whole(text, match[1])
        if number is not None:
            return number
    if _FLOAT.fullmatch(text):
        value = float(text)
        # JSON has one number: Go writes 3.0 as 3, and so an integer field takes it.
        return int(value) if value.is_integer() and abs(value) < 1e21 else _finite(value, text)
    if _NOT_FINITE.fullmatch(text):
        raise YAMLFault(f"json: unsupported value: {text}")
    return text


def _finite(value: float, text: str) -> Any:
    if math.isinf(value):
        return text
    return value


def _whole(text: str, digits: str) -> int | None:
    bare = digits.replace("_", "")
    sign = -1 if text.startswith("-") else 1
    prefix = bare[:2]
    base = {"0b": 2, "0x": 16, "0o": 8}.get(prefix)
    if base:
        return sign * int(bare[2:], base) if bare[2:] else None
    if bare.startswith("0") and len(bare) > 1:
        return sign * int(bare, 8)
    return sign * int(bare)
