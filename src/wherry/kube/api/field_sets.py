"""Sets of fields in the form managedFields has them (FieldsV1), and their algebra.

A set is a tree of dicts. A key names one step down: ``f:name`` a field, ``k:{…}`` the item of a
list with these keys, ``v:…`` an item of a set with this value, ``i:3`` a position. What hangs below
a key says whether the field itself is in the set: ``{}`` or a ``"."`` among its keys says yes,
anything else that only something below it is. The tree is the JSON that clients see, so nothing is
converted. Trees are shared: every function makes new ones and changes none.

Upstream: sigs.k8s.io/structured-merge-diff, fieldpath.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

Fields = dict[str, Any]
"""A set of fields; the empty dict at the root is the empty set."""

SELF = "."


def is_member(node: Fields) -> bool:
    """Whether the field that ``node`` hangs below is itself in the set."""
    return not node or SELF in node


def join(member: bool, children: Fields) -> Fields | None:
    """A node from its two parts; None where nothing is in it."""
    if not children:
        return {} if member else None
    return {SELF: {}, **children} if member else children


def union(a: Fields, b: Fields) -> Fields:
    """What is in either, its keys in order."""
    if not b:
        return a
    if not a:
        return b
    return _union_children(a, b)


def _union_children(a: Fields, b: Fields) -> Fields:
    out: Fields = {}
    for key in sorted(a.keys() | b.keys()):
        if key == SELF:
            continue
        left, right = a.get(key), b.get(key)
        if left is None or right is None or left == right:
            out[key] = right if left is None else left
        else:
            member = is_member(left) or is_member(right)
            children = _union_children(left, right)
            out[key] = {SELF: {}, **children} if member and children else children
    return out


def difference(a: Fields, b: Fields) -> Fields:
    """What is in ``a`` and not in ``b``. A field goes without what is below it."""
    if not a or not b or a.keys().isdisjoint(b):
        return a
    out: Fields = {}
    for key, node in a.items():
        other = b.get(key)
        if key == SELF:
            continue
        if other is None:
            out[key] = node
            continue
        member = is_member(node) and not is_member(other)
        rest = join(member, difference(_below(node), _below(other)))
        if rest is not None:
            out[key] = rest
    return out


def intersection(a: Fields, b: Fields) -> Fields:
    """What is in both."""
    out: Fields = {}
    for key, node in a.items():
        other = b.get(key)
        if key == SELF or other is None:
            continue
        member = is_member(node) and is_member(other)
        both = join(member, intersection(node, other))
        if both is not None:
            out[key] = both
    return out


def _below(node: Fields) -> Fields:
    """The node's children without the mark for itself."""
    if SELF not in node:
        return node
    return {key: each for key, each in node.items() if key != SELF}


def paths(fields: Fields) -> Iterator[tuple[str, ...]]:
    """Every member's path, as steps, in order."""
    for key, node in fields.items():
        if key == SELF:
            continue
        if is_member(node):
            yield (key,)
        for path in paths(node):
            yield (key, *path)


def path_text(path: tuple[str, ...]) -> str:
    """A path as conflicts show it: ``.spec.containers[name="web"].image``."""
    return "".join(map(_step_text, path))


def _step_text(step: str) -> str:
    kind, rest = step[:2], step[2:]
    if kind == "f:":
        return f".{rest}"
    if kind == "k:":
        keys = orjson.loads(rest)
        inner = ",".join(f"{key}={orjson.dumps(value).decode()}" for key, value in keys.items())
        return f"[{inner}]"
    return f"[={rest}]" if kind == "v:" else f"[{rest}]"


def is_well_formed(fields: Any) -> bool:
    """Whether a value that a client sent is such a tree."""
    if not isinstance(fields, dict):
        return False
    for key, node in fields.items():
        if key == SELF:
            if node != {}:
                return False
            continue
        try:
            match key[:2]:
                case "f:":
                    pass
                case "k:":
                    if not isinstance(orjson.loads(key[2:]), dict):
                        return False
                case "v:":
                    orjson.loads(key[2:])
                case "i:":
                    int(key[2:])
                case _:
                    return False
        except ValueError:
            return False
        if not is_well_formed(node):
            return False
    return True
