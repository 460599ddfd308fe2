"""All that a store holds at one revision, as a file: the same for every store, so that a backup of
one can be restored into another.

    {"format": "wherry-backup", "version": 1, "revision": …, "keys": …, "made": …}\\n
    key length, value length (32 bit), create and mod revision (64 bit, all big endian), key, value
    …
    SHA-256 of everything before

Values are as they lie in the store; where secrets are encrypted at rest, they are so here too.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from wherry.kube.store.types import KeyValue

_FORMAT, _VERSION = "wherry-backup", 1
_RECORD = struct.Struct(">IIQQ")
_DIGEST = 32


class BadBackup(ValueError):
    """It is no backup, not one of ours, or damaged; the text says which."""


@dataclass(frozen=True, slots=True)
class Backup:
    """What the store held at ``revision``; ``made`` is when it was read (RFC 3339)."""

    revision: int
    keys: Sequence[KeyValue]
    made: str


def encode(keys: Sequence[KeyValue], revision: int) -> bytes:
    """The file's content."""
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "revision": revision,
        "keys": len(keys),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    parts = [json.dumps(header).encode() + b"\n"]
    for kv in keys:
        key = kv.key.encode()
        parts += (
            _RECORD.pack(len(key), len(kv.value), kv.create_revision, kv.mod_revision),
            key,
            kv.value,
        )
    content = b"".join(parts)
    return content + hashlib.sha256(content).digest()


def decode(data: bytes) -> Backup:
    """Raises BadBackup."""
    head, newline, _ = data[:4096].partition(b"\n")
    try:
        header = json.loads(head)
        known = bool(newline) and header["format"] == _FORMAT
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise BadBackup("this is no backup of wherry's")
    if header.get("version") != _VERSION:
        raise BadBackup(
            f"the backup is of version {header.get('version')}; version {_VERSION} can be read"
        )
    content = memoryview(data)[:-_DIGEST]
    if hashlib.sha256(content).digest() != data[-_DIGEST:]:
        raise BadBackup("the backup is damaged: its checksum does not fit")
    keys = []
    place = len(head) + 1
    while place < len(content):
        key_length, value_length, created, changed = _RECORD.unpack_from(content, place)
        place += _RECORD.size
        key = bytes(content[place : place + key_length]).decode()
        place += key_length
        keys.append(KeyValue(key, bytes(content[place : place + value_length]), created, changed))
        place += value_length
    return Backup(header["revision"], keys, header["made"])
