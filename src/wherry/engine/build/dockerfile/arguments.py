"""Build arguments: which variables ARG has declared where, and what the user gave for them.

An ARG before the first FROM is for the FROM lines, and for stages that declare it again. A stage
has what it declares itself. The proxies need no declaration, and leave no trace in the image.
"""

from __future__ import annotations

from collections.abc import Mapping

# Known without ARG (Dockerfile reference, "Predefined ARGs").
PREDEFINED = frozenset(
    name
    for word in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
    for name in (word, word.upper())
)


class Arguments:
    """The arguments of one stage, or of what stands before the first.

    ``given`` are those of ``--build-arg``; None stands for one without a value. ``builtin`` are
    known to FROM lines (TARGETPLATFORM and its like), and to a stage that declares them.
    """

    def __init__(
        self,
        given: Mapping[str, str | None],
        builtin: Mapping[str, str] | None = None,
        before: Arguments | None = None,
    ) -> None:
        self._given = given
        self._builtin: Mapping[str, str] = builtin or (before._builtin if before else {})
        self._outer = before._declared if before else {}
        self._declared: dict[str, str | None] = {}

    def declare(self, name: str, default: str | None) -> None:
        """An ARG instruction."""
        self._declared[name] = default

    @property
    def declared(self) -> frozenset[str]:
        """The names that ARG has named here."""
        return frozenset(self._declared)

    def values(self) -> dict[str, str]:
        """All that have a value, by name."""
        found: dict[str, str] = {}
        for name in (*self._declared, *sorted(PREDEFINED)):
            value = self._value(name)
            if value is not None:
                found[name] = value
        return found

    def for_from(self) -> dict[str, str]:
        """What a FROM line may use, of arguments declared before the first."""
        return {**self._builtin, **self.values()}

    def shown(self, environment: Mapping[str, str]) -> list[str]:
        """Those a command can see, as the history has them: without undeclared proxies, sorted."""
        return sorted(
            f"{name}={value}"
            for name, value in self.values().items()
            if name not in environment and (name in self._declared or name not in PREDEFINED)
        )

    def _value(self, name: str) -> str | None:
        given = self._given.get(name)
        if given is not None:
            return given
        default = self._declared.get(name)
        if default is not None:
            return default
        if name not in self._declared:
            return None
        outer = self._outer.get(name)
        return outer if outer is not None else self._builtin.get(name)


def unused(given: Mapping[str, str | None], declared: frozenset[str]) -> list[str]:
    """The names that the user gave and the file does not know."""
    return sorted(name for name in given if name not in declared and name not in PREDEFINED)
