"""NaCl's secretbox: XSalsa20 and Poly1305, which the cryptography library has only half of.

Salsa20 is done for all blocks of a message at once: word *i* of every block lies in one large
number, 64 bits apart, so that 32-bit sums and rotations of all blocks are a few operations on
large numbers. No secret decides a branch or an address.
https://cr.yp.to/snuffle/xsalsa-20110204.pdf, https://nacl.cr.yp.to/secretbox.html
"""

from __future__ import annotations

import struct

KEY, NONCE, TAG = 32, 24, 16
"""Sizes in bytes."""

_CONSTANT = struct.unpack("<4I", b"expand 32-byte k")
_WORD = 0xFFFFFFFF
# Rows and columns of a double round: which word is changed by the sum of which, rotated by what.
_ROUND = tuple(
    step
    for a, b, c, d in (
        *((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11)),
        *((0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14)),
    )
    for step in ((b, a, d, 7), (c, b, a, 9), (d, c, b, 13), (a, d, c, 18))
)


class Forged(ValueError):
    """The box was not made with this key, or was changed."""


def seal(message: bytes, nonce: bytes, key: bytes) -> bytes:
    """The tag and the encrypted message."""
    authentication, stream = _stream(key, nonce, len(message))
    hidden = _xor(message, stream)
    return _tag(authentication, hidden) + hidden


def open_(box: bytes, nonce: bytes, key: bytes) -> bytes:
    """The message of a box. Raises Forged."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    tag, hidden = box[:TAG], box[TAG:]
    authentication, stream = _stream(key, nonce, len(hidden))
    try:
        Poly1305.verify_tag(authentication, hidden, tag)
    except (InvalidSignature, ValueError):
        raise Forged("the value was not encrypted with this key, or was changed") from None
    return _xor(hidden, stream)


def _tag(key: bytes, data: bytes) -> bytes:
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    return Poly1305.generate_tag(key, data)


def _xor(data: bytes, stream: bytes) -> bytes:
    mixed = int.from_bytes(data, "little") ^ int.from_bytes(stream, "little")
    return mixed.to_bytes(len(data), "little")


def _stream(key: bytes, nonce: bytes, length: int) -> tuple[bytes, bytes]:
    """The key of the authenticator, and so many bytes of the stream behind it."""
    subkey = _hsalsa(key, nonce[:16])
    stream = _salsa(subkey, nonce[16:], length + KEY)
    return stream[:KEY], stream[KEY : KEY + length]


def _state(key: bytes, middle: tuple[int, int, int, int]) -> list[int]:
    k = struct.unpack("<8I", key)
    c = _CONSTANT
    return [c[0], *k[:4], c[1], *middle, c[2], *k[4:], c[3]]


def _rounds(state: list[int], mask: int) -> list[int]:
    words = list(state)
    for _ in range(10):
        for target, one, other, turn in _ROUND:
            total = (words[one] + words[other]) & mask
            words[target] ^= ((total << turn) | (total >> (32 - turn))) & mask
    return words


def _hsalsa(key: bytes, nonce: bytes) -> bytes:
    a, b, c, d = struct.unpack("<4I", nonce)
    words = _rounds(_state(key, (a, b, c, d)), _WORD)
    return struct.pack("<8I", *(words[i] for i in (0, 5, 10, 15, 6, 7, 8, 9)))


def _salsa(key: bytes, nonce: bytes, length: int) -> bytes:
    count = -(-length // 64)
    ones = int.from_bytes(b"\1\0\0\0\0\0\0\0" * count, "little")
    mask = ones * _WORD
    low, high = struct.unpack("<2I", nonce)
    state = [word * ones for word in _state(key, (low, high, 0, 0))]
    state[8] = int.from_bytes(b"".join(i.to_bytes(8, "little") for i in range(count)), "little")
    done = _rounds(state, mask)
    stream = bytearray(64 * count)
    for i, (before, after) in enumerate(zip(state, done, strict=True)):
        lanes = ((before + after) & mask).to_bytes(8 * count, "little")
        for k in range(4):
            stream[4 * i + k :: 64] = lanes[k::8]
    return bytes(stream)
