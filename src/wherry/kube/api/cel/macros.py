"""Macros: loops over lists and maps, and what looks into optionals."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol

from wherry.kube.api.cel.access import items_of, pairs_of
from wherry.kube.api.cel.scope import Run, Scope, nested
from wherry.kube.api.cel.syntax import Node
from wherry.kube.api.cel.values import (
    NONE,
    CELError,
    CostExceeded,
    Optional,
    Value,
    no_overload,
)


class Compiler(Protocol):
    """What makes closures of the parts of a tree."""

    def compile(self, node: Node, known: Collection[str]) -> Run: ...

    def variable(self, node: Node) -> str: ...


def cost_of(node: Any) -> int:
    """How many parts a tree has: what one run of it costs."""
    if isinstance(node, Node):
        return 1 + cost_of(node.parts)
    if isinstance(node, list | tuple):
        return sum(map(cost_of, node))
    return 0


Macro = Callable[[Compiler, Node, list[Node], Collection[str]], Run]


def _loop(
    compiler: Compiler,
    receiver: Node,
    names: list[Node],
    bodies: list[Node],
    known: Collection[str],
) -> tuple[Callable[[Scope], Iterable[Scope]], list[Run]]:
    """What yields a scope for each item, and the bodies to run in it."""
    of = compiler.compile(receiver, known)
    variables = [compiler.variable(name) for name in names]
    inner = {*known, *variables}
    runs = [compiler.compile(body, inner) for body in bodies]
    cost = 1 + sum(map(cost_of, bodies))

    def scopes(scope: Scope) -> Iterable[Scope]:
        value = of(scope)
        within = nested(scope, {}, scope)
        take = scope.take
        if len(variables) == 1:
            (name,) = variables
            for item in items_of(value):
                take(cost)
                within.names[name] = item
                yield within
        else:
            first, second = variables
            for key, item in pairs_of(value):
                take(cost)
                within.names[first] = key
                within.names[second] = item
                yield within

    return scopes, runs


def _quantifier(decisive: bool) -> Macro:
    """``all`` and ``exists``: the decisive value wins over errors of other items."""

    def macro(c: Compiler, receiver: Node, args: list[Node], known: Collection[str]) -> Run:
        scopes, (body,) = _loop(c, receiver, args[:-1], args[-1:], known)

        def run(scope: Scope) -> Value:
            failure: CELError | None = None
            for within in scopes(scope):
                try:
                    value = body(within)
                    if type(value) is not bool:
                        raise no_overload()
                except CostExceeded:
                    raise
                except CELError as error:
                    failure = failure or error
                    continue
                if value is decisive:
                    return decisive
            if failure is not None:
                raise failure
            return not decisive

        return run

    return macro


def _truth(value: Value) -> bool:
    if type(value) is not bool:
        raise no_overload()
    return value


def _exists_one(c: Compiler, receiver: Node, args: list[Node], known: Collection[str]) -> Run:
    scopes, (body,) = _loop(c, receiver, args[:-1], args[-1:], known)
    return lambda scope: sum(_truth(body(within)) for within in scopes(scope)) == 1


def _filter(c: Compiler, receiver: Node, args: list[Node], known: Collection[str]) -> Run:
    scopes, (body,) = _loop(c, receiver, args[:-1], args[-1:], known)
    name = c.variable(args[0])
    return lambda scope: [within.names[name] for within in scopes(scope) if _truth(body(within))]


def _mapping(names: int) -> Macro:
    """``map`` and ``transformList``: with a condition, or without."""

    def macro(c: Compiler, receiver: Node, args: list[Node], known: Collection[str]) -> Run:
        scopes, bodies = _loop(c, receiver, args[:names], args[names:], known)
        body = bodies[-1]
        if len(bodies) == 1:
            return lambda scope: [body(within) for within in scopes(scope)]
        test = bodies[0]
        return lambda scope: [body(within) for within in scopes(scope) if _truth(test(within))]

    return macro


def _transform_map(c: Compiler, receiver: Node, args: list[Node], known: Collection[str]) -> Run:
    scopes, bodies = _loop(c, receiver, args[:2], args[2:], known)
    key = c.variable(args[0])
    return lambda scope: {
        within.names[key]: bodies[-1](within)
        for within in scopes(scope)
        if len(bodies) == 1 or _truth(bodies[0](within))
    }


def _opt_map(*, flat: bool) -> Macro:
    def macro(c: Compiler, receiver: Node, args: list[Node], known: Collection[str]) -> Run:
        of, name = c.compile(receiver, known), c.variable(args[0])
        body = c.compile(args[1], {*known, name})

        def run(scope: Scope) -> Value:
            value = of(scope)
            if not isinstance(value, Optional):
                raise no_overload()
            if not value.held:
                return NONE
            made = body(nested(scope, {name: value.value}, scope))
            if not flat:
                return Optional(True, made)
            if not isinstance(made, Optional):
                raise no_overload()
            return made

        return run

    return macro


MACROS: dict[tuple[str, int], Macro] = {
    ("all", 2): _quantifier(False),
    ("all", 3): _quantifier(False),
    ("exists", 2): _quantifier(True),
    ("exists", 3): _quantifier(True),
    ("exists_one", 2): _exists_one,
    ("existsOne", 2): _exists_one,
    ("exists_one", 3): _exists_one,
    ("existsOne", 3): _exists_one,
    ("filter", 2): _filter,
    ("map", 2): _mapping(1),
    ("map", 3): _mapping(1),
    ("transformList", 3): _mapping(2),
    ("transformList", 4): _mapping(2),
    ("transformMap", 3): _transform_map,
    ("transformMap", 4): _transform_map,
    ("optMap", 2): _opt_map(flat=False),
    ("optFlatMap", 2): _opt_map(flat=True),
}
