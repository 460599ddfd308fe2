"""Hashes of pod templates, as they stand in names and labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

# Upstream's safe alphabet: no vowels and no look-alikes, so that no hash spells a word.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def template_hash(template: Mapping[str, Any], collisions: int) -> str:
    """The hash of a template: FNV-1a, 32 bits, of its canonical JSON.

    Equal templates have equal hashes on every machine. The numbers differ from upstream's, which
    hashes Go's own rendering of its structures; nothing may rely on them.
    """
    data = orjson.dumps(template, option=orjson.OPT_SORT_KEYS)
    if collisions:
        data += collisions.to_bytes(8, "little")
    number = 0x811C9DC5
    for byte in data:
        number = (number ^ byte) * 0x01000193 & 0xFFFFFFFF
    return "".join(_ALPHABET[ord(digit) % len(_ALPHABET)] for digit in str(number))
