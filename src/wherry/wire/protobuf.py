"""Protocol Buffers as they are on the wire: numbered fields, without a schema.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Types of fields on the wire; groups, 3 and 4, are none any more."""


class Malformed(ValueError):
    """The bytes are no such message."""


def varint(value: int) -> bytes:
    """A number, not negative, in as few bytes as it takes."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def field(number: int, data: bytes) -> bytes:
    """A field of bytes, text, or another message."""
    return varint(number << 3 | BYTES) + varint(len(data)) + data


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """The number of 64 bits at ``position``, and where it ends.

    Raises:
        Malformed: the bytes end before it does, or it is longer.
    """
    value = shift = 0
    while True:
        if position >= len(data):
            raise Malformed("unexpected EOF")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
        if shift >= 70:
            raise Malformed("integer overflow")


def fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Number, type and value of each field of a message: an int of a VARINT, else bytes.

    Raises:
        Malformed: the bytes are no message.
    """
    position = 0
    while position < len(data):
        tag, position = read_varint(data, position)
        type = tag & 7
        if type == VARINT:
            value, position = read_varint(data, position)
            yield tag >> 3, type, value
            continue
        if type == BYTES:
            length, position = read_varint(data, position)
        elif type in (FIXED64, FIXED32):
            length = 8 if type == FIXED64 else 4
        else:
            raise Malformed(f"illegal wireType {type}")
        if length > len(data) - position:
            raise Malformed("unexpected EOF")
        yield tag >> 3, type, data[position : position + length]
        position += length
