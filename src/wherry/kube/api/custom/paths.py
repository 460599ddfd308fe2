"""JSONPath, the part of it that definitions use: printer columns, scale, selectable fields.

https://kubernetes.io/docs/reference/kubectl/jsonpath/: names, quoted names, indices, slices,
wildcards, recursive descent and filters that compare one path with a literal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

Values = list[Any]
Step = Callable[[Any], Iterable[Any]]

_FILTER = re.compile(
    r"@((?:\.[^\s=!<>.\[\]]+|\['[^']*'\])+)\s*(?:(==|!=|<=|>=|<|>)\s*(.+))?", re.DOTALL
)


class BadPath(ValueError):
    """A text that is no JSONPath."""


@lru_cache(1024)
def parse(text: str) -> tuple[Step, ...]:
    """The steps of ``.spec.list[0].name``. Raises BadPath."""
    steps: list[Step] = []
    at = 0
    text = text.strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1].strip()
    text = text.removeprefix("$")
    while at < len(text):
        if text.startswith("..", at):
            steps.append(_descend)
            at += 1
            if text[at + 1 : at + 2] == "[":
                at += 1
        elif text[at] == ".":
            end = at + 1
            name = ""
            while end < len(text) and text[end] not in ".[":
                if text[end] == "\\":
                    end += 1
                name += text[end : end + 1]
                end += 1
            if not name and (end >= len(text) or text[end] != "["):
                if end >= len(text) and not steps:
                    return ()
                raise BadPath(f"empty name in {text}")
            if name:
                steps.append(_all if name == "*" else _field(name))
            at = end
        elif text[at] == "[":
            end = _closing(text, at)
            steps.append(_bracket(text[at + 1 : end].strip()))
            at = end + 1
        else:
            raise BadPath(f"unrecognized character in action: {text[at]!r}")
    return tuple(steps)


def find(text: str, value: Any) -> Values:
    """All values the path leads to. Raises BadPath."""
    found: Values = [value]
    for step in parse(text):
        found = [each for one in found for each in step(one)]
        if not found:
            break
    return found


def simple(text: str) -> tuple[str, ...] | None:
    """The names of ``.spec.replicas``; None where it is more than names."""
    if not text.startswith(".") or any(c in text for c in "[]*\\") or ".." in text:
        return None
    names = tuple(text[1:].split("."))
    return names if all(names) else None


def _closing(text: str, at: int) -> int:
    quote = ""
    depth = 0
    for i in range(at, len(text)):
        c = text[i]
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c == "[":
            depth += 1
        elif c == "]":
            depth -= 1
            if not depth:
                return i
    raise BadPath("unterminated array")


def _field(name: str) -> Step:
    return lambda value: [value[name]] if isinstance(value, dict) and name in value else []


def _all(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else []


def _descend(value: Any) -> Iterable[Any]:
    yield value
    for each in _all(value):
        yield from _descend(each)


def _bracket(inside: str) -> Step:
    if inside == "*":
        return _all
    if len(inside) > 1 and inside[0] in "'\"" and inside[-1] == inside[0]:
        return _field(inside[1:-1])
    if inside.startswith("?(") and inside.endswith(")"):
        return _filter(inside[2:-1].strip())
    try:
        numbers = [int(part) if part.strip() else None for part in inside.split(":")]
    except ValueError:
        raise BadPath(f"invalid array index {inside}") from None
    if len(numbers) == 1 and numbers[0] is not None:
        index = numbers[0]
        return lambda value: (
            [value[index]] if isinstance(value, list) and -len(value) <= index < len(value) else []
        )
    if len(numbers) > 3 or len(numbers) == 1:
        raise BadPath(f"invalid array index {inside}")
    return lambda value: value[slice(*numbers)] if isinstance(value, list) else []


def _literal(text: str) -> Any:
    text = text.strip()
    if len(text) > 1 and text[0] in "'\"" and text[-1] == text[0]:
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise BadPath(f"unrecognized literal {text}") from None


def _filter(text: str) -> Step:
    match = _FILTER.fullmatch(text)
    if match is None:
        raise BadPath(f"unrecognized filter {text}")
    path, sign, right = match.groups()
    if sign is None:
        return lambda value: [each for each in _all(value) if find(path, each)]
    wanted = _literal(right)
    compare: dict[str, Callable[[Any], bool]] = {
        "==": lambda v: bool(v == wanted),
        "!=": lambda v: bool(v != wanted),
        "<": lambda v: bool(v < wanted),
        "<=": lambda v: bool(v <= wanted),
        ">": lambda v: bool(v > wanted),
        ">=": lambda v: bool(v >= wanted),
    }
    test = compare[sign]

    def holds(each: Any) -> bool:
        try:
            return any(test(value) for value in find(path, each))
        except TypeError:
            return False

    return lambda value: [each for each in _all(value) if holds(each)]
