"""Strategic merge patch: a merge patch that knows which lists are sets and which are maps by key.

The definitions say so (``x-kubernetes-patch-strategy`` and ``-merge-key``), and the patch may carry
directives:

``$patch: replace | delete``
    in a map: put the rest in its place, or empty it; in an item of a list: replace the list by the
    other items, or remove the item with this merge key.
``$retainKeys: [a, b]``
    of the map, keep only these keys (a union: changing its type must drop the old member's fields).
``$deleteFromPrimitiveList/x: [v]``
    remove these values from the list ``x``.
``$setElementOrder/x: […]``
    the order of the list ``x``, values or maps with just the merge key; items only the server has
    keep their place as far as that goes.

Only one key identifies an item, even where server-side apply takes two: ports merge by
``containerPort`` (or ``port``) alone, as upstream's do and as its documents warn.
This follows k8s.io/apimachinery/pkg/util/strategicpatch and its contributors' guide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from wherry.kube.api.definitions import definition
from wherry.kube.api.errors import StatusError, bad_request
from wherry.kube.api.resources import Resource
from wherry.kube.api.scalars import word_for

_PATCH = "$patch"
_RETAIN = "$retainKeys"
_DELETE_PREFIX = "$deleteFromPrimitiveList"
_ORDER_PREFIX = "$setElementOrder"

_BAD_PRIMITIVES = "invalid patch format of primitive list"
_BAD_RETAIN = "invalid patch format of retainKeys"
_BAD_ORDER = "invalid patch format of setElementOrder list"

Schema = dict[str, Any]
Item = Any


def strategic_merge_patch(resource: Resource, doc: dict[str, Any], patch: Any) -> dict[str, Any]:
    """``doc``, an object of ``resource``, with the patch applied; neither input changes.

    Raises:
        StatusError: 400, the patch is no object, or a directive or an item in it makes no sense.
    """
    if not isinstance(patch, dict):
        raise bad_request(
            f"json: cannot unmarshal {word_for(patch)} into Go value of type "
            "map[string]interface {}"
        )
    return _merge_map(doc, patch, definition(resource.schema))


class _Field(NamedTuple):
    """What the definitions say of one field: its schema, how it merges, what identifies items."""

    schema: Schema
    strategy: str
    merge_key: str


def _lookup(schema: Schema, key: str) -> _Field:
    if "properties" in schema:
        part = schema["properties"].get(key)
        if part is None:
            raise bad_request(f'unable to find api field for the json field "{key}"')
    else:  # a map, or a value of no declared shape
        part = schema.get("additionalProperties", {})
    strategies = [
        s for s in part.get("x-kubernetes-patch-strategy", "").split(",") if s != "retainKeys"
    ]
    merge_key = part.get("x-kubernetes-patch-merge-key", "")
    inner = part.get("items", part)
    if "$ref" in inner:
        inner = definition(inner["$ref"].rpartition("/")[2])
    return _Field(inner, strategies[0] if strategies else "", merge_key)


def _merge_map(original: dict[str, Any], patch: dict[str, Any], schema: Schema) -> dict[str, Any]:
    if _PATCH in patch:
        match patch[_PATCH]:
            case "replace":
                rest: dict[str, Any] = _without_directives(patch)
                return rest
            case "delete":
                return {}
        raise bad_request(f"unknown patch type: {go_text(patch[_PATCH])} in map: {go_text(patch)}")
    result = _retained(original, patch)
    ordered = _ordered_lists(result, patch, schema)
    for key, value in patch.items():
        if key in ordered or key == _RETAIN or key.startswith(_ORDER_PREFIX):
            continue
        if key.startswith(_DELETE_PREFIX):
            _delete_values(result, _target_of(key, _BAD_PRIMITIVES), value)
        elif value is None:
            result.pop(key, None)
        elif key not in result or type(result[key]) is not type(value):
            _set_clean(result, key, value)
        elif isinstance(value, dict):
            field = _lookup(schema, key)
            if field.strategy == "replace":
                _set_clean(result, key, value)
            else:
                result[key] = _merge_map(result[key], value, field.schema)
        elif isinstance(value, list):
            field = _lookup(schema, key)
            if field.strategy == "merge":
                result[key] = _merge_list(result[key], value, field)
            else:
                result[key] = value
        else:
            result[key] = value
    return result


def _set_clean(result: dict[str, Any], key: str, value: Any) -> None:
    """Takes a value over as it is but for its directives; ``$patch: delete`` takes nothing."""
    if isinstance(value, dict) and value.get(_PATCH) == "delete":
        result.pop(key, None)
    else:
        result[key] = _without_directives(value)


def _without_directives(value: Any) -> Any:
    """The value without directives and nulls: they mean nothing where nothing was before."""
    if isinstance(value, list):
        return [
            _without_directives(item)
            for item in value
            if not (isinstance(item, dict) and _PATCH in item)
        ]
    if not isinstance(value, dict):
        return value
    return {
        key: _without_directives(each)
        for key, each in value.items()
        if each is not None
        and key not in (_PATCH, _RETAIN)
        and not key.startswith((_DELETE_PREFIX, _ORDER_PREFIX))
        and not (isinstance(each, dict) and each.get(_PATCH) == "delete")
    }


def _target_of(directive: str, fault: str) -> str:
    """``x`` of ``$setElementOrder/x``."""
    _, slash, key = directive.partition("/")
    if not slash or directive.split("/")[0] not in (_DELETE_PREFIX, _ORDER_PREFIX):
        raise bad_request(fault)
    return key


def _retained(original: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """A copy of the original with only the keys that ``$retainKeys`` names, if it stands there."""
    if _RETAIN not in patch:
        return dict(original)
    keep = patch[_RETAIN]
    if not isinstance(keep, list):
        raise bad_request(_BAD_RETAIN)
    for key, value in patch.items():
        if value is not None and not key.startswith("$") and key not in keep:
            raise bad_request(_BAD_RETAIN)
    return {key: value for key, value in original.items() if key in keep}


def _delete_values(result: dict[str, Any], key: str, values: Any) -> None:
    if not isinstance(values, list):
        raise bad_request(_BAD_PRIMITIVES)
    if isinstance(result.get(key), list):
        result[key] = [item for item in result[key] if item not in values]


def _ordered_lists(result: dict[str, Any], patch: dict[str, Any], schema: Schema) -> set[str]:
    """Merges and orders, in ``result``, the lists that have a ``$setElementOrder``; their keys."""
    done = set()
    for directive, order in patch.items():
        if not directive.startswith(_ORDER_PREFIX):
            continue
        if not isinstance(order, list):
            raise bad_request(_BAD_ORDER)
        key = _target_of(directive, _BAD_ORDER)
        field = _lookup(schema, key)
        have, change = result.get(key), patch.get(key)
        for part in (have, change):
            if part is not None and not isinstance(part, list):
                raise bad_request(f"expected a list for {key}, but received {go_text(part)}")
        _check_order(change or [], order, field.merge_key)
        if have is not None and change is not None:
            merged = _merge_list(have, change, field) if field.strategy == "merge" else change
        elif change is not None:
            merged = _without_directives(change)
        elif have is not None:
            merged = have
        else:
            continue
        if merged:
            merged = _in_order(merged, order, have or [], field.merge_key)
        result[key] = merged
        if change is not None:
            done.add(key)
    return done


def _check_order(change: Sequence[Item], order: Sequence[Item], merge_key: str) -> None:
    """The items of the patch must stand in its order list, in the same order."""
    if not change or not order:
        return
    position = 0
    wanted = [item for item in change if not (isinstance(item, dict) and _PATCH in item)]
    for entry in order:
        if position < len(wanted) and _identity(wanted[position], merge_key) == _identity(
            entry, merge_key
        ):
            position += 1
    if position < len(wanted):
        raise bad_request(
            f"The order in patch list:\n{go_text(list(change))}\n doesn't match {_ORDER_PREFIX} "
            f"list:\n{go_text(list(order))}\n"
        )


def _identity(item: Item, merge_key: str) -> Any:
    """What tells an item from the others: the value of its merge key, or itself."""
    identity = item
    if merge_key:
        if not isinstance(item, dict):
            raise bad_request(f"expected a map[string]interface {{}}, but received {go_text(item)}")
        if merge_key not in item:
            raise _no_merge_key(item, merge_key)
        identity = item[merge_key]
    if isinstance(identity, dict | list):
        raise bad_request(f"expected a scalar, but received {go_text(identity)}")
    return identity


def _no_merge_key(item: Item, merge_key: str) -> StatusError:
    return bad_request(f"map: {go_text(item)} does not contain declared merge key: {merge_key}")


def _merge_list(have: list[Item], change: list[Item], field: _Field) -> list[Item]:
    kinds = {type(item) for item in (*have, *change)}
    if list in kinds:
        raise StatusError(
            422, "Invalid", "the server rejected our request due to an error in our request"
        )
    if len(kinds) > 1:
        raise bad_request(
            f"list element types are not identical: [{go_text(have)} {go_text(change)}]"
        )
    if kinds != {dict}:
        merged = list(dict.fromkeys([*have, *change]))
        return _in_order(merged, change, have, "")
    if not field.merge_key:
        raise bad_request("cannot merge lists without merge key for type map")
    server, wanted = _apply_item_directives(have, change, field.merge_key)
    merged = list(server)
    for item in wanted:
        identity = _identity(item, field.merge_key)
        for i, existing in enumerate(merged):
            if existing.get(field.merge_key) == identity:
                merged[i] = _merge_map(existing, item, field.schema)
                break
        else:
            merged.append(_without_directives(item))
    return _in_order(merged, wanted, server, field.merge_key) if merged else merged


def _apply_item_directives(
    have: list[Item], change: list[Item], merge_key: str
) -> tuple[list[Item], list[Item]]:
    """The server's items after deletions, and the items of the patch that are no directives."""
    wanted = [item for item in change if _PATCH not in item]
    replace = False
    for item in change:
        match item.get(_PATCH, wanted):
            case "delete":
                if merge_key not in item:
                    raise _no_merge_key(item, merge_key)
                have = [each for each in have if each.get(merge_key) != item[merge_key]]
            case "replace":
                replace = True
            case "merge":
                raise bad_request("merging lists cannot yet be specified in the patch")
            case other if other is not wanted:
                raise bad_request(f"unknown patch type: {go_text(other)} in map: {go_text(item)}")
    # What replaces is taken as it is, also where keys are there twice (addresses of a Node).
    return (list(map(_without_directives, wanted)), []) if replace else (have, wanted)


def _in_order(
    merged: list[Item], patch_order: Sequence[Item], server_order: Sequence[Item], merge_key: str
) -> list[Item]:
    """The items the patch names in its order, the server's own between them near where they were.

    A server-only item goes before the first following patch item that the server had behind it.
    """
    by_patch = _positions(patch_order, merge_key)
    by_server = _positions(server_order, merge_key)
    mine = sorted(
        (item for item in merged if by_patch(item) is not None), key=lambda i: by_patch(i) or 0
    )
    theirs = sorted(
        (item for item in merged if by_patch(item) is None), key=lambda i: by_server(i) or 0
    )
    out: list[Item] = []
    while mine and theirs:
        left, right = by_server(theirs[0]), by_server(mine[0])
        first = left is not None and right is not None and left < right
        out.append(theirs.pop(0) if first else mine.pop(0))
    return out + mine + theirs


def _positions(order: Sequence[Item], merge_key: str) -> Callable[[Item], int | None]:
    """A function that tells where an item stands in ``order``, None where it does not."""
    places: dict[Any, int] = {}
    for i, entry in enumerate(order):
        places.setdefault(_identity(entry, merge_key), i)
    return lambda item: places.get(_identity(item, merge_key))


def go_text(value: Any) -> str:
    """A JSON value as Go prints it with ``%v``: ``map[a:1 b:[x y]]``."""
    match value:
        case dict():
            inner = " ".join(f"{key}:{go_text(value[key])}" for key in sorted(value))
            return f"map[{inner}]"
        case list():
            return f"[{' '.join(map(go_text, value))}]"
        case bool():
            return "true" if value else "false"
        case None:
            return "<nil>"
    return str(value)
