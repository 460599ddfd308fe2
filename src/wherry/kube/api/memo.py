"""What was found out about JSON values, remembered by how they are encoded.

Controllers make objects in which a part is the same again and again (the spec of a ReplicaSet's
pods); to encode such a part and look it up takes a microsecond, to work it through fifty.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import orjson

T = TypeVar("T")

_LONGEST = 16 * 1024  # bytes of a value that is remembered


class Memo(Generic[T]):
    """Answers by the values they are about, of up to ``limit`` bytes in sum; then it begins anew.

    An answer is shared by all who ask: nobody may change it.
    """

    def __init__(self, limit: int = 1 << 20) -> None:
        self._limit = limit
        self._size = 0
        self._known: dict[tuple[object, bytes], T] = {}

    @staticmethod
    def key(about: object, value: Any) -> tuple[object, bytes] | None:
        """What a value is looked up by, by who asks ``about`` it; None: it is not remembered."""
        try:
            encoded = orjson.dumps(value)
        except TypeError:  # nothing that came as JSON, or too deep
            return None
        return (about, encoded) if len(encoded) <= _LONGEST else None

    def get(self, key: tuple[object, bytes] | None) -> T | None:
        return None if key is None else self._known.get(key)

    def put(self, key: tuple[object, bytes] | None, answer: T) -> T:
        if key is not None:
            self._size += len(key[1])
            if self._size > self._limit:
                self._known.clear()
                self._size = len(key[1])
            self._known[key] = answer
        return answer
