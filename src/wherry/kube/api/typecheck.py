"""Expressions judged by what the objects they see can have: fields that no such object has.

A guess by the declared fields alone, which is what authors get wrong; what cannot be followed
passes. Upstream: k8s.io/apiserver/pkg/admission/plugin/policy/validating/typechecking.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wherry.kube.api import cel
from wherry.kube.api.cel.syntax import Node, report
from wherry.kube.api.merge_types import LEAF, KeyedList, Map, MergeType, Set, Struct

_LOOPS = frozenset(
    ("all", "exists", "exists_one", "existsOne", "filter", "map", "transformList", "transformMap")
)

Shapes = Mapping[str, MergeType]


class _Undefined(Exception):
    def __init__(self, at: int, field: str) -> None:
        super().__init__(field)
        self.at = at
        self.field = field


def undefined_field(text: str, names: frozenset[str], shapes: Shapes) -> str:
    """cel-go's report of the first field that is not there, or ""; ``shapes``: what is known of the
    variables."""
    try:
        tree = cel.compile(text, names).tree
        _shape(tree, shapes)
    except cel.CompileError as error:
        return str(error)
    except _Undefined as wrong:
        return report(text, wrong.at, f"undefined field '{wrong.field}'")
    return ""


def _shape(node: Any, shapes: Shapes) -> MergeType | None:
    """What a part of an expression is, as far as it is known. Raises _Undefined."""
    if isinstance(node, list | tuple) and not isinstance(node, Node):
        for each in node:
            _shape(each, shapes)
        return None
    if not isinstance(node, Node):
        return None
    match node.kind:
        case "name":
            return shapes.get(node.parts)
        case "select":
            operand, field, _ = node.parts
            return _below(_shape(operand, shapes), node.at, cel.unescape(field))
        case "index":
            operand, index, _ = node.parts
            _shape(index, shapes)
            shape = _shape(operand, shapes)
            return shape.item if isinstance(shape, KeyedList | Set | Map) else None
        case "call":
            return _call(node, shapes)
        case "literal":
            return None
    _shape(node.parts, shapes)
    return None


def _below(shape: MergeType | None, at: int, field: str) -> MergeType | None:
    if isinstance(shape, Struct):
        found = shape.field(field)
        if field not in shape.fields and found is LEAF:
            raise _Undefined(at, field)
        return found
    return shape.item if isinstance(shape, Map) else None


def _call(node: Node, shapes: Shapes) -> MergeType | None:
    receiver, name, arguments = node.parts
    shape = _shape(receiver, shapes) if receiver is not None else None
    if name in _LOOPS and receiver is not None and len(arguments) > 1:
        first = arguments[0]
        inner = dict(shapes)
        if first.kind == "name":
            inner.pop(first.parts, None)
            if isinstance(shape, KeyedList) and len(arguments) == 2:
                inner[first.parts] = shape.item
        _shape(arguments[1:], inner)
        return shape if name == "filter" else None
    _shape(arguments, shapes)
    return None
