"""Expanding variables and removing quotes in the words of an instruction.

The forms are those of the Dockerfile reference, "Environment replacement": ``$x``, ``${x}``, the
modifiers ``:-``, ``-``, ``:+``, ``+``, ``:?``, ``?``, and the patterns ``#``, ``##``, ``%``,
``%%``, ``/`` and ``//``. They nest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from wherry.engine.build.dockerfile.errors import DockerfileError

_SPECIAL = "@*#?-$!0"


def expand(word: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """``word`` with variables replaced and quotes removed; a variable that is not set is empty.

    Raises:
        DockerfileError: a quote or brace is not closed, a modifier is unknown, or a variable that
            ``?`` demands is missing.
    """
    return _Reader(word, variables, escape).whole()[0]


def expand_to_words(word: str, variables: Mapping[str, str], escape: str = "\\") -> list[str]:
    """As ``expand``, cut where there are blanks outside of quotes, also where a variable has them.

    Raises:
        DockerfileError: as ``expand``.
    """
    return _Reader(word, variables, escape).whole()[1]


def expand_text(text: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """``text`` with variables replaced; quotes stay as they are.

    Raises:
        DockerfileError: as ``expand``.
    """
    return _Reader(text, variables, escape).document()


class _Words:
    """Collects text and the words in it."""

    def __init__(self) -> None:
        self.text = ""
        self.words: list[str] = []
        self._word = ""
        self._started = False

    def add(self, text: str, *, quoted: bool = False) -> None:
        self.text += text
        if quoted:
            self._word += text
            self._started = True
            return
        for char in text:
            if char.isspace():
                self.end()
            else:
                self._word += char
                self._started = True

    def end(self) -> None:
        if self._started:
            self.words.append(self._word)
        self._word, self._started = "", False


class _Reader:
    def __init__(self, text: str, variables: Mapping[str, str], escape: str) -> None:
        self._text = text
        self._at = 0
        self._variables = variables
        self._escape = escape

    def whole(self) -> tuple[str, list[str]]:
        try:
            words = self._until("")
        except DockerfileError as error:
            raise DockerfileError(f'failed to process "{_shown(self._text)}": {error}') from None
        return words.text, words.words

    def document(self) -> str:
        """All of the text, in which only ``$`` and escapes of it are special."""
        made = ""
        while char := self._peek():
            if char == "$":
                made += self._dollar()
                continue
            self._next()
            if char == self._escape and self._peek() in ("$", self._escape) and self._peek():
                char = self._next()
            made += char
        return made

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._peek()
        self._at += 1
        return char

    def _until(self, stop: str, *, pattern: bool = False) -> _Words:
        """Read to the character ``stop``, which is eaten; in a ``pattern`` escapes stay."""
        words = _Words()
        while char := self._peek():
            if stop and char == stop:
                self._next()
                words.end()
                return words
            if char == "'":
                words.add(self._single_quoted(), quoted=True)
            elif char == '"':
                words.add(self._double_quoted(), quoted=True)
            elif char == "$":
                words.add(self._dollar())
            elif char == self._escape:
                self._next()
                if following := self._next():
                    words.add((self._escape if pattern else "") + following, quoted=True)
            else:
                words.add(self._next())
        if stop:
            raise DockerfileError(f"unexpected end of statement while looking for matching {stop}")
        words.end()
        return words

    def _single_quoted(self) -> str:
        self._next()
        end = self._text.find("'", self._at)
        if end < 0:
            raise DockerfileError(
                "unexpected end of statement while looking for matching single-quote"
            )
        text, self._at = self._text[self._at : end], end + 1
        return text

    def _double_quoted(self) -> str:
        self._next()
        text = ""
        while char := self._peek():
            if char == '"':
                self._next()
                return text
            if char == "$":
                text += self._dollar()
                continue
            self._next()
            if char == self._escape:
                following = self._next()
                if following in ('"', "$", self._escape) and following:
                    char = following
                else:
                    char += following
            text += char
        raise DockerfileError("unexpected end of statement while looking for matching double-quote")

    def _name(self) -> str:
        match = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|\d+").match(self._text, self._at)
        if match:
            self._at = match.end()
            return match[0]
        return self._next() if self._peek() and self._peek() in _SPECIAL else ""

    def _dollar(self) -> str:
        self._next()
        if self._peek() != "{":
            name = self._name()
            return self._variables.get(name, "") if name else "$"
        self._next()
        if not self._peek():
            raise DockerfileError("syntax error: missing '}'")
        name = self._name()
        if not name:
            raise DockerfileError("syntax error: bad substitution")
        value = self._variables.get(name)
        operator = self._next()
        match operator:
            case "}":
                return value or ""
            case ":":
                return self._modified(name, value or None, self._next(), ":")
            case "+" | "-" | "?":
                return self._modified(name, value, operator, "")
            case "#" | "%":
                return self._trimmed(value or "", operator)
            case "/":
                return self._replaced(value or "")
            case "":
                raise DockerfileError("syntax error: missing '}'")
            case _:
                raise DockerfileError(f"unsupported modifier ({operator}) in substitution")

    def _modified(self, name: str, value: str | None, operator: str, colon: str) -> str:
        if operator not in ("+", "-", "?") or not operator:
            if not operator:
                raise DockerfileError("syntax error: missing '}'")
            raise DockerfileError(f"unsupported modifier ({colon}{operator}) in substitution")
        word = self._closed()
        if operator == "+":
            return word if value is not None else ""
        if value is not None:
            return value
        if operator == "-":
            return word
        default = "is not allowed to be " + ("empty" if colon else "unset")
        raise DockerfileError(f"{name}: {word or default}")

    def _closed(self, *, pattern: bool = False) -> str:
        try:
            return self._until("}", pattern=pattern).text
        except DockerfileError as error:
            if str(error).endswith("matching }"):
                raise DockerfileError("syntax error: missing '}'") from None
            raise

    def _trimmed(self, value: str, side: str) -> str:
        greedy = self._peek() == side
        if greedy:
            self._next()
        pattern = _shell_pattern(self._closed(pattern=True), self._escape)
        lengths = range(len(value) + 1)
        for length in reversed(lengths) if greedy else lengths:
            head, tail = value[:length], value[length:]
            if side == "%":
                head, tail = value[len(value) - length :], value[: len(value) - length]
            if pattern.fullmatch(head):
                return tail
        return value

    def _replaced(self, value: str) -> str:
        every = self._peek() == "/"
        if every:
            self._next()
        pattern = _shell_pattern(self._until("/", pattern=True).text, self._escape)
        replacement = self._closed(pattern=True).replace(f"{self._escape}/", "/")
        if not pattern.pattern:
            return value
        return pattern.sub(lambda _: replacement, value, count=0 if every else 1)


def _shell_pattern(text: str, escape: str) -> re.Pattern[str]:
    made = ""
    characters = iter(text)
    for char in characters:
        if char == "*":
            made += ".*"
        elif char == "?":
            made += "."
        elif char == escape:
            made += re.escape(next(characters, escape))
        else:
            made += re.escape(char)
    return re.compile(made, re.DOTALL)


def _shown(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
