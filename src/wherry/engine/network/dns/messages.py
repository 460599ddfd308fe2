"""DNS messages: a question read, an answer written. RFC 1035, RFC 6891 (EDNS0).

Questions come from anywhere and are read by dnslib. What the network's names do not answer is
forwarded byte for byte, so only answers of our own are written here; they are so simple that doing
it by hand is short and takes a quarter of the time.
"""

from __future__ import annotations

import ipaddress
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from dnslib import QTYPE, DNSRecord

from wherry.engine.network.dns.zone import Place, find, find_name, reversed_address

TTL = 600  # seconds
# What fits into a datagram for a client that does not say more, and what we accept ourselves.
PLAIN_SIZE = 512
OUR_SIZE = 1232
LARGEST = 65535
LONGEST_LABEL = 63

NOERROR, FORMERR, SERVFAIL, REFUSED = 0, 1, 2, 5

_A, _PTR, _AAAA, _OPT, _IN = 1, 12, 28, 41, 1
_RESPONSE, _TRUNCATED, _RECURSION_AVAILABLE = 0x8000, 0x0200, 0x0080
_REPEATED = 0x7900  # of the question's flags: the operation, and whether recursion is desired
_HEADER = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHHIH")
_OWN_NAME = 0xC000 | _HEADER.size  # "as in the question", which follows the header
_OPTIONS = b"\0" + struct.pack("!HHIH", _OPT, OUR_SIZE, 0, 0)


class Malformed(Exception):
    """The message is no question; ``reply`` says so to its sender, where it can be told."""

    def __init__(self, reply: bytes | None) -> None:
        super().__init__()
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Question:
    """A client's question. ``size`` is the longest answer it takes in a datagram."""

    id: int
    flags: int
    name: str  # with the final dot
    type: int
    section: bytes  # the question as it came: name, type, class
    size: int = PLAIN_SIZE
    extended: bool = False

    @property
    def is_single_label(self) -> bool:
        """Whether it asks for the address of a name without a dot."""
        return self.type in (_A, _AAAA) and "." not in self.name.rstrip(".")


def parse(data: bytes) -> Question:
    """Read a question.

    Raises:
        Malformed: it is none.
    """
    try:
        record = DNSRecord.parse(data)
        id, flags, *_ = _HEADER.unpack_from(data)
        if flags & _RESPONSE or not record.questions:
            raise Malformed(None)
        asked = record.questions[0]
        options = [entry for entry in record.ar if entry.rtype == QTYPE.OPT]
        return Question(
            id,
            flags,
            str(asked.qname),
            int(asked.qtype),
            data[_HEADER.size : end_of_question(data)],
            # The class of that record is the size (RFC 6891 6.1.2).
            size=max(PLAIN_SIZE, int(options[0].rclass)) if options else PLAIN_SIZE,
            extended=bool(options),
        )
    except Malformed:
        raise
    except Exception:  # what garbage makes of the library is not worth a list
        raise Malformed(_format_error(data)) from None


def end_of_question(message: bytes) -> int:
    """Where the first question of a message ends.

    Raises:
        ValueError: its name does not stand there.
    """
    end = _HEADER.size
    while end < len(message) and message[end]:
        if message[end] > LONGEST_LABEL:
            raise ValueError("a name that points elsewhere")
        end += message[end] + 1
    return end + 5  # the root, the type, the class


def _format_error(data: bytes) -> bytes | None:
    if len(data) < _HEADER.size:
        return None
    id, flags, *_ = _HEADER.unpack_from(data)
    if flags & _RESPONSE:
        return None
    return _HEADER.pack(id, _flags(flags) | FORMERR, 0, 0, 0, 0)


def answer(question: Question, places: Sequence[Place], *, datagram: bool) -> bytes | None:
    """The answer for a container with these places; None where others must be asked.

    A name of ours that has nothing of the type asked for has an empty answer: nobody else knows
    more about it. What is too long for a datagram is cut short, and says so.
    """
    if question.type == _PTR:
        address = reversed_address(question.name)
        name = find_name(places, address) if address else None
        if name is None or any(len(label) > LONGEST_LABEL for label in name.split(".")):
            return None
        return _reply(question, [_encoded(name)], datagram=datagram)
    addresses = find(places, question.name)
    if addresses is None:
        return None
    random.shuffle(addresses)
    version = {_A: 4, _AAAA: 6}.get(question.type)
    parsed = map(ipaddress.ip_address, addresses)
    found = [address.packed for address in parsed if address.version == version]
    return _reply(question, found, datagram=datagram)


def failure(question: Question, code: int) -> bytes:
    """An answer that is none, with one of the codes above."""
    return _packed(question, (), code)


def _encoded(name: str) -> bytes:
    labels = (label.encode() for label in name.split("."))
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _reply(question: Question, data: Sequence[bytes], *, datagram: bool) -> bytes:
    limit = question.size if datagram else LARGEST
    packed = _packed(question, data)
    if len(packed) <= limit:
        return packed
    # All records have the same length.
    bare = len(_packed(question, ()))
    fitting = (limit - bare) * len(data) // (len(packed) - bare)
    return _packed(question, data[: max(0, fitting)], _TRUNCATED)


def _flags(asked: int) -> int:
    return _RESPONSE | _RECURSION_AVAILABLE | asked & _REPEATED


def _packed(question: Question, data: Sequence[bytes], flags: int = 0) -> bytes:
    flags |= _flags(question.flags)
    parts = [
        _HEADER.pack(question.id, flags, 1, len(data), 0, int(question.extended)),
        question.section,
    ]
    for entry in data:
        parts += _RECORD.pack(_OWN_NAME, question.type, _IN, TTL, len(entry)), entry
    if question.extended:
        parts.append(_OPTIONS)
    return b"".join(parts)
