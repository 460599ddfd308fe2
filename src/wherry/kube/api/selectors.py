"""Label and field selectors: their text, their meaning.

Grammar and error texts follow k8s.io/apimachinery/pkg/labels and .../fields. A text that is no
selector raises ``StatusError`` 400, as the list options of a request do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from wherry.kube.api.errors import bad_request
from wherry.kube.api.names import is_label_key, is_label_value, quoted

Labels = Mapping[str, str]

_BINARY_OPERATORS = ("in", "notin", "=", "==", "!=", "gt", "lt")
_SYMBOLS = {")": "", "(": "", ",": "", "!": "", "=": "", "==": "", "!=": "", ">": "gt", "<": "lt"}
"""Tokens of signs alone, and the operator's name where that differs."""
_SIGNS = frozenset("=!(),><")
_SPACE = frozenset(" \t\r\n")
_END = ""


def _integer(text: str) -> int | None:
    """A text as Go's ParseInt reads it in 64 bits; None where it does not."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit()):
        return None
    number = int(text)
    return number if -(2**63) <= number < 2**63 else None


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label.

    ``operator`` is ``in``, ``notin``, ``=``, ``==``, ``!=``, ``exists``, ``!``, ``gt`` or ``lt``.
    """

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Labels) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "in" | "=" | "==":
                return value is not None and value in self.values
            case "notin" | "!=":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
        if value is None:
            return False
        have, bound = _integer(value), _integer(self.values[0])
        if have is None or bound is None:
            return False
        return have > bound if self.operator == "gt" else have < bound

    def __str__(self) -> str:
        match self.operator:
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
            case "in" | "notin":
                return f"{self.key} {self.operator} ({','.join(sorted(self.values))})"
        sign = {"gt": ">", "lt": "<"}.get(self.operator, self.operator)
        return f"{self.key}{sign}{self.values[0]}"


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Requirements that must all hold; none at all select everything.

    ``nothing`` marks the selector that selects no object, which no text can express: what an
    absent selector object means.
    """

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    def matches(self, labels: Labels | None) -> bool:
        if self.nothing:
            return False
        return all(requirement.matches(labels or {}) for requirement in self.requirements)

    @property
    def empty(self) -> bool:
        """Whether it selects everything."""
        return not self.requirements and not self.nothing

    def exact(self, key: str) -> str | None:
        """The one value that the label ``key`` must have, where the selector demands one."""
        for requirement in self.requirements:
            if requirement.key == key and requirement.operator in ("=", "==", "in"):
                return requirement.values[0] if len(requirement.values) == 1 else None
        return None

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))


EVERYTHING = LabelSelector()
NOTHING = LabelSelector(nothing=True)


class _Unparsable(ValueError):
    pass


def _tokens(text: str) -> list[str]:
    """The text cut into identifiers and symbols; ``_END`` stands at the end."""
    tokens = []
    position, end = 0, len(text)
    while position < end:
        if text[position] in _SPACE:
            position += 1
            continue
        start = position
        if text[position] in _SIGNS:
            position += 1
            while position < end and text[start : position + 1] in _SYMBOLS:
                position += 1
        else:
            while position < end and text[position] not in _SIGNS | _SPACE:
                position += 1
        tokens.append(text[start:position])
    tokens.append(_END)
    return tokens


class _LabelParser:
    """Recursive descent over the tokens. ``in`` and ``notin`` are operators only after a key."""

    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.position = 0

    @property
    def ahead(self) -> str:
        return self.tokens[self.position]

    def take(self) -> str:
        word = self.tokens[self.position]
        if word != _END:
            self.position += 1
        return word

    @staticmethod
    def is_identifier(word: str) -> bool:
        return word != _END and word not in _SYMBOLS

    def selector(self) -> list[Requirement]:
        requirements: list[Requirement] = []
        if self.ahead == _END:
            return requirements
        if not self.is_identifier(self.ahead) and self.ahead != "!":
            raise _Unparsable(f"found '{self.ahead}', expected: !, identifier, or 'end of string'")
        while True:
            try:
                requirements.append(self.requirement())
            except _Unparsable as error:
                raise _Unparsable(f"unable to parse requirement: {error}") from error
            word = self.take()
            if word == _END:
                return requirements
            if word != ",":
                raise _Unparsable(f"found '{word}', expected: ',' or 'end of string'")
            if not self.is_identifier(self.ahead) and self.ahead != "!":
                raise _Unparsable(f"found '{self.ahead}', expected: identifier after ','")

    def requirement(self) -> Requirement:
        absent = self.ahead == "!"
        if absent:
            self.take()
        key = self.take()
        if not self.is_identifier(key):
            raise _Unparsable(f"found '{key}', expected: identifier")
        if why := is_label_key(key):
            raise _Unparsable(f"<nil>: Invalid value: {quoted(key)}: {'; '.join(why)}")
        if absent or self.ahead in (_END, ","):
            return Requirement(key, "!" if absent else "exists")
        word = self.take()
        operator = _SYMBOLS.get(word) or word
        if operator not in _BINARY_OPERATORS or word in ("gt", "lt"):
            raise _Unparsable(f"found '{word}', expected: {', '.join(_BINARY_OPERATORS)}")
        values = self.values() if operator in ("in", "notin") else [self.exact_value()]
        return _checked(key, operator, values)

    def exact_value(self) -> str:
        if self.ahead in (_END, ","):
            return ""
        word = self.take()
        if not self.is_identifier(word):
            raise _Unparsable(f"found '{word}', expected: identifier")
        return word

    def values(self) -> list[str]:
        word = self.take()
        if word != "(":
            raise _Unparsable(f"found '{word}' expected: '('")
        if self.ahead == ")":
            self.take()
            return []
        if not self.is_identifier(self.ahead) and self.ahead != ",":
            raise _Unparsable(f"found '{self.ahead}', expected: ',', ')' or identifier")
        found: list[str] = []
        while True:  # a value, which may be missing, then a comma or the end of the list
            if self.is_identifier(self.ahead):
                found.append(self.take())
            elif self.ahead in (",", ")"):
                found.append("")
            else:
                raise _Unparsable(f"found '{self.ahead}', expected: ',', or identifier")
            word = self.take()
            if word == ")":
                return sorted(set(found))
            if word != ",":
                raise _Unparsable(f"found '{word}', expected: ',' or ')'")


def _checked(key: str, operator: str, values: Sequence[str]) -> Requirement:
    """The requirement, if its values suit its operator and may be values of labels."""
    wrong = []
    if operator in ("in", "notin") and not values:
        wrong.append(
            "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"
        )
    if operator in ("gt", "lt"):
        wrong += [
            f"values[{i}]: Invalid value: {quoted(value)}: for 'Gt', 'Lt' operators, the value "
            "must be an integer"
            for i, value in enumerate(values)
            if _integer(value) is None
        ]
    for i, value in enumerate(values):
        if why := is_label_value(value):
            wrong.append(f"values[{i}][{key}]: Invalid value: {quoted(value)}: {'; '.join(why)}")
    if wrong:
        raise _Unparsable(wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]")
    return Requirement(key, operator, tuple(values))


@lru_cache(1024)
def parse_labels(text: str) -> LabelSelector:
    """The label selector that ``text`` means, its requirements ordered by key.

    Raises:
        StatusError: 400, with upstream's sentence.
    """
    try:
        requirements = _LabelParser(text).selector()
    except _Unparsable as error:
        raise bad_request(str(error)) from error
    return LabelSelector(tuple(sorted(requirements, key=lambda r: r.key)))


def labels_from_set(labels: Labels | None) -> LabelSelector:
    """The selector that demands exactly these labels (``spec.selector`` of a Service or RC)."""
    return LabelSelector(
        tuple(Requirement(k, "=", (v,)) for k, v in sorted((labels or {}).items()))
    )


_OBJECT_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}


def labels_from_object(selector: Mapping[str, Any] | None) -> LabelSelector:
    """The selector that a meta/v1 LabelSelector object means: absent selects nothing, empty all.

    Raises:
        StatusError: 400, an operator is unknown or the values do not suit it.
    """
    if selector is None:
        return NOTHING
    requirements = list(labels_from_set(selector.get("matchLabels")).requirements)
    for expression in selector.get("matchExpressions") or ():
        key, values = expression.get("key", ""), tuple(expression.get("values") or ())
        operator = _OBJECT_OPERATORS.get(expression.get("operator", ""))
        if operator is None:
            raise bad_request(
                f"{quoted(expression.get('operator', ''))} is not a valid label selector operator"
            )
        if operator in ("in", "notin"):
            try:
                requirements.append(_checked(key, operator, values))
            except _Unparsable as error:
                raise bad_request(str(error)) from error
        else:
            requirements.append(Requirement(key, operator))
    return LabelSelector(tuple(sorted(requirements, key=lambda r: r.key)))


@dataclass(frozen=True, slots=True)
class FieldTerm:
    """``field=value``, or ``field!=value`` where ``negated``."""

    field: str
    value: str
    negated: bool = False

    def __str__(self) -> str:
        return f"{self.field}{'!=' if self.negated else '='}{_escape(self.value)}"


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """Conditions on an object's selectable fields that must all hold."""

    terms: tuple[FieldTerm, ...] = ()

    def matches(self, fields: Mapping[str, str]) -> bool:
        """Whether all terms hold; a field that is not in ``fields`` is empty."""
        return all((fields.get(t.field, "") == t.value) != t.negated for t in self.terms)

    @property
    def empty(self) -> bool:
        return not self.terms

    def exact(self, field: str) -> str | None:
        """The one value that ``field`` must have, where the selector demands one."""
        for term in self.terms:
            if term.field == field and not term.negated:
                return term.value
        return None

    def check(self, known: frozenset[str], *, plain: bool = False) -> None:
        """Refuses fields that the kind cannot be selected by.

        Args:
            known: the fields it can be selected by.
            plain: it is a built-in kind without any of its own, which all take the same two, also
                those that are in no namespace.

        Raises:
            StatusError: 400, naming the first such field.
        """
        for term in self.terms:
            if term.field in known or (plain and term.field == "metadata.namespace"):
                continue
            if plain:
                raise bad_request(
                    f'"{term.field}" is not a known field selector: only "metadata.name", '
                    '"metadata.namespace"'
                )
            raise bad_request(f"field label not supported: {term.field}")

    def __str__(self) -> str:
        return ",".join(map(str, self.terms))


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")


def _unescape(value: str) -> str:
    out = []
    letters = iter(value)
    for letter in letters:
        if letter == "\\":
            letter = next(letters, "")
            if letter not in ("\\", ",", "=") or not letter:
                raise _Unparsable(f"invalid field selector: invalid escape sequence: \\{letter}")
        elif letter in ",=":
            raise _Unparsable(
                f"invalid field selector: unescaped character in value: {ord(letter)}"
            )
        out.append(letter)
    return "".join(out)


def _split_terms(text: str) -> list[str]:
    """Cuts at the commas that no backslash stands before."""
    terms, start, position = [], 0, 0
    while position < len(text):
        if text[position] == "\\":
            position += 2
            continue
        if text[position] == ",":
            terms.append(text[start:position])
            start = position + 1
        position += 1
    terms.append(text[start:])
    return terms


def _field_term(term: str, text: str) -> FieldTerm:
    """One term; the first operator in it divides it."""
    for position in range(len(term)):
        for operator in ("!=", "==", "="):
            if term.startswith(operator, position):
                value = _unescape(term[position + len(operator) :])
                return FieldTerm(term[:position], value, operator == "!=")
    raise _Unparsable(f"invalid selector: '{text}'; can't understand '{term}'")


@lru_cache(1024)
def parse_fields(text: str) -> FieldSelector:
    """The field selector that ``text`` means.

    Raises:
        StatusError: 400, with upstream's sentence.
    """
    try:
        return FieldSelector(tuple(_field_term(t, text) for t in sorted(_split_terms(text)) if t))
    except _Unparsable as error:
        raise bad_request(str(error)) from error


__all__ = [
    "EVERYTHING",
    "NOTHING",
    "FieldSelector",
    "FieldTerm",
    "LabelSelector",
    "Requirement",
    "labels_from_object",
    "labels_from_set",
    "parse_fields",
    "parse_labels",
]
