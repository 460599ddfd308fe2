"""Questions read, answers written: RFC 1035, RFC 2308 (negative answers), RFC 6891 (EDNS0).

By hand, as a name that nobody asked before must cost microseconds, too: a flood of such names is
the cheapest there is.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

OUR_SIZE = 1232
PLAIN_SIZE = 512
LARGEST = 65535
_LONGEST_NAME = 255

_HEADER = struct.Struct("!HHHHHH")
_FIXED = struct.Struct("!HHIH")
_QUESTION = struct.Struct("!HH")
_OPT = struct.Struct("!BHHIH")
_RESPONSE = 0x8000
_OPCODE = 0x7800
_AUTHORITATIVE = 0x0400
_TRUNCATED = 0x0200
_RECURSION_DESIRED = 0x0100
_RECURSION_AVAILABLE = 0x0080
_CHECKING_DISABLED = 0x0010
_IN, _ANY_CLASS = 1, 255
_POINTER = 0xC000


class Type(IntEnum):
    """The types of records that are more than bytes to us."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    TXT = 16
    AAAA = 28
    SRV = 33
    OPT = 41
    ANY = 255


class Code(IntEnum):
    """How a question fared."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class Malformed(Exception):
    """The message is no question; ``reply`` says so to its sender, where it can be told."""

    def __init__(self, reply: bytes | None) -> None:
        super().__init__()
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Question:
    """A client's question."""

    id: int
    flags: int
    name: str
    """In small letters, without the final dot."""
    type: int
    wire: bytes
    """As it was asked: answers repeat it, letter by letter."""
    size: int
    """The longest answer that the client takes in a datagram, in bytes."""
    extended: bool = False
    """It speaks EDNS0."""


Part = bytes | str
"""Bytes of a record's data, or a name in it that may be compressed."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record; an empty owner is the name that was asked."""

    owner: str
    type: int
    ttl: int
    data: Sequence[Part]


@dataclass(slots=True)
class Reply:
    """An answer before it is bytes."""

    code: int = Code.NOERROR
    authoritative: bool = True
    answers: list[Record] = field(default_factory=list)
    authority: list[Record] = field(default_factory=list)
    additional: list[Record] = field(default_factory=list)


def parse(data: bytes) -> Question:
    """Read a question.

    Raises:
        Malformed: it is none, or not one that we answer.
    """
    if len(data) < _HEADER.size:
        raise Malformed(None)
    id, flags, questions, *counts = _HEADER.unpack_from(data)
    if flags & _RESPONSE:
        raise Malformed(None)
    if flags & _OPCODE:
        raise Malformed(_refusal(id, flags, Code.NOTIMP))
    if questions != 1:
        raise Malformed(_refusal(id, flags, Code.FORMERR))
    try:
        name, end = _read_name(data, _HEADER.size)
        type, klass = _QUESTION.unpack_from(data, end)
        end += _QUESTION.size
        size, version = _options(data, end, counts) if any(counts) else (0, None)
    except (ValueError, IndexError, struct.error):
        raise Malformed(_refusal(id, flags, Code.FORMERR)) from None
    extended = version is not None
    wire = data[_HEADER.size : end]
    question = Question(id, flags, name, type, wire, max(PLAIN_SIZE, size), extended)
    if version:
        raise Malformed(packed(Reply(Code.BADVERS, False), question, datagram=True))
    if klass not in (_IN, _ANY_CLASS):
        raise Malformed(_refusal(id, flags, Code.REFUSED))
    return question


def _read_name(data: bytes, at: int) -> tuple[str, int]:
    """A name that is not compressed, and where it ends.

    Raises:
        ValueError, IndexError: it is none.
    """
    labels = []
    begun = at
    while length := data[at]:
        at += 1
        if length > 63 or at + length >= len(data) or at + length - begun >= _LONGEST_NAME:
            raise ValueError("no name")
        # A dot in a label is no border: nothing of ours has such a name.
        labels.append(data[at : at + length].decode("latin-1").replace(".", "\\"))
        at += length
    return ".".join(labels).lower(), at + 1


def _options(data: bytes, at: int, counts: Sequence[int]) -> tuple[int, int | None]:
    """The size that a client takes, and its version of EDNS; None where it speaks none.

    Raises:
        ValueError, IndexError, struct.error: the message is broken.
    """
    found: tuple[int, int] | None = None
    for section, count in enumerate(counts):
        for _ in range(count):
            begun = at
            at = _skip_name(data, at)
            type, klass, ttl, length = _FIXED.unpack_from(data, at)
            at += _FIXED.size + length
            if type == Type.OPT and section == 2:
                if found is not None or data[begun]:
                    raise ValueError("two sets of options, or one with a name")
                found = klass, ttl >> 16 & 0xFF
    if at > len(data):
        raise ValueError("a record is cut short")
    return found if found is not None else (0, None)


def _refusal(id: int, flags: int, code: int) -> bytes:
    return _HEADER.pack(id, _RESPONSE | flags & (_OPCODE | _RECURSION_DESIRED) | code, 0, 0, 0, 0)


def failure(question: Question, code: int = Code.SERVFAIL) -> bytes:
    """An answer that is none."""
    return packed(Reply(code, authoritative=False), question, datagram=True)


def packed(reply: Reply, question: Question, *, datagram: bool) -> bytes:
    """The message as it is sent, cut short where a datagram cannot take it (and saying so).

    What is merely helpful goes first, and without a word (RFC 2181, section 9).
    """
    limit = min(question.size, OUR_SIZE) if datagram else LARGEST
    limit -= _OPT.size if question.extended else 0
    out = bytearray(_HEADER.size)
    out += question.wire
    names = {question.name: _HEADER.size} if question.name else {}
    counts = [0, 0, 0]
    whole = True
    for section, records in enumerate((reply.answers, reply.authority, reply.additional)):
        for record in records if whole else ():
            before = len(out)
            _write(out, record, question, names)
            if len(out) > limit:
                del out[before:]
                whole = False
                break
            counts[section] += 1
    cut = not whole and (counts[0] < len(reply.answers) or counts[1] < len(reply.authority))
    if question.extended:
        out += _OPT.pack(0, Type.OPT, OUR_SIZE, reply.code >> 4 << 24, 0)
        counts[2] += 1
    flags = _RESPONSE | _RECURSION_AVAILABLE | reply.code & 0xF
    flags |= question.flags & (_RECURSION_DESIRED | _CHECKING_DISABLED)
    flags |= (_AUTHORITATIVE if reply.authoritative else 0) | (_TRUNCATED if cut else 0)
    _HEADER.pack_into(out, 0, question.id, flags, 1, *counts)
    return bytes(out)


def _write(out: bytearray, record: Record, question: Question, names: dict[str, int]) -> None:
    _write_name(out, record.owner or question.name, names)
    at = len(out)
    out += _FIXED.pack(record.type, _IN, record.ttl, 0)
    for part in record.data:
        if isinstance(part, str):
            _write_name(out, part, names)
        else:
            out += part
    struct.pack_into("!H", out, at + 8, len(out) - at - _FIXED.size)


def _write_name(out: bytearray, name: str, names: dict[str, int]) -> None:
    """A name, with a pointer for what of it stands in the message already."""
    rest = name
    while rest:
        known = names.get(rest)
        if known is not None:
            out += (_POINTER | known).to_bytes(2, "big")
            return
        if len(out) < 0x3FFF:
            names[rest] = len(out)
        label, _, rest = rest.partition(".")
        encoded = label.encode("latin-1")
        out.append(len(encoded))
        out += encoded
    out.append(0)


def plain(name: str) -> bytes:
    """A name without pointers, as it must be in some records (RFC 2782)."""
    out = bytearray()
    _write_name(out, name, {})
    return bytes(out)


def asking(name: str, type: int) -> bytes:
    """A question to another server, with no id yet."""
    head = _HEADER.pack(0, _RECURSION_DESIRED, 1, 0, 0, 1)
    options = _OPT.pack(0, Type.OPT, OUR_SIZE, 0, 0)
    return head + plain(name) + _QUESTION.pack(type, _IN) + options


def answered(data: bytes) -> tuple[int, list[Record]]:
    """How another server's answer ended, and the addresses and aliases in it.

    Raises:
        ValueError: the message is broken.
    """
    try:
        _, flags, questions, count, *_ = _HEADER.unpack_from(data)
        at = _HEADER.size
        for _ in range(questions):
            at = _skip_name(data, at) + _QUESTION.size
        found = []
        for _ in range(count):
            owner = _compressed_name(data, at)
            at = _skip_name(data, at)
            type, _, ttl, length = _FIXED.unpack_from(data, at)
            at += _FIXED.size
            if type == Type.CNAME:
                found.append(Record(owner, type, ttl, (_compressed_name(data, at),)))
            elif type in (Type.A, Type.AAAA) and length == (4 if type == Type.A else 16):
                found.append(Record(owner, type, ttl, (data[at : at + length],)))
            at += length
        if at > len(data):
            raise ValueError("a record is cut short")
    except (struct.error, IndexError) as error:
        raise ValueError("a record is cut short") from error
    return flags & 0xF, found


def _compressed_name(data: bytes, at: int) -> str:
    """Raises ValueError, IndexError where it is none."""
    labels = []
    left = _LONGEST_NAME
    end = len(data)
    while length := data[at]:
        if length & 0xC0 == 0xC0:
            at, end = (length & 0x3F) << 8 | data[at + 1], at
            if at >= end:
                raise ValueError("a pointer leads on, not back")
            continue
        left -= length + 1
        if length > 63 or left < 0:
            raise ValueError("no name")
        labels.append(data[at + 1 : at + 1 + length].decode("latin-1").replace(".", "\\"))
        at += length + 1
    return ".".join(labels).lower()


def lifetimes(data: bytes) -> tuple[list[int], int]:
    """Where the TTLs of a message's records stand, and for how many seconds it may be kept.

    That is the shortest of them; without an answer, what the SOA says (RFC 2308); 0 for not at all.

    Raises:
        ValueError: the message is broken.
    """
    try:
        _, flags, questions, *counts = _HEADER.unpack_from(data)
        at = _HEADER.size
        for _ in range(questions):
            at = _skip_name(data, at) + 4
        places: list[int] = []
        shortest: int | None = None
        for section, count in enumerate(counts):
            for _ in range(count):
                at = _skip_name(data, at)
                type, _, ttl, length = _FIXED.unpack_from(data, at)
                if type != Type.OPT:
                    places.append(at + 4)
                    if section == 1 and type == Type.SOA:
                        ttl = min(ttl, struct.unpack_from("!I", data, at + 10 + length - 4)[0])
                    elif section == 1 and not counts[0]:
                        ttl = 0
                    if section < 2:
                        shortest = ttl if shortest is None else min(shortest, ttl)
                at += 10 + length
        if at > len(data):
            raise ValueError("a record is cut short")
    except (struct.error, IndexError) as error:
        raise ValueError("a record is cut short") from error
    keepable = flags & 0xF in (Code.NOERROR, Code.NXDOMAIN) and not flags & _TRUNCATED
    return places, (shortest or 0) if keepable else 0


def _skip_name(data: bytes, at: int) -> int:
    while data[at]:
        if data[at] & 0xC0 == 0xC0:
            return at + 2
        at += data[at] + 1
    return at + 1
