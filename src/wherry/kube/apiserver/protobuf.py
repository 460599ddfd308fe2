"""Request bodies in Kubernetes' protobuf, turned into the JSON values everything else works on.

kubectl's typed subcommands (``create deployment``, ``run``, ``expose``) send nothing else. Only
reading is needed: they take answers as JSON. A body is the four bytes ``k8s\\0`` and an envelope
(runtime.Unknown) with the kind and the object's own message. Which number is which field is data,
`protobuf_fields.json`, made by ``tools/protobuf_fields.py``.

Upstream: https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding and
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from wherry.kube.api.errors import bad_request
from wherry.kube.api.meta import format_micro_time, format_time
from wherry.wire.protobuf import BYTES, Malformed, fields, read_varint

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"

_MAGIC = b"k8s\x00"
_DEEPEST = 64
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."


def read(body: bytes, schema: str) -> dict[str, Any]:
    """The JSON value of a body that should hold a ``schema`` (a name of the schema data).

    Raises:
        StatusError: 400, it is no such thing.
    """
    try:
        if not body.startswith(_MAGIC):
            raise Malformed("the body does not start with the magic number of the encoding")
        kind = version = ""
        raw = b""
        for number, _, value in fields(body[len(_MAGIC) :]):
            if number == 1:
                for inner, _, text in fields(_bytes(value)):
                    if inner == 1:
                        version = _bytes(text).decode()
                    elif inner == 2:
                        kind = _bytes(text).decode()
            elif number == 2:
                raw = _bytes(value)
        decoded = _message(schema)(raw, 0)
    except (Malformed, UnicodeDecodeError, orjson.JSONDecodeError, OverflowError) as error:
        raise bad_request(f"unable to decode the protobuf body: {error}") from error
    return {"kind": kind, "apiVersion": version, **decoded}


def _bytes(value: Any) -> bytes:
    if type(value) is not bytes:
        raise Malformed("wrong wireType = 0")
    return value


def _int(value: Any, depth: int) -> int:
    if type(value) is not int:
        raise Malformed("wrong wireType = 2")
    return value - (1 << 64) if value >> 63 else value


def _bool(value: Any, depth: int) -> bool:
    return _int(value, depth) != 0


def _float(value: Any, depth: int) -> float:
    data = _bytes(value)
    number: float = struct.unpack("<d" if len(data) == 8 else "<f", data)[0]
    return number


def _string(value: Any, depth: int) -> str:
    return _bytes(value).decode()


def _base64(value: Any, depth: int) -> str:
    return base64.b64encode(_bytes(value)).decode()


def _moment(value: Any) -> datetime | None:
    """A Timestamp; None where it is empty, as the zero time is sent."""
    data = _bytes(value)
    if not data:
        return None
    parts = {number: _int(each, 0) for number, _, each in fields(data)}
    try:
        moment = datetime.fromtimestamp(parts.get(1, 0), UTC)
    except (ValueError, OSError) as error:
        raise Malformed(f"no time: {error}") from error
    return moment.replace(microsecond=parts.get(2, 0) // 1000 % 1_000_000)


def _time(value: Any, depth: int) -> str | None:
    moment = _moment(value)
    return None if moment is None else format_time(moment)


def _micro_time(value: Any, depth: int) -> str | None:
    moment = _moment(value)
    return None if moment is None else format_micro_time(moment)


def _quantity(value: Any, depth: int) -> str:
    return next((_string(each, 0) for number, _, each in fields(_bytes(value)) if number == 1), "0")


def _int_or_string(value: Any, depth: int) -> int | str:
    parts = {number: each for number, _, each in fields(_bytes(value))}
    if parts.get(1, 0) == 0:
        return _int(parts.get(2, 0), 0)
    return _string(parts.get(3, b""), 0)


def _json(value: Any, depth: int) -> Any:
    raw = next((_bytes(each) for number, _, each in fields(_bytes(value)) if number == 1), b"")
    return orjson.loads(raw) if raw else None


Reader = Callable[[Any, int], Any]

_SPECIAL: dict[str, Reader] = {
    "int": _int,
    "bool": _bool,
    "float": _float,
    "string": _string,
    "bytes": _base64,
    _META + "Time": _time,
    _META + "MicroTime": _micro_time,
    _META + "FieldsV1": _json,
    "io.k8s.apimachinery.pkg.runtime.RawExtension": _json,
    "io.k8s.apimachinery.pkg.api.resource.Quantity": _quantity,
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": _int_or_string,
}


class _Field(NamedTuple):
    """``name`` "": the message's fields are the surrounding object's. ``shape``: "" (one), "list"
    or "map". ``optional``: a pointer in Go; a zero that is there was meant."""

    name: str
    shape: str
    optional: bool
    read: Reader


@cache
def _table() -> dict[str, dict[str, list[str]]]:
    table: dict[str, dict[str, list[str]]] = orjson.loads(
        (Path(__file__).parent / "protobuf_fields.json").read_bytes()
    )
    return table


@cache
def _reader(type: str) -> Reader:
    if type in _SPECIAL:
        return _SPECIAL[type]
    if type.startswith("["):  # a named list as a map's value is a message with one field
        item = _reader(type[1:-1])
        return lambda value, depth: [item(each, depth) for _, _, each in fields(_bytes(value))]
    return lambda value, depth: _message(type)(_bytes(value), depth)


@cache
def _message(name: str) -> Callable[[bytes, int], dict[str, Any]]:
    """What reads the message called ``name``; unknown numbers are passed over."""
    known: dict[int, _Field] = {}
    for number, (json_name, type) in _table().get(name, {}).items():
        optional = type.startswith("*")
        shape = {"[": "list", "{": "map"}.get(type[0], "")
        inner = type[1:] if optional else type[1:-1] if shape else type
        known[int(number)] = _Field(json_name, shape, optional, _reader(inner))

    def read(data: bytes, depth: int) -> dict[str, Any]:
        if depth > _DEEPEST:
            raise Malformed("exceeded max depth")
        out: dict[str, Any] = {}
        for number, wire, value in fields(data):
            field = known.get(number)
            if field is None:
                continue
            name, shape, optional, read_value = field
            if shape == "list":
                out.setdefault(name, []).extend(_items(read_value, wire, value, depth + 1))
            elif shape == "map":
                key, held = _entry(read_value, _bytes(value), depth + 1)
                out.setdefault(name, {})[key] = held
            else:
                decoded = read_value(value, depth + 1)
                if not name:
                    out.update(decoded)
                elif decoded is not None and (
                    optional or decoded or isinstance(decoded, dict | list)
                ):
                    out[name] = decoded
        return out

    return read


def _items(read_value: Reader, wire: int, value: Any, depth: int) -> list[Any]:
    """One item of a list, or, packed, several."""
    if wire == BYTES and read_value in (_int, _bool):
        position, numbers = 0, []
        while position < len(value):
            number, position = read_varint(value, position)
            numbers.append(read_value(number, depth))
        return numbers
    return [read_value(value, depth)]


def _entry(read_value: Reader, data: bytes, depth: int) -> tuple[str, Any]:
    """An entry of a map: key and value are fields 1 and 2."""
    parts = {number: each for number, _, each in fields(data)}
    return _string(parts.get(1, b""), depth), read_value(
        parts.get(2, 0 if read_value in (_int, _bool) else b""), depth
    )
