"""The three patches that say what to change: JSON patch, merge patch, strategic merge patch.

Inputs are never changed, and what a patch does not touch may be shared between input and output;
the API server decodes the result anew (``schema.decode(…, patch=…)``) in any case. Server-side
apply, the fourth kind of patch, has its own module, ``apply``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from wherry.kube.api.errors import StatusError, bad_request
from wherry.kube.api.meta import clone
from wherry.kube.api.scalars import word_for
from wherry.kube.api.strategic import strategic_merge_patch

__all__ = [
    "APPLY",
    "JSON_PATCH",
    "MERGE_PATCH",
    "STRATEGIC_MERGE_PATCH",
    "json_patch",
    "merge_patch",
    "strategic_merge_patch",
]

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"

_MOST_OPERATIONS = 10_000
_MOST_COPIED = 3 * 1024 * 1024
"""What all copy operations of one patch may add together, in bytes of JSON."""


def merge_patch(doc: Any, patch: Any) -> Any:
    """``doc`` with a JSON merge patch (RFC 7396) applied: null removes, objects merge, the rest
    replaces.

    Raises:
        StatusError: 400, the patch of an object is no object.
    """
    if not isinstance(patch, dict):
        raise bad_request(
            f"error decoding patch: json: cannot unmarshal {word_for(patch)} into Go value of type "
            "map[string]interface {}"
        )
    return _merged(doc, patch)


def _merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


class _Inapplicable(Exception):
    """An operation does not fit the document. Clients are not told which: neither does upstream."""


def json_patch(doc: Any, operations: Any) -> Any:
    """``doc`` with a JSON patch (RFC 6902) applied.

    Raises:
        StatusError: 400, no list of operations; 413, too many; 422, one does not fit or a test
            failed, and so none is applied.
    """
    if not isinstance(operations, list) or not all(isinstance(o, dict) for o in operations):
        raise _malformed(operations)
    if len(operations) > _MOST_OPERATIONS:
        raise StatusError(
            413,
            "RequestEntityTooLarge",
            "Request entity too large: The allowed maximum operations in a JSON patch is "
            f"{_MOST_OPERATIONS}, got {len(operations)}",
        )
    try:
        return apply_operations(doc, operations)
    except ValueError:
        raise StatusError(
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
            details={},
        ) from None


def apply_operations(doc: Any, operations: list[Any]) -> Any:
    """``doc`` with the operations of a JSON patch applied, all or none.

    Raises:
        ValueError: one does not fit; which, and why, in the words of upstream's library.
    """
    holder = {"": clone(doc)}  # so that the document as a whole can be replaced like any member
    copied = 0
    for operation in operations:
        try:
            copied += _operate(holder, operation)
            if copied > _MOST_COPIED:
                raise _Inapplicable
        except (_Inapplicable, AttributeError):
            raise ValueError(_why(operation)) from None
    return holder[""]


def _why(operation: Any) -> str:
    if not isinstance(operation, dict):
        found = word_for(operation)
        return f"json: cannot unmarshal {found} into Go value of type jsonpatch.Operation"
    op, path = operation.get("op"), operation.get("path")
    match op:
        case "test":
            return f"testing value {path} failed: test failed"
        case "replace":
            return f"replace operation does not apply: doc is missing key: {path}: missing value"
        case "remove" | "add" | "move" | "copy":
            return f'{op} operation does not apply: doc is missing path: "{path}": missing value'
    return f"Unexpected kind: {op}"


def _malformed(operations: Any) -> StatusError:
    if isinstance(operations, list):
        wrong = next(o for o in operations if not isinstance(o, dict))
        found, wanted = word_for(wrong), "jsonpatch.Operation"
    else:
        found, wanted = word_for(operations), "jsonpatch.Patch"
    return bad_request(f"json: cannot unmarshal {found} into Go value of type {wanted}")


def _operate(holder: dict[str, Any], operation: Mapping[str, Any]) -> int:
    """One operation, in place. How many bytes it copied."""
    path = _pointer(operation.get("path"))
    match operation.get("op"):
        case "add":
            _add(holder, path, _value(operation))
        case "remove":
            _remove(holder, path)
        case "replace":
            _get(holder, path)
            parent = _get(holder, path[:-1])
            parent[_index(parent, path[-1])] = _value(operation)
        case "move":
            source = _pointer(operation.get("from"))
            if path[: len(source)] == source and path != source:
                raise _Inapplicable
            value = _get(holder, source)
            if path != source:
                _remove(holder, source)
                _add(holder, path, value)
        case "copy":
            value = _get(holder, _pointer(operation.get("from")))
            _add(holder, path, clone(value))
            return len(orjson.dumps(value))
        case "test":
            _test(holder, path, operation.get("value"))
        case _:
            raise _Inapplicable
    return 0


def _value(operation: Mapping[str, Any]) -> Any:
    """What is to be there: null where nothing is said, as upstream's clients leave out what is
    empty."""
    return clone(operation.get("value"))


def _pointer(text: Any) -> list[str]:
    """A JSON pointer (RFC 6901) as its steps, the first of which is the document itself."""
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise _Inapplicable
    return [step.replace("~1", "/").replace("~0", "~") for step in text.split("/")]


def _get(holder: Any, path: list[str]) -> Any:
    value = holder
    for step in path:
        value = value[_index(value, step)]
    return value


def _index(parent: Any, step: str) -> Any:
    """The key of the member that ``step`` names, which must exist. Negative ones count back."""
    if isinstance(parent, dict) and step in parent:
        return step
    if isinstance(parent, list):
        position = _position(step)
        if -len(parent) <= position < len(parent):
            return position
    raise _Inapplicable


def _position(step: str) -> int:
    digits = step.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or (len(digits) > 1 and digits[0] == "0"):
        raise _Inapplicable
    return int(step[:20])


def _add(holder: dict[str, Any], path: list[str], value: Any) -> None:
    parent = _get(holder, path[:-1]) if len(path) > 1 else holder
    step = path[-1]
    if isinstance(parent, dict):
        parent[step] = value
    elif isinstance(parent, list):
        position = len(parent) if step == "-" else _position(step)
        if position < 0:
            position += len(parent) + 1
        if not 0 <= position <= len(parent):
            raise _Inapplicable
        parent.insert(position, value)
    else:
        raise _Inapplicable


def _remove(holder: dict[str, Any], path: list[str]) -> None:
    if len(path) == 1:
        raise _Inapplicable
    parent = _get(holder, path[:-1])
    del parent[_index(parent, path[-1])]


def _test(holder: dict[str, Any], path: list[str], wanted: Any) -> None:
    try:
        found = _get(holder, path)
    except _Inapplicable:
        if wanted is None and len(path) > 1:
            _get(holder, path[:-1])
            return
        raise
    if not _equal(found, wanted):
        raise _Inapplicable


def _equal(a: Any, b: Any) -> bool:
    """Equality of JSON values, in which true is not 1."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool(a == b)
