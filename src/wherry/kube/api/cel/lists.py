"""CEL's functions on lists and sets."""

from __future__ import annotations

import itertools

from wherry.kube.api.cel.operators import Function, add, contains
from wherry.kube.api.cel.strings import whole
from wherry.kube.api.cel.values import CELError, Value, compare, no_overload


def items_of(value: Value) -> list[Value]:
    if not isinstance(value, list):
        raise no_overload()
    return value


def is_sorted(value: Value) -> bool:
    items = items_of(value)
    return all(compare(a, b) <= 0 for a, b in itertools.pairwise(items))


def total(value: Value) -> Value:
    items = items_of(value)
    total: Value = 0
    for i, each in enumerate(items):
        total = add(total, each) if i else each
    return total


def extreme(sign: int, word: str) -> Function:
    def pick(*values: Value) -> Value:
        items = items_of(values[0]) if len(values) == 1 and isinstance(values[0], list) else values
        if not items:
            raise CELError(f"{word} called on empty list")
        best = items[0]
        for each in items[1:]:
            if compare(each, best) == sign:
                best = each
        return best

    return pick


def slice_of(value: Value, start: Value, end: Value) -> list[Value]:
    items, low, high = items_of(value), whole(start), whole(end)
    if low < 0 or high < 0:
        raise CELError(f"cannot slice({low}, {high}), negative indexes not supported")
    if low > high:
        raise CELError(
            f"cannot slice({low}, {high}), start index must be less than or equal to end index"
        )
    if high > len(items):
        raise CELError(f"cannot slice({low}, {high}), list is length {len(items)}")
    return items[low:high]


def flatten(value: Value, depth: Value = 1) -> list[Value]:
    out: list[Value] = []
    for each in items_of(value):
        out += (
            (flatten(each, depth - 1) if depth > 1 else each) if isinstance(each, list) else [each]
        )
    return out


def distinct(value: Value) -> list[Value]:
    out: list[Value] = []
    for each in items_of(value):
        if not contains(each, out):
            out.append(each)
    return out


def in_order(value: Value) -> list[Value]:
    from functools import cmp_to_key

    return sorted(items_of(value), key=cmp_to_key(compare))


def reverse(value: Value) -> Value:
    if isinstance(value, str | list):
        return value[::-1]
    raise no_overload()


def contains_all(a: Value, b: Value) -> bool:
    return all(contains(each, items_of(a)) for each in items_of(b))


def intersects(a: Value, b: Value) -> bool:
    return any(contains(each, items_of(a)) for each in items_of(b))
