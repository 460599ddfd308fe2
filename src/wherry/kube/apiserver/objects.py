"""An object as the API server holds it: decoded, encoded, and at a revision.

In the store an object lies without its ``resourceVersion``, which only the commit decides. Because
``kind``, ``apiVersion`` and ``metadata`` are always encoded first, in this order, the version is
put into the encoded form by joining three pieces of bytes: an object is encoded once, when it is
written, and never again for a reader or a watcher.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import orjson

from wherry.kube.api.resources import Resource

Object = dict[str, Any]


def encode(o: Object) -> bytes:
    """The JSON that goes into the store; ``o`` has kind, apiVersion and metadata.name at least."""
    metadata = o["metadata"]
    ordered = {"kind": o["kind"], "apiVersion": o["apiVersion"], "metadata": metadata, **o}
    if "resourceVersion" in metadata:
        ordered["metadata"] = {k: v for k, v in metadata.items() if k != "resourceVersion"}
    return orjson.dumps(ordered)


_METADATA = b'"metadata":{'


def head_length(value: bytes) -> int:
    """How many bytes of an encoded object come before its first metadata. Neither a kind nor a
    version has quotes in it, so the first that looks so is it."""
    return value.index(_METADATA) + len(_METADATA)


def splice(value: bytes, revision: int) -> bytes:
    """``value`` as stored with its resourceVersion put in."""
    head = head_length(value)
    return b'%b"resourceVersion":"%d",%b' % (value[:head], revision, value[head:])


def in_version(value: bytes, resource: Resource) -> bytes:
    """An encoded object with the ``apiVersion`` of ``resource``, whatever it had."""
    head = f'{{"kind":"{resource.kind}","apiVersion":"{resource.api_version}",'.encode()
    if value.startswith(head):
        return value
    return head + value[head_length(value) - len(_METADATA) :]


class _Decoded:
    """Which objects are held decoded as well: those that were last, up to a size.

    Decoded an object takes some six times the memory of its JSON, and reading it takes
    microseconds; so of many objects only those that are in use are worth it. Who has a decoded
    object keeps it, only this reference to it goes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: deque[tuple[Stored, int]] = deque()
        self._size = 0

    def add(self, stored: Stored, size: int) -> None:
        self._held.append((stored, size))
        self._size += size
        while self._size > self._limit:
            oldest, its_size = self._held.popleft()
            oldest.forget_object()
            self._size -= its_size


_DECODED = _Decoded(8 << 20)  # bytes of their JSON


class Stored:
    """An object at a revision. Immutable: what it was made of must not be changed any more.

    Either form may come first; the other is made when somebody asks for it, and then kept, the
    decoded one for some time.
    """

    __slots__ = ("_data", "_object", "key", "revision")

    def __init__(
        self, key: str, revision: int, *, data: bytes | None = None, object: Object | None = None
    ) -> None:
        self.key = key
        self.revision = revision
        self._data = data
        self._object = object
        if data is not None and object is not None:
            _DECODED.add(self, len(data))

    @property
    def data(self) -> bytes:
        """The JSON that clients get."""
        if self._data is None:
            self._data = orjson.dumps(self._object)
        return self._data

    @property
    def object(self) -> Object:
        """The decoded object: shared, read-only."""
        found = self._object
        if found is None:
            data = self.data
            found = self._object = orjson.loads(data)
            _DECODED.add(self, len(data))
        return found

    def forget_object(self) -> None:
        """Keep the encoded form alone."""
        if self._data is not None:
            self._object = None

    def __repr__(self) -> str:
        return f"<{self.key} @{self.revision}>"


def answer(o: Object) -> Stored:
    """An object that lies in no store (a Status, a Scale, the outcome of a dry run)."""
    return Stored("", 0, object=o)
