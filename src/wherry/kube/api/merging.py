"""Comparing, merging and pruning objects field by field, by the shapes of ``merge_types``.

Results share with their inputs what is alike; nothing is changed in place.
Upstream: sigs.k8s.io/structured-merge-diff, typed.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import Any, Final

from wherry.kube.api.field_sets import SELF, Fields, is_member, join, path_text
from wherry.kube.api.merge_types import LEAF, KeyedList, Leaf, Map, MergeType, Set, Struct

_FIELDS = (Struct, Map)
_ITEMS = (KeyedList, Set)

ABSENT: Final = object()
"""No value at all, which null is not."""


def field_set(value: Any, shape: MergeType) -> Fields:
    """The fields that ``value`` sets: its leaves, and the items of its lists."""
    if isinstance(shape, Leaf):
        return {}
    out: Fields = {}
    if isinstance(shape, _FIELDS):
        if isinstance(value, dict):
            for key in sorted(value):
                out[f"f:{key}"] = field_set(value[key], shape.field(key))
    elif isinstance(value, list):
        for item in value:
            below = field_set(item, shape.item)
            out[shape.step(item)] = {SELF: {}, **below} if below else {}
    return out


def compare(old: Any, new: Any, shape: MergeType) -> tuple[Fields, Fields]:
    """What differs: the fields that are new or changed, and those that are gone."""
    if not old and isinstance(new, dict):  # a create: all of it is new
        whole = _whole(new, shape)
        return {step: below for step, below in whole.items() if step != SELF}, {}
    changed, removed = _compare(old, new, shape)
    return changed or {}, removed or {}


_Difference = tuple[Fields | None, Fields | None]
"""What changed and what is gone below a step; None where nothing."""


def _compare(old: Any, new: Any, shape: MergeType) -> _Difference:
    if old is ABSENT:
        return _whole(new, shape), None
    if new is ABSENT:
        return None, _whole(old, shape)
    if old == new:
        return None, None
    if isinstance(shape, Leaf):
        return {}, None
    form = dict if isinstance(shape, _FIELDS) else list
    if not isinstance(old, form) or not isinstance(new, form):  # where no schema says what it is
        return _whole(new, shape), None
    changed: Fields = {}
    removed: Fields = {}
    for step, before, after, inner in _pairs(old, new, shape):
        if before is after:
            continue
        came, went = _compare(before, after, inner)
        if came is not None:
            changed[step] = came
        if went is not None:
            removed[step] = went
    return _sorted(changed) or None, _sorted(removed) or None


def _whole(value: Any, shape: MergeType) -> Fields:
    """Every field of a value that is new or gone, and the value itself. Each create walks its
    whole object here, so a step is only taken where something may be below it."""
    if shape is LEAF or not value:
        return {}
    kind = type(value)
    below: Fields = {SELF: {}}
    if kind is dict and isinstance(shape, Map):
        inner = shape.item
        for key in sorted(value):
            below["f:" + key] = {} if inner is LEAF else _whole(value[key], inner)
    elif kind is dict and isinstance(shape, Struct):
        known, inner_of = shape.fields, shape.field
        for key in sorted(value):
            inner = known.get(key) or inner_of(key)
            below["f:" + key] = {} if inner is LEAF else _whole(value[key], inner)
    elif kind is list and isinstance(shape, _ITEMS):
        inner, step_of = shape.item, shape.step
        if len(value) == 1:
            below[step_of(value[0])] = _whole(value[0], inner)
        else:
            for step, item in sorted([(step_of(item), item) for item in value], key=_first):
                below[step] = _whole(item, inner)
    else:
        return {}
    return below


_first = itemgetter(0)


def _sorted(fields: Fields) -> Fields:
    return dict(sorted(fields.items())) if len(fields) > 1 else fields


def _pairs(old: Any, new: Any, shape: MergeType) -> Iterator[tuple[str, Any, Any, MergeType]]:
    """Step by step what stands there before and after, and its shape."""
    if isinstance(shape, _FIELDS):
        for key in old.keys() | new.keys():
            yield f"f:{key}", old.get(key, ABSENT), new.get(key, ABSENT), shape.field(key)
    elif isinstance(shape, _ITEMS):
        before, after = _by_step(old, shape), _by_step(new, shape)
        for step in before.keys() | after.keys():
            left, right = before.get(step, []), after.get(step, [])
            if len(left) > 1 or len(right) > 1:  # what stands twice is compared as a whole
                yield step, left or ABSENT, right or ABSENT, LEAF
            else:
                first, second = (items[0] if items else ABSENT for items in (left, right))
                yield step, first, second, shape.item


def _by_step(items: list[Any], shape: KeyedList | Set) -> dict[str, list[Any]]:
    out: dict[str, list[Any]] = {}
    for item in items:
        out.setdefault(shape.step(item), []).append(item)
    return out


def merge(live: Any, config: Any, shape: MergeType) -> Any:
    """``live`` with everything that ``config`` sets set so."""
    if isinstance(shape, _FIELDS) and isinstance(live, dict) and isinstance(config, dict):
        out = dict(live)
        for key, value in config.items():
            out[key] = merge(live[key], value, shape.field(key)) if key in live else value
        return out
    if isinstance(shape, _ITEMS) and isinstance(live, list) and isinstance(config, list):
        return _merge_lists(live, config, shape)
    return config


def _merge_lists(live: list[Any], config: list[Any], shape: KeyedList | Set) -> list[Any]:
    """The items of both, in the order of ``config``; items that only ``live`` has stay where they
    are between those that both have, as far as the orders agree."""
    left = [shape.step(item) for item in live]
    right = [shape.step(item) for item in config]
    in_live = dict(zip(reversed(left), reversed(live), strict=True))
    in_config = set(right)
    shared = [step for step in right if step in in_live]
    out: list[Any] = []
    done: set[str] = set()
    i = j = 0
    while i < len(left) or j < len(right):
        if i < len(left):
            ours = left[i]
            if ours not in in_config:
                out.append(live[i])
                i += 1
                continue
            # An item of both is taken when its turn comes in config's order.
            if ours in done or (j < len(right) and shared and ours != shared[0]):
                i += 1
                continue
        if j < len(right):
            step = right[j]
            item = config[j]
            out.append(merge(in_live[step], item, shape.item) if step in in_live else item)
            done.add(step)
            j += 1
            if shared and step == shared[0]:
                shared.pop(0)
    return out


def named_as_members(fields: Fields, shape: MergeType) -> Fields:
    """The set with every declared field on the way to a member in it, too.

    A manager that set something in a struct has a say in whether the struct is there.
    """
    out: Fields = {}
    for key, node in fields.items():
        if key == SELF:
            continue
        inner = _step_shape(key, shape)
        below = named_as_members(node, inner)
        declared = isinstance(shape, Struct) and key[2:] in shape.fields
        kept = join(is_member(node) or declared, below)
        if kept is not None:
            out[key] = kept
    return out


def _step_shape(step: str, shape: MergeType) -> MergeType:
    if isinstance(shape, _FIELDS):
        return shape.field(step[2:])
    return shape if isinstance(shape, Leaf) else shape.item


def without(value: Any, fields: Fields, shape: MergeType) -> Any:
    """``value`` without the members of ``fields``; ABSENT where a list or map was emptied by it."""
    if not fields or isinstance(shape, Leaf):
        return value
    if isinstance(shape, _FIELDS) and isinstance(value, dict):
        out: dict[str, Any] = {}
        for key, each in value.items():
            kept = _kept(each, fields.get(f"f:{key}"), shape.field(key))
            if kept is not ABSENT:
                out[key] = kept
        return out if out or not value else ABSENT
    if isinstance(shape, _ITEMS) and isinstance(value, list):
        items = [_kept(each, fields.get(shape.step(each)), shape.item) for each in value]
        items = [each for each in items if each is not ABSENT]
        return items if items or not value else ABSENT
    return value


def _kept(value: Any, node: Fields | None, shape: MergeType) -> Any:
    if node is None:
        return value
    return ABSENT if is_member(node) else without(value, node, shape)


def duplicates(value: Any, shape: MergeType, path: str = "") -> list[str]:
    """Complaints about items that stand twice in a list where that means nothing."""
    out: list[str] = []
    if isinstance(shape, _FIELDS) and isinstance(value, dict):
        for key, each in value.items():
            out += duplicates(each, shape.field(key), f"{path}.{key}")
    elif isinstance(shape, _ITEMS) and isinstance(value, list):
        for step, items in _by_step(value, shape).items():
            if len(items) > 1:
                out.append(f"{path}: duplicate entries for key {path_text((step,))}")
            for item in items:
                out += duplicates(item, shape.item, path + path_text((step,)))
    return out
