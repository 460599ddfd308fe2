"""The variables of one evaluation, and what it may still do."""

from __future__ import annotations

from collections.abc import Callable

from wherry.kube.api.cel.values import CostExceeded, Value


class Scope:
    """The variables of one evaluation, and what it may still do."""

    __slots__ = ("left", "names")

    def __init__(self, names: dict[str, Value], left: int) -> None:
        self.names = names
        self.left = left

    def take(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise CostExceeded


Run = Callable[[Scope], Value]


def nested(scope: Scope, names: dict[str, Value], budget: Scope) -> Scope:
    return Inner({**scope.names, **names}, budget)


class Inner(Scope):
    """A scope with more names, on the budget of the one around it."""

    __slots__ = ("_outer",)

    def __init__(self, names: dict[str, Value], outer: Scope) -> None:
        self.names = names
        self._outer = outer

    def take(self, steps: int) -> None:
        self._outer.take(steps)
