"""Patterns of paths: those of COPY's sources, and of ``.dockerignore``.

A pattern of COPY is Go's ``filepath.Match``; ``.dockerignore`` adds ``**``, exceptions by ``!``,
and that what is below something excluded is excluded, too (Dockerfile reference,
".dockerignore file").
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass

from wherry.engine.build.dockerfile.errors import DockerfileError


def has_wildcards(path: str) -> bool:
    """Whether ``path`` is a pattern."""
    return bool(re.search(r"[*?\[]", re.sub(r"\\.", "", path)))


def matcher(pattern: str) -> re.Pattern[str]:
    """The whole-path matcher of a pattern, in which ``*`` and ``?`` do not match a slash.

    Raises:
        DockerfileError: it is malformed.
    """
    return _compile(pattern, deep=False)


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    exception: bool


class IgnoreFile:
    """The rules of a ``.dockerignore``, in their order; a later one overrules an earlier."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """From its patterns, see ``read_ignore_file``.

        Raises:
            DockerfileError: one is malformed.
        """
        self._rules = []
        for text in patterns:
            exception = text.startswith("!")
            if exception and not text[1:].strip():
                raise DockerfileError('illegal exclusion pattern: "!"')
            pattern = _cleaned(text[1:] if exception else text)
            self._rules.append(_Rule(_compile(pattern, deep=True), exception))

    def excludes(self, path: str) -> bool:
        """Whether ``path``, relative and clean, is left out of the context."""
        parts = path.split("/")
        places = ["/".join(parts[:depth]) for depth in range(len(parts), 0, -1)]
        excluded = False
        for rule in self._rules:
            if rule.exception == excluded and any(
                rule.pattern.fullmatch(place) for place in places
            ):
                excluded = not rule.exception
        return excluded


def read_ignore_file(text: str) -> list[str]:
    """The patterns of a ``.dockerignore``, clean and without comments."""
    found = []
    for line in text.removeprefix("\ufeff").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        pattern = line.strip()
        exception = pattern.startswith("!")
        if exception:
            pattern = pattern[1:].strip()
        if pattern:
            pattern = _cleaned(pattern)
        found.append(f"!{pattern}" if exception else pattern)
    return found


def _cleaned(pattern: str) -> str:
    pattern = posixpath.normpath(pattern.strip())
    return pattern.lstrip("/") or "/"


def _compile(pattern: str, *, deep: bool) -> re.Pattern[str]:
    made, position = "", 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "*":
            if deep and pattern.startswith("*", position):
                position += 1
                if pattern.startswith("/", position):
                    position += 1
                    made += "(?:.*/)?"
                else:
                    made += ".*"
            else:
                made += "[^/]*"
        elif char == "?":
            made += "[^/]"
        elif char == "[":
            end = _class_end(pattern, position)
            if end < 0:
                raise DockerfileError("syntax error in pattern")
            inside = pattern[position:end]
            negated = inside.startswith("^")
            inside = inside.removeprefix("^").replace("[", r"\[")
            made += f"(?!/)[{'^' if negated else ''}{inside}]"
            position = end + 1
        elif char == "\\":
            if position == len(pattern):
                raise DockerfileError("syntax error in pattern")
            made += re.escape(pattern[position])
            position += 1
        else:
            made += re.escape(char)
    try:
        return re.compile(made, re.DOTALL)
    except re.error:
        raise DockerfileError("syntax error in pattern") from None


def _class_end(pattern: str, position: int) -> int:
    position += pattern.startswith("^", position)
    begin = position
    while position < len(pattern):
        if pattern[position] == "\\":
            position += 1
        elif pattern[position] == "]" and position > begin:
            return position
        position += 1
    return -1
