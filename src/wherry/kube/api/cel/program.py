"""An expression as a function: each part of the tree becomes a closure over the closures below it.

https://github.com/google/cel-spec/blob/master/doc/langdef.md#evaluation. Only loops and the
functions that say so can take long; they draw on a budget, so that an evaluation ends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any

from wherry.kube.api.cel import functions
from wherry.kube.api.cel.syntax import RESERVED, CompileError, Node, parse, path, report
from wherry.kube.api.cel.values import (
    NONE,
    CELError,
    CostExceeded,
    Opaque,
    Optional,
    Type,
    Value,
    equal,
    key_of,
    no_overload,
    type_name,
)

BUDGET = 1_000_000
"""Steps an evaluation may take unless told otherwise."""

_TYPE_NAMES = ("bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type")
_TYPES = {
    **{name: Type(name) for name in _TYPE_NAMES},
    "type": Type("type"),
    "optional_type": Type("optional_type"),
}
_KEYWORDS = (
    *("true", "false", "null", "in"),
    *RESERVED,
)
_ESCAPED = {f"__{word}__": word for word in _KEYWORDS}
_ESCAPES = (
    ("__underscores__", "__"), ("__dot__", "."), ("__dash__", "-"), ("__slash__", "/"),
)  # fmt: skip


class _Scope:
    """The variables of one evaluation, and what it may still do."""

    __slots__ = ("left", "names")

    def __init__(self, names: dict[str, Value], left: int) -> None:
        self.names = names
        self.left = left

    def take(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise CostExceeded


_Run = Callable[[_Scope], Value]


class Program:
    """A compiled expression; may be shared and run by many."""

    def __init__(self, text: str, tree: Node, run: _Run, names: frozenset[str]) -> None:
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
        scope = _Scope(dict(variables), budget - 1)
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


def unescape(field: str) -> str:
    """The name of the property that ``field`` is CEL's word for: ``__dash__`` is ``-``."""
    if field in _ESCAPED:
        return _ESCAPED[field]
    for escaped, plain in _ESCAPES:
        field = field.replace(escaped, plain)
    return field


def _select(operand: Value, field: str, plain: str) -> Value:
    if isinstance(operand, dict):
        try:
            return operand[field]
        except KeyError:
            if plain in operand:
                return operand[plain]
            raise CELError(f"no such key: {plain}") from None
    if isinstance(operand, Opaque):
        read = getattr(operand, f"cel_field_{field}", None)
        if read is not None:
            return read()
    raise no_overload()


def _index(operand: Value, index: Value) -> Value:
    if isinstance(operand, list):
        if type(index) is float and index.is_integer():
            index = int(index)
        if isinstance(index, bool) or not isinstance(index, int):
            raise no_overload()
        if not 0 <= index < len(operand):
            raise CELError(f"index out of bounds: {index}")
        return operand[index]
    if isinstance(operand, dict):
        try:
            return operand[key_of(index)]
        except KeyError:
            raise CELError(f"no such key: {index}") from None
    raise no_overload()


def _opened(operand: Value) -> tuple[bool, Value]:
    """The value in an optional, or the value itself."""
    if isinstance(operand, Optional):
        return operand.held, operand.value
    return True, operand


def _items(value: Value) -> Iterable[Value]:
    if isinstance(value, list | dict):
        return value  # of a map, its keys
    raise no_overload()


def _pairs(value: Value) -> Iterable[tuple[Value, Value]]:
    if isinstance(value, list):
        return enumerate(value)
    if isinstance(value, dict):
        return value.items()
    raise no_overload()


def _size(node: Any) -> int:
    """How many parts a tree has: what one run of it costs."""
    if isinstance(node, Node):
        return 1 + _size(node.parts)
    if isinstance(node, list | tuple):
        return sum(map(_size, node))
    return 0


class _Compiler:
    def __init__(self, text: str) -> None:
        self._text = text
        self.used: set[str] = set()

    def fault(self, node: Node, why: str) -> CompileError:
        return CompileError(report(self._text, node.at, why))

    def undeclared(self, node: Node, name: str) -> CompileError:
        return self.fault(node, f"undeclared reference to '{name}' (in container '')")

    def compile(self, node: Node, known: Collection[str]) -> _Run:
        run: _Run = getattr(self, f"_{node.kind}")(node, known)
        return run

    def _literal(self, node: Node, known: Collection[str]) -> _Run:
        value = node.parts
        return lambda scope: value

    def _name(self, node: Node, known: Collection[str]) -> _Run:
        name = node.parts
        if name in known:
            self.used.add(name)

            def read(scope: _Scope) -> Value:
                value = scope.names[name]
                if callable(value) and not isinstance(value, Opaque):
                    value = scope.names[name] = value()
                return value

            return read
        if name in _TYPES:
            constant = _TYPES[name]
            return lambda scope: constant
        raise self.undeclared(node, name)

    def _select(self, node: Node, known: Collection[str]) -> _Run:
        operand, field, optional = node.parts
        whole = path(node)
        if whole in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
            constant = Type(whole)
            return lambda scope: constant
        of, plain = self.compile(operand, known), unescape(field)
        if not optional:

            def select(scope: _Scope) -> Value:
                value = of(scope)
                if isinstance(value, Optional):  # a chain from an optional stays one
                    if not value.held or not _has(value.value, field, plain):
                        return NONE
                    return Optional(True, _select(value.value, field, plain))
                return _select(value, field, plain)

            return select

        def maybe(scope: _Scope) -> Value:
            held, value = _opened(of(scope))
            if not held or not _has(value, field, plain):
                return NONE
            return Optional(True, _select(value, field, plain))

        return maybe

    def _index(self, node: Node, known: Collection[str]) -> _Run:
        operand, index, optional = node.parts
        of, at = self.compile(operand, known), self.compile(index, known)

        def look(scope: _Scope) -> Value:
            value = of(scope)
            if not optional and not isinstance(value, Optional):
                return _index(value, at(scope))
            held, value = _opened(value)
            if not held:
                return NONE
            try:
                return Optional(True, _index(value, at(scope)))
            except CELError as error:
                if str(error).startswith(("no such key", "index out of bounds")):
                    return NONE
                raise

        return look

    def _list(self, node: Node, known: Collection[str]) -> _Run:
        items = [(self.compile(item, known), optional) for item, optional in node.parts]
        if not any(optional for _, optional in items):
            plain = [run for run, _ in items]
            return lambda scope: [run(scope) for run in plain]

        def make(scope: _Scope) -> Value:
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

    def _map(self, node: Node, known: Collection[str]) -> _Run:
        entries = [
            (self.compile(key, known), self.compile(value, known), optional)
            for key, value, optional in node.parts
        ]

        def make(scope: _Scope) -> Value:
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

    def _struct(self, node: Node, known: Collection[str]) -> _Run:
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

    def _call(self, node: Node, known: Collection[str]) -> _Run:
        receiver, name, arguments = node.parts
        if receiver is None:
            special = _SPECIAL.get(name)
            if special is not None:
                return special(*(self.compile(each, known) for each in arguments))
            if name == "has":
                return self._has(node, arguments, known)
            if (name, len(arguments)) not in functions.ARITIES and name not in functions.VARIADIC:
                raise self.undeclared(node, name)
            return self._apply(functions.FUNCTIONS[name], arguments, known)
        if (macro := _MACROS.get((name, len(arguments)))) is not None:
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

    def _apply(
        self, function: functions.Function, arguments: list[Node], known: Collection[str]
    ) -> _Run:
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
    ) -> _Run:
        of = self.compile(receiver, known)
        runs = [self.compile(each, known) for each in arguments]
        function, attribute = functions.METHODS.get(name), f"cel_{name}"

        def invoke(scope: _Scope) -> Value:
            value = of(scope)
            if isinstance(value, Opaque):
                method = getattr(value, attribute, None)
                if method is not None:
                    return functions.call(scope.take, method, *(run(scope) for run in runs))
            if function is None:
                raise no_overload()
            return functions.call(scope.take, function, value, *(run(scope) for run in runs))

        return invoke

    def _has(self, node: Node, arguments: list[Node], known: Collection[str]) -> _Run:
        if len(arguments) != 1 or arguments[0].kind != "select":
            raise self.fault(node, "invalid argument to has() macro")
        operand, field, _ = arguments[0].parts
        of, plain = self.compile(operand, known), unescape(field)

        def has(scope: _Scope) -> Value:
            held, value = _opened(of(scope))
            return held and _has(value, field, plain)

        return has

    def _bind(self, arguments: list[Node], known: Collection[str]) -> _Run:
        name = self.variable(arguments[0])
        value = self.compile(arguments[1], known)
        body = self.compile(arguments[2], {*known, name})
        return lambda scope: body(_within(scope, {name: value(scope)}, scope))

    def variable(self, node: Node) -> str:
        if node.kind != "name":
            raise self.fault(node, "argument must be a simple name")
        return str(node.parts)


def _has(value: Value, field: str, plain: str) -> bool:
    if isinstance(value, dict):
        return field in value or plain in value
    if isinstance(value, Opaque):
        return hasattr(value, f"cel_field_{field}")
    raise no_overload()


def _within(scope: _Scope, names: dict[str, Value], budget: _Scope) -> _Scope:
    return _Inner({**scope.names, **names}, budget)


class _Inner(_Scope):
    """A scope with more names, on the budget of the one around it."""

    __slots__ = ("_outer",)

    def __init__(self, names: dict[str, Value], outer: _Scope) -> None:
        self.names = names
        self._outer = outer

    def take(self, steps: int) -> None:
        self._outer.take(steps)


# --- operators that do not always look at all their operands -----------------------------------


def _and(left: _Run, right: _Run) -> _Run:
    return _logic(left, right, decisive=False)


def _or(left: _Run, right: _Run) -> _Run:
    return _logic(left, right, decisive=True)


def _logic(left: _Run, right: _Run, *, decisive: bool) -> _Run:
    """``&&`` and ``||``: the decisive value wins on either side, even over an error."""

    def run(scope: _Scope) -> Value:
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


def _decides(run: _Run, scope: _Scope, decisive: bool) -> bool:
    try:
        return run(scope) is decisive
    except CostExceeded:
        raise
    except CELError:
        return False


def _condition(condition: _Run, yes: _Run, no: _Run) -> _Run:
    def run(scope: _Scope) -> Value:
        value = condition(scope)
        if value is True:
            return yes(scope)
        if value is False:
            return no(scope)
        raise no_overload()

    return run


def _equals(left: _Run, right: _Run) -> _Run:
    return lambda scope: equal(left(scope), right(scope))


def _differs(left: _Run, right: _Run) -> _Run:
    return lambda scope: not equal(left(scope), right(scope))


def _binary(function: functions.Function) -> Callable[[_Run, _Run], _Run]:
    return lambda left, right: lambda scope: function(left(scope), right(scope))


def _inside(left: _Run, right: _Run) -> _Run:
    def run(scope: _Scope) -> Value:
        value, container = left(scope), right(scope)
        scope.take(len(container) // 10 if isinstance(container, list) else 1)
        return functions.contains(value, container)

    return run


def _unary(function: functions.Function) -> Callable[[_Run], _Run]:
    return lambda operand: lambda scope: function(operand(scope))


_SPECIAL: dict[str, Callable[..., _Run]] = {
    "_&&_": _and,
    "_||_": _or,
    "_?_:_": _condition,
    "_==_": _equals,
    "_!=_": _differs,
    "@in": _inside,
    "!_": _unary(functions.negate),
    "-_": _unary(functions.minus),
    **{f"_{sign}_": _binary(each) for sign, each in functions.OPERATORS.items()},
}


# --- macros ------------------------------------------------------------------------------------

_Macro = Callable[[_Compiler, Node, list[Node], Collection[str]], _Run]


class _Stop(Exception):
    pass


def _loop(
    compiler: _Compiler,
    receiver: Node,
    names: list[Node],
    bodies: list[Node],
    known: Collection[str],
) -> tuple[Callable[[_Scope], Iterable[_Scope]], list[_Run]]:
    """What yields a scope for each item, and the bodies to run in it."""
    of = compiler.compile(receiver, known)
    variables = [compiler.variable(name) for name in names]
    inner = {*known, *variables}
    runs = [compiler.compile(body, inner) for body in bodies]
    cost = 1 + sum(map(_size, bodies))

    def scopes(scope: _Scope) -> Iterable[_Scope]:
        value = of(scope)
        within = _within(scope, {}, scope)
        take = scope.take
        if len(variables) == 1:
            (name,) = variables
            for item in _items(value):
                take(cost)
                within.names[name] = item
                yield within
        else:
            first, second = variables
            for key, item in _pairs(value):
                take(cost)
                within.names[first] = key
                within.names[second] = item
                yield within

    return scopes, runs


def _quantifier(decisive: bool) -> _Macro:
    """``all`` and ``exists``: the decisive value wins over errors of other items."""

    def macro(c: _Compiler, receiver: Node, args: list[Node], known: Collection[str]) -> _Run:
        scopes, (body,) = _loop(c, receiver, args[:-1], args[-1:], known)

        def run(scope: _Scope) -> Value:
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


def _exists_one(c: _Compiler, receiver: Node, args: list[Node], known: Collection[str]) -> _Run:
    scopes, (body,) = _loop(c, receiver, args[:-1], args[-1:], known)
    return lambda scope: sum(_truth(body(within)) for within in scopes(scope)) == 1


def _filter(c: _Compiler, receiver: Node, args: list[Node], known: Collection[str]) -> _Run:
    scopes, (body,) = _loop(c, receiver, args[:-1], args[-1:], known)
    name = c.variable(args[0])
    return lambda scope: [within.names[name] for within in scopes(scope) if _truth(body(within))]


def _mapping(names: int) -> _Macro:
    """``map`` and ``transformList``: with a condition, or without."""

    def macro(c: _Compiler, receiver: Node, args: list[Node], known: Collection[str]) -> _Run:
        scopes, bodies = _loop(c, receiver, args[:names], args[names:], known)
        body = bodies[-1]
        if len(bodies) == 1:
            return lambda scope: [body(within) for within in scopes(scope)]
        test = bodies[0]
        return lambda scope: [body(within) for within in scopes(scope) if _truth(test(within))]

    return macro


def _transform_map(c: _Compiler, receiver: Node, args: list[Node], known: Collection[str]) -> _Run:
    scopes, bodies = _loop(c, receiver, args[:2], args[2:], known)
    key = c.variable(args[0])
    return lambda scope: {
        within.names[key]: bodies[-1](within)
        for within in scopes(scope)
        if len(bodies) == 1 or _truth(bodies[0](within))
    }


def _opt_map(*, flat: bool) -> _Macro:
    def macro(c: _Compiler, receiver: Node, args: list[Node], known: Collection[str]) -> _Run:
        of, name = c.compile(receiver, known), c.variable(args[0])
        body = c.compile(args[1], {*known, name})

        def run(scope: _Scope) -> Value:
            value = of(scope)
            if not isinstance(value, Optional):
                raise no_overload()
            if not value.held:
                return NONE
            made = body(_within(scope, {name: value.value}, scope))
            if not flat:
                return Optional(True, made)
            if not isinstance(made, Optional):
                raise no_overload()
            return made

        return run

    return macro


_MACROS: dict[tuple[str, int], _Macro] = {
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

__all__ = ["BUDGET", "Program", "compile", "type_name", "unescape"]
