"""Operators as closures: those that do not always look at all their operands, and the others."""

from __future__ import annotations

from collections.abc import Callable

from wherry.kube.api.cel import operators
from wherry.kube.api.cel.scope import Run, Scope
from wherry.kube.api.cel.values import CELError, CostExceeded, Value, equal, no_overload


def _and(left: Run, right: Run) -> Run:
    return _logic(left, right, decisive=False)


def _or(left: Run, right: Run) -> Run:
    return _logic(left, right, decisive=True)


def _logic(left: Run, right: Run, *, decisive: bool) -> Run:
    """``&&`` and ``||``: the decisive value wins on either side, even over an error."""

    def run(scope: Scope) -> Value:
        try:
            value = left(scope)
            if value is decisive:
                return decisive
            if type(value) is not bool:
                raise no_overload()
        except CostExceeded:
            raise
        except CELError:
            if _decides(right, scope, decisive):
                return decisive
            raise
        value = right(scope)
        if type(value) is not bool:
            raise no_overload()
        return value

    return run


def _decides(run: Run, scope: Scope, decisive: bool) -> bool:
    try:
        return run(scope) is decisive
    except CostExceeded:
        raise
    except CELError:
        return False


def _condition(condition: Run, yes: Run, no: Run) -> Run:
    def run(scope: Scope) -> Value:
        value = condition(scope)
        if value is True:
            return yes(scope)
        if value is False:
            return no(scope)
        raise no_overload()

    return run


def _equals(left: Run, right: Run) -> Run:
    return lambda scope: equal(left(scope), right(scope))


def _differs(left: Run, right: Run) -> Run:
    return lambda scope: not equal(left(scope), right(scope))


def _binary(function: operators.Function) -> Callable[[Run, Run], Run]:
    return lambda left, right: lambda scope: function(left(scope), right(scope))


def _inside(left: Run, right: Run) -> Run:
    def run(scope: Scope) -> Value:
        value, container = left(scope), right(scope)
        scope.take(len(container) // 10 if isinstance(container, list) else 1)
        return operators.contains(value, container)

    return run


def _unary(function: operators.Function) -> Callable[[Run], Run]:
    return lambda operand: lambda scope: function(operand(scope))


SPECIAL: dict[str, Callable[..., Run]] = {
    "_&&_": _and,
    "_||_": _or,
    "_?_:_": _condition,
    "_==_": _equals,
    "_!=_": _differs,
    "@in": _inside,
    "!_": _unary(operators.negate),
    "-_": _unary(operators.minus),
    **{f"_{sign}_": _binary(each) for sign, each in operators.OPERATORS.items()},
}
