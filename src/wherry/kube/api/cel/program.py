"""An expression as a function: each part of the tree becomes a closure over the closures below it.

https://github.com/google/cel-spec/blob/master/doc/langdef.md#evaluation. Only loops and the
functions that say so can take long; they draw on a budget, so that an evaluation ends.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache

from wherry.kube.api.cel import functions
from wherry.kube.api.cel.access import has_field, index_of, opened, select_of, unescape
from wherry.kube.api.cel.logic import SPECIAL
from wherry.kube.api.cel.macros import MACROS
from wherry.kube.api.cel.operators import Function
from wherry.kube.api.cel.scope import Run, Scope, nested
from wherry.kube.api.cel.syntax import CompileError, Node, parse, path, report
from wherry.kube.api.cel.values import (
    NONE,
    CELError,
    Opaque,
    Optional,
    Type,
    Value,
    key_of,
    no_overload,
)

BUDGET = 1_000_000
"""Steps an evaluation may take unless told otherwise."""

_TYPE_NAMES = ("bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type")
_TYPES = {
    **{name: Type(name) for name in _TYPE_NAMES},
    "type": Type("type"),
    "optional_type": Type("optional_type"),
}


class Program:
    """A compiled expression; may be shared and run by many."""

    def __init__(self, text: str, tree: Node, run: Run, names: frozenset[str]) -> None:
        self.text = text
        self.tree = tree
        self.names = names
        """The variables it uses."""
        self._run = run

    def evaluate(self, variables: Mapping[str, Value], budget: int = BUDGET) -> Value:
        """The value of the expression.

        A variable whose value is a function is computed by it when first used.

        Raises:
            CELError: it has none; CostExceeded where it took more than ``budget`` steps.
        """
        return self.measured(variables, budget)[0]

    def measured(self, variables: Mapping[str, Value], budget: int) -> tuple[Value, int]:
        """As `evaluate`; also what of the budget is left."""
        scope = Scope(dict(variables), budget - 1)
        try:
            return self._run(scope), scope.left
        except RecursionError:
            raise CELError("expression recursion limit exceeded") from None


@lru_cache(2048)
def compile(text: str, variables: frozenset[str]) -> Program:
    """An expression that may use ``variables``.

    Raises:
        CompileError: it is none, or uses a name that is not known.
    """
    compiler = _Compiler(text)
    try:
        tree = parse(text)
        run = compiler.compile(tree, variables)
    except RecursionError:
        raise CompileError(report("", 0, "expression recursion limit exceeded: 250")) from None
    return Program(text, tree, run, frozenset(compiler.used & variables))


class _Compiler:
    def __init__(self, text: str) -> None:
        self._text = text
        self.used: set[str] = set()

    def fault(self, node: Node, why: str) -> CompileError:
        return CompileError(report(self._text, node.at, why))

    def undeclared(self, node: Node, name: str) -> CompileError:
        return self.fault(node, f"undeclared reference to '{name}' (in container '')")

    def compile(self, node: Node, known: Collection[str]) -> Run:
        run: Run = getattr(self, f"_{node.kind}")(node, known)
        return run

    def _literal(self, node: Node, known: Collection[str]) -> Run:
        value = node.parts
        return lambda scope: value

    def _name(self, node: Node, known: Collection[str]) -> Run:
        name = node.parts
        if name in known:
            self.used.add(name)

            def read(scope: Scope) -> Value:
                value = scope.names[name]
                if callable(value) and not isinstance(value, Opaque):
                    value = scope.names[name] = value()
                return value

            return read
        if name in _TYPES:
            constant = _TYPES[name]
            return lambda scope: constant
        raise self.undeclared(node, name)

    def _select(self, node: Node, known: Collection[str]) -> Run:
        operand, field, optional = node.parts
        whole = path(node)
        if whole in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
            constant = Type(whole)
            return lambda scope: constant
        of, plain = self.compile(operand, known), unescape(field)
        if not optional:

            def select(scope: Scope) -> Value:
                value = of(scope)
                if isinstance(value, Optional):  # a chain from an optional stays one
                    if not value.held or not has_field(value.value, field, plain):
                        return NONE
                    return Optional(True, select_of(value.value, field, plain))
                return select_of(value, field, plain)

            return select

        def maybe(scope: Scope) -> Value:
            held, value = opened(of(scope))
            if not held or not has_field(value, field, plain):
                return NONE
            return Optional(True, select_of(value, field, plain))

        return maybe

    def _index(self, node: Node, known: Collection[str]) -> Run:
        operand, index, optional = node.parts
        of, at = self.compile(operand, known), self.compile(index, known)

        def look(scope: Scope) -> Value:
            value = of(scope)
            if not optional and not isinstance(value, Optional):
                return index_of(value, at(scope))
            held, value = opened(value)
            if not held:
                return NONE
            try:
                return Optional(True, index_of(value, at(scope)))
            except CELError as error:
                if str(error).startswith(("no such key", "index out of bounds")):
                    return NONE
                raise

        return look

    def _list(self, node: Node, known: Collection[str]) -> Run:
        items = [(self.compile(item, known), optional) for item, optional in node.parts]
        if not any(optional for _, optional in items):
            plain = [run for run, _ in items]
            return lambda scope: [run(scope) for run in plain]

        def make(scope: Scope) -> Value:
            out = []
            for run, optional in items:
                value = run(scope)
                if not optional:
                    out.append(value)
                elif not isinstance(value, Optional):
                    raise no_overload()
                elif value.held:
                    out.append(value.value)
            return out

        return make

    def _map(self, node: Node, known: Collection[str]) -> Run:
        entries = [
            (self.compile(key, known), self.compile(value, known), optional)
            for key, value, optional in node.parts
        ]

        def make(scope: Scope) -> Value:
            out: dict[Value, Value] = {}
            for key, run, optional in entries:
                name, value = key_of(key(scope)), run(scope)
                if optional:
                    if not isinstance(value, Optional):
                        raise no_overload()
                    if not value.held:
                        continue
                    value = value.value
                if name in out:
                    raise CELError(f"insert failed: key {name} already exists")
                out[name] = value
            return out

        return make

    def _struct(self, node: Node, known: Collection[str]) -> Run:
        _, fields = node.parts
        return self._map(
            Node(
                "map",
                node.at,
                [
                    (Node("literal", node.at, unescape(name)), value, optional)
                    for name, value, optional in fields
                ],
            ),
            known,
        )

    # --- calls ----------------------------------------------------------------------------------

    def _call(self, node: Node, known: Collection[str]) -> Run:
        receiver, name, arguments = node.parts
        if receiver is None:
            special = SPECIAL.get(name)
            if special is not None:
                return special(*(self.compile(each, known) for each in arguments))
            if name == "has":
                return self._has(node, arguments, known)
            if (name, len(arguments)) not in functions.ARITIES and name not in functions.VARIADIC:
                raise self.undeclared(node, name)
            return self._apply(functions.FUNCTIONS[name], arguments, known)
        if (macro := MACROS.get((name, len(arguments)))) is not None:
            return macro(self, receiver, arguments, known)
        space = path(receiver)
        if space is not None and space.partition(".")[0] not in known:
            if space == "cel" and name == "bind" and len(arguments) == 3:
                return self._bind(arguments, known)
            function = functions.FUNCTIONS.get(f"{space}.{name}")
            if function is not None:
                return self._apply(function, arguments, known)
        if name not in functions.METHODS and name not in Opaque.methods:
            raise self.undeclared(node, name)
        return self._method(receiver, name, arguments, known)

    def _apply(self, function: Function, arguments: list[Node], known: Collection[str]) -> Run:
        runs = [self.compile(each, known) for each in arguments]
        if len(runs) == 1:
            one = runs[0]
            return lambda scope: functions.call(scope.take, function, one(scope))
        if len(runs) == 2:
            first, second = runs
            return lambda scope: functions.call(scope.take, function, first(scope), second(scope))
        return lambda scope: functions.call(scope.take, function, *(run(scope) for run in runs))

    def _method(
        self, receiver: Node, name: str, arguments: list[Node], known: Collection[str]
    ) -> Run:
        of = self.compile(receiver, known)
        runs = [self.compile(each, known) for each in arguments]
        function, attribute = functions.METHODS.get(name), f"cel_{name}"

        def invoke(scope: Scope) -> Value:
            value = of(scope)
            if isinstance(value, Opaque):
                method = getattr(value, attribute, None)
                if method is not None:
                    return functions.call(scope.take, method, *(run(scope) for run in runs))
            if function is None:
                raise no_overload()
            return functions.call(scope.take, function, value, *(run(scope) for run in runs))

        return invoke

    def _has(self, node: Node, arguments: list[Node], known: Collection[str]) -> Run:
        if len(arguments) != 1 or arguments[0].kind != "select":
            raise self.fault(node, "invalid argument to has() macro")
        operand, field, _ = arguments[0].parts
        of, plain = self.compile(operand, known), unescape(field)

        def has(scope: Scope) -> Value:
            held, value = opened(of(scope))
            return held and has_field(value, field, plain)

        return has

    def _bind(self, arguments: list[Node], known: Collection[str]) -> Run:
        name = self.variable(arguments[0])
        value = self.compile(arguments[1], known)
        body = self.compile(arguments[2], {*known, name})
        return lambda scope: body(nested(scope, {name: value(scope)}, scope))

    def variable(self, node: Node) -> str:
        if node.kind != "name":
            raise self.fault(node, "argument must be a simple name")
        return str(node.parts)


__all__ = ["BUDGET", "Program", "compile"]
