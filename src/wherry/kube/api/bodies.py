"""Request bodies: JSON and YAML texts to plain values, with the faults a strict client asks about.

orjson reads what is right and fast; when a text is wrong, it is looked at again to say so in the
words of Go's decoder, which clients know. A key that stands twice is no fault of JSON, but nearly
always one of its author: it is told of, and the caller decides by ``fieldValidation``.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

import orjson

from wherry.kube.api.errors import StatusError, bad_request
from wherry.kube.api.scalars import word_for

_SHOWN = 30
"""How much of a body an error repeats, in bytes."""

MOST_LEVELS = 300
"""How deep a body may nest. No kind comes near it; what walks objects may so use recursion."""


def unrecognized(
    kind: str, value: Any = None, why: str = "", body: bytes | None = None
) -> StatusError:
    """400: the body is no object with a kind. ``why`` defaults to what ``value`` is instead."""
    if not why:
        why = (
            "couldn't get version/kind; json parse error: json: cannot unmarshal "
            f"{word_for(value)} "
            'into Go value of type struct { APIVersion string "json:\\"apiVersion,omitempty\\""; '
            'Kind string "json:\\"kind,omitempty\\"" }'
        )
    shown = _summary(orjson.dumps(value) if body is None else body)
    return bad_request(
        f"the object provided is unrecognized (must be of type {kind}): {why} ({shown})"
    )


def _summary(body: bytes) -> str:
    if not body:
        return "<empty>"
    more = " ..." if len(body) > _SHOWN else ""
    start = body[:_SHOWN]
    return (start.decode(errors="replace") if body[:1] == b"{" else start.hex()) + more


def parse_json(body: bytes, kind: str = "Object") -> tuple[Any, list[str]]:
    """The value of a JSON text, and complaints like ``duplicate field "spec.x"``.

    Raises:
        StatusError: 400, it is no JSON; ``kind`` is what the text should have held.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        from wherry.wire.json_syntax import fault

        why = f"couldn't get version/kind; json parse error: {fault(body) or error}"
        raise unrecognized(kind, why=why, body=body) from error
    if body.count(b"{") + body.count(b"[") > MOST_LEVELS and _is_deep(value):
        raise unrecognized(kind, why="exceeded max depth", body=body)
    return value, [] if _has_all(value, body) else _duplicates(body)


def _has_all(value: Any, body: bytes) -> bool:
    """Whether the value holds every entry of its text, so that no key stood twice.

    Written again it has as many colons then: one a key, and those within strings, which stand
    there as they were as long as none is escaped by its number.
    """
    if b"\\u" not in body:
        with contextlib.suppress(TypeError):  # too deep for orjson to write
            return body.count(b":") == orjson.dumps(value).count(b":")
    try:
        json.loads(body, object_pairs_hook=_unique)
    except _Duplicate:
        return False
    return True


def _is_deep(value: Any) -> bool:
    """Whether the value nests deeper than is taken."""
    level = [value]
    for _ in range(MOST_LEVELS):
        below: list[Any] = []
        for each in level:
            if type(each) is dict:
                below += [v for v in each.values() if type(v) is dict or type(v) is list]
            elif type(each) is list:
                below += [v for v in each if type(v) is dict or type(v) is list]
        if not below:
            return False
        level = below
    return True


class _Duplicate(Exception):
    pass


class _Pairs(list[tuple[str, Any]]):
    """An object as its keys and values in order, twice where they stand twice."""


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) > 1 and len({key for key, _ in pairs}) != len(pairs):
        raise _Duplicate


def _duplicates(body: bytes) -> list[str]:
    complaints: dict[str, None] = {}

    def look(value: Any, path: str) -> None:
        if isinstance(value, _Pairs):
            seen = set()
            for key, each in value:
                below = f"{path}.{key}" if path else key
                if key in seen:
                    complaints[f'duplicate field "{below}"'] = None
                seen.add(key)
                look(each, below)
        elif isinstance(value, list):
            for i, each in enumerate(value):
                look(each, f"{path}[{i}]")

    look(json.loads(body, object_pairs_hook=_Pairs), "")
    return list(complaints)


def parse_yaml(body: bytes, kind: str = "Object") -> tuple[Any, list[str]]:
    """The value of the first document of a YAML text, and complaints about keys set twice.

    Raises:
        StatusError: 400, it is no YAML, or its aliases expand beyond reason.
    """
    from wherry.kube.api.yaml_values import YAMLFault, load

    try:
        return load(body, MOST_LEVELS)
    except YAMLFault as error:
        why = f"error converting YAML to JSON: {error}"
        raise unrecognized(kind, why=why, body=body) from error
