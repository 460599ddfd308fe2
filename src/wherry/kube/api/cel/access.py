"""Reading fields and items of values."""

from __future__ import annotations

from collections.abc import Iterable

from wherry.kube.api.cel.syntax import RESERVED
from wherry.kube.api.cel.values import CELError, Opaque, Optional, Value, key_of, no_overload

_KEYWORDS = (
    *("true", "false", "null", "in"),
    *RESERVED,
)
_ESCAPED = {f"__{word}__": word for word in _KEYWORDS}
_ESCAPES = (
    ("__underscores__", "__"), ("__dot__", "."), ("__dash__", "-"), ("__slash__", "/"),
)  # fmt: skip


def unescape(field: str) -> str:
    """The name of the property that ``field`` is CEL's word for: ``__dash__`` is ``-``."""
    if field in _ESCAPED:
        return _ESCAPED[field]
    for escaped, plain in _ESCAPES:
        field = field.replace(escaped, plain)
    return field


def select_of(operand: Value, field: str, plain: str) -> Value:
    if isinstance(operand, dict):
        try:
            return operand[field]
        except KeyError:
            if plain in operand:
                return operand[plain]
            raise CELError(f"no such key: {plain}") from None
    if isinstance(operand, Opaque):
        read = getattr(operand, f"cel_field_{field}", None)
        if read is not None:
            return read()
    raise no_overload()


def index_of(operand: Value, index: Value) -> Value:
    if isinstance(operand, list):
        if type(index) is float and index.is_integer():
            index = int(index)
        if isinstance(index, bool) or not isinstance(index, int):
            raise no_overload()
        if not 0 <= index < len(operand):
            raise CELError(f"index out of bounds: {index}")
        return operand[index]
    if isinstance(operand, dict):
        try:
            return operand[key_of(index)]
        except KeyError:
            raise CELError(f"no such key: {index}") from None
    raise no_overload()


def opened(operand: Value) -> tuple[bool, Value]:
    """The value in an optional, or the value itself."""
    if isinstance(operand, Optional):
        return operand.held, operand.value
    return True, operand


def items_of(value: Value) -> Iterable[Value]:
    if isinstance(value, list | dict):
        return value  # of a map, its keys
    raise no_overload()


def pairs_of(value: Value) -> Iterable[tuple[Value, Value]]:
    if isinstance(value, list):
        return enumerate(value)
    if isinstance(value, dict):
        return value.items()
    raise no_overload()


def has_field(value: Value, field: str, plain: str) -> bool:
    if isinstance(value, dict):
        return field in value or plain in value
    if isinstance(value, Opaque):
        return hasattr(value, f"cel_field_{field}")
    raise no_overload()
