"""DNS messages: questions read, answers written, and of others' answers what concerns us.

RFC 1035, RFC 2308 (negative answers), RFC 5452 (which answers to believe), RFC 6891 (EDNS0). By
hand, as a name that nobody asked before must cost microseconds, too: a flood of such names is the
cheapest there is.
"""

from __future__ import annotations

import ipaddress
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
_AUTHENTIC_DATA = 0x0020
_CHECKING_DISABLED = 0x0010
_DNSSEC_OK = 0x8000
_IN, _ANY_CLASS = 1, 255
_POINTER = 0xC000
_OTHER_OPERATIONS = frozenset(number << 3 for number in range(1, 16))
"""The third byte of questions that are no queries."""
_HEX = frozenset("0123456789abcdef")


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
    IXFR = 251
    AXFR = 252
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
    klass: int
    wire: bytes
    """As it was asked: answers repeat it, letter by letter."""
    size: int
    """The longest answer that the client takes in a datagram, in bytes."""
    extended: bool = False
    """It speaks EDNS."""
    version: int = 0
    """Of EDNS."""
    signed: bool = False
    """It wants signatures, too (RFC 3225)."""


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
    """Read a question that a name server of its own names answers.

    Raises:
        Malformed: it is none, or asks for more: transfers, other classes, later versions of EDNS.
    """
    if len(data) >= _HEADER.size and data[2] & 0xF8 in _OTHER_OPERATIONS:
        id, flags, *_ = _HEADER.unpack_from(data)
        raise Malformed(_refusal(id, flags, Code.NOTIMP))
    question = read(data)
    if question.version:
        raise Malformed(failure(question, Code.BADVERS))
    if question.klass not in (_IN, _ANY_CLASS) or question.type in (Type.AXFR, Type.IXFR):
        raise Malformed(failure(question, Code.REFUSED))
    return question


def read(data: bytes) -> Question:
    """Read a question, whatever it asks for.

    Raises:
        Malformed: it is none.
    """
    if len(data) < _HEADER.size:
        raise Malformed(None)
    id, flags, questions, *counts = _HEADER.unpack_from(data)
    if flags & _RESPONSE:
        raise Malformed(None)
    if questions != 1:
        raise Malformed(_refusal(id, flags, Code.FORMERR))
    try:
        name, end = _read_name(data, _HEADER.size)
        type, klass = _QUESTION.unpack_from(data, end)
        end += _QUESTION.size
        options = _options(data, end, counts) if any(counts) else None
    except (ValueError, IndexError, struct.error):
        raise Malformed(_refusal(id, flags, Code.FORMERR)) from None
    size, more = options or (PLAIN_SIZE, 0)
    return Question(
        id=id,
        flags=flags,
        name=name,
        type=type,
        klass=klass,
        wire=data[_HEADER.size : end],
        size=max(PLAIN_SIZE, size),
        extended=options is not None,
        version=more >> 16 & 0xFF,
        signed=bool(more & _DNSSEC_OK),
    )


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


def _options(data: bytes, at: int, counts: Sequence[int]) -> tuple[int, int] | None:
    """The size that a client takes, and its version of EDNS and flags; None where it speaks none.

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
                found = klass, ttl
    if at > len(data):
        raise ValueError("a record is cut short")
    return found


def _refusal(id: int, flags: int, code: int) -> bytes:
    return _HEADER.pack(id, _RESPONSE | flags & (_OPCODE | _RECURSION_DESIRED) | code, 0, 0, 0, 0)


def failure(question: Question, code: int = Code.SERVFAIL) -> bytes:
    """An answer that is none."""
    return packed(Reply(code, authoritative=False), question, datagram=True)


def packed(reply: Reply, question: Question, *, datagram: bool, most: int = OUR_SIZE) -> bytes:
    """The message as it is sent, cut short where a datagram cannot take it (and saying so).

    What is merely helpful goes first, and without a word (RFC 2181, section 9). No datagram is
    longer than ``most``.
    """
    limit = min(question.size, most) if datagram else LARGEST
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
        more = reply.code >> 4 << 24 | (_DNSSEC_OK if question.signed else 0)
        out += _OPT.pack(0, Type.OPT, OUR_SIZE, more, 0)
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


def asking(name: str, type: int) -> Question:
    """A question of our own."""
    wire = plain(name) + _QUESTION.pack(type, _IN)
    return Question(0, _RECURSION_DESIRED, name, type, _IN, wire, OUR_SIZE, extended=True)


def onward(question: Question) -> bytes:
    """The question as another server is asked it, with no id yet.

    Without the client's options: they are between it and us (RFC 6891, section 6.1.1).
    """
    flags = question.flags & (_RECURSION_DESIRED | _CHECKING_DISABLED | _AUTHENTIC_DATA)
    return _asked(question, flags, min(question.size, OUR_SIZE))


def bare(question: Question) -> bytes:
    """The question as most write it: without options. Its id is 0."""
    return _asked(question, question.flags, question.size)


def _asked(question: Question, flags: int, size: int) -> bytes:
    query = _HEADER.pack(0, flags, 1, 0, 0, int(question.extended)) + question.wire
    if question.extended:
        query += _OPT.pack(0, Type.OPT, size, _DNSSEC_OK if question.signed else 0, 0)
    return query


def alike(question: Question) -> bytes:
    """What questions have in common that one answer of another server does for."""
    query = onward(question)
    end = _HEADER.size + len(question.wire) - _QUESTION.size
    return query[2 : _HEADER.size] + query[_HEADER.size : end].lower() + query[end:]


def returned(reply: bytes, question: Question) -> bytes:
    """Another server's answer to a question like it, as one to ``question``: id and letters."""
    rest = reply[_HEADER.size :]
    if reply[4:6] != b"\0\0":
        rest = question.wire + rest[len(question.wire) :]
    return question.id.to_bytes(2, "big") + reply[2 : _HEADER.size] + rest


def belongs(query: bytes, reply: bytes) -> bool:
    """Whether ``reply`` answers ``query``: the same id, and the same question where it has one."""
    if len(reply) < _HEADER.size or reply[:2] != query[:2] or not reply[2] & 0x80:
        return False
    if reply[4:6] == b"\0\0":
        return True
    end = _HEADER.size
    while end < len(query) and query[end]:
        end += query[end] + 1
    end += 1
    if reply[_HEADER.size : end].lower() != query[_HEADER.size : end].lower():
        return False
    return reply[end : end + _QUESTION.size] == query[end : end + _QUESTION.size]


def is_cut(reply: bytes) -> bool:
    """Whether it was too long for a datagram."""
    return bool(int.from_bytes(reply[2:4], "big") & _TRUNCATED)


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


def reversed_address(name: str) -> str | None:
    """The address that a name below ``in-addr.arpa`` or ``ip6.arpa`` means, None for no such.

    (RFC 1035, section 3.5; RFC 3596, section 2.5)
    """
    labels = name.lower().rstrip(".").split(".")
    try:
        if labels[-2:] == ["in-addr", "arpa"] and len(labels) == 6:
            return str(ipaddress.IPv4Address(".".join(labels[3::-1])))
        digits = labels[31::-1]
        if labels[-2:] == ["ip6", "arpa"] and len(labels) == 34 and _HEX.issuperset(digits):
            return str(ipaddress.IPv6Address(int("".join(digits), 16)))
    except ValueError:
        pass
    return None
