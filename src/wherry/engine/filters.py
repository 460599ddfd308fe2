"""The ``filters`` parameter of the Engine API: which values are wanted for which key.

It is a JSON object, ``{"status": ["running", "paused"]}`` or, from old clients,
``{"status": {"running": true}}``. Values of one key are alternatives, except labels, which must all
be there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import orjson

from wherry.engine.errors import BadParameter


class Filters:
    """Parsed filters."""

    def __init__(self, values: Mapping[str, list[str]]) -> None:
        self._values = values

    def __bool__(self) -> bool:
        return bool(self._values)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str) -> list[str]:
        """The wanted values; empty where the key is not given."""
        return self._values.get(key, [])

    def flag(self, key: str, default: bool = False) -> bool:
        """A key that is either true or false.

        Raises:
            BadParameter: it is neither, or both.
        """
        values = self.get(key)
        if not values:
            return default
        if len(values) == 1 and values[0].lower() in ("1", "true", "t"):
            return True
        if len(values) == 1 and values[0].lower() in ("0", "false", "f"):
            return False
        raise self.invalid(key)

    def invalid(self, key: str) -> BadParameter:
        """The error for a key with values that it cannot have."""
        return BadParameter(f"invalid filter '{key}=[{' '.join(self.get(key))}]'")

    def check(self, known: Collection[str]) -> Filters:
        """Itself.

        Raises:
            BadParameter: a key is not among ``known``.
        """
        for key in self._values:
            if key not in known:
                raise BadParameter(f"invalid filter '{key}'")
        return self

    def exact(self, key: str, *values: str) -> bool:
        """Whether one of ``values`` is wanted, or nothing in particular is."""
        return key not in self._values or any(value in self._values[key] for value in values)

    def fuzzy(self, key: str, *values: str) -> bool:
        """As ``exact``, where the beginning of a value is enough."""
        return key not in self._values or any(
            value.startswith(wanted) for wanted in self._values[key] for value in values
        )

    def pattern(self, key: str, *values: str) -> bool:
        """As ``exact``, where the wanted value is a regular expression found in the value."""
        if key not in self._values:
            return True
        for wanted in self._values[key]:
            if wanted in values:
                return True
            try:
                expression = re.compile(wanted)
            except re.error:
                continue  # as in Docker, what is no expression matches nothing else
            if any(expression.search(value) for value in values):
                return True
        return False

    def labels(self, labels: Mapping[str, str], key: str = "label") -> bool:
        """Whether every wanted ``name`` or ``name=value`` is among ``labels``."""
        return all(_has_label(labels, wanted) for wanted in self.get(key))

    def not_labels(self, labels: Mapping[str, str]) -> bool:
        """Whether none of the labels of ``label!`` is there."""
        return not any(_has_label(labels, wanted) for wanted in self.get("label!"))


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    name, separator, value = wanted.partition("=")
    return name in labels and (not separator or labels[name] == value)


def parse(text: str) -> Filters:
    """The filters of a request.

    Raises:
        BadParameter: the text is not of that form.
    """
    if not text:
        return Filters({})
    try:
        document = orjson.loads(text)
    except ValueError:
        raise BadParameter("invalid filter") from None
    if not isinstance(document, dict):
        raise BadParameter("invalid filter")
    values: dict[str, list[str]] = {}
    for key, wanted in document.items():
        if isinstance(wanted, dict):
            values[key] = list(wanted)  # Docker does not look at the values: true, or 1
        elif isinstance(wanted, list) and all(isinstance(value, str) for value in wanted):
            values[key] = wanted
        else:
            raise BadParameter("invalid filter")
    return Filters(values)
