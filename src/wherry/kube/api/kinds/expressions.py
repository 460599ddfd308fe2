"""Expressions in CEL as fields of objects: what is wrong with their text.

Upstream: pkg/apis/admissionregistration/validation/validation.go (validateMatchConditions,
validateValidation, validateVariable).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import fields
from wherry.kube.api.kinds.checks import Faults

CONDITION_NAMES = frozenset(("object", "oldObject", "request", "authorizer"))
"""What match conditions may use."""
POLICY_NAMES = CONDITION_NAMES | {"params", "namespaceObject", "variables"}
"""What the other expressions of a policy may use."""


def check_expression(
    text: str, path: str, names: frozenset[str], faults: Faults, variables: Collection[str] = ()
) -> None:
    """Faults of an expression that is there; ``variables``: those of the policy that stand before
    it."""
    if not text.strip():
        return  # told of where it is required
    from wherry.kube.api import cel  # not before there is an expression
    from wherry.kube.api.cel.syntax import report

    try:
        program = cel.compile(text, names)
        for at, name in _variables(program.tree):
            if name not in variables:
                raise cel.CompileError(report(text, at, f"undefined field '{name}'"))
    except cel.CompileError as error:
        why = f"Invalid value: {fields.quote(text)}: compilation failed: {error}"
        faults.append(FieldError(path, "FieldValueInvalid", why))


def _variables(node: Any) -> Iterator[tuple[int, str]]:
    """Where the tree reads a field of ``variables``, and which."""
    from wherry.kube.api.cel.syntax import Node

    if isinstance(node, Node):
        if node.kind == "select" and isinstance(node.parts[0], Node):
            operand, field, _ = node.parts
            if operand.kind == "name" and operand.parts == "variables":
                yield node.at, field
        yield from _variables(node.parts)
    elif isinstance(node, list | tuple):
        for each in node:
            yield from _variables(each)
