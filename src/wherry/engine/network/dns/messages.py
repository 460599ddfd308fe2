"""DNS messages: a question read, an answer written. RFC 1035, RFC 6891 (EDNS0).

What the network's names do not answer is forwarded byte for byte, so only answers of our own are
made here.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Sequence
from dataclasses import dataclass

from dnslib import AAAA, CLASS, EDNS0, PTR, QTYPE, RCODE, RR, A, DNSHeader, DNSRecord

from wherry.engine.network.dns.zone import Place, find, find_name, reversed_address

TTL = 600  # seconds
# What fits into a datagram for a client that does not say more, and what we accept ourselves.
PLAIN_SIZE = 512
OUR_SIZE = 1232
LARGEST = 65535
LONGEST_LABEL = 63
_HEADER_SIZE = 12


class Malformed(Exception):
    """The message is no question; ``reply`` says so to its sender, where it can be told."""

    def __init__(self, reply: bytes | None) -> None:
        super().__init__()
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Question:
    """A client's question. ``size`` is the longest answer it takes in a datagram."""

    record: DNSRecord
    name: str  # with the final dot
    type: int
    size: int
    extended: bool

    @property
    def is_single_label(self) -> bool:
        """Whether it asks for the address of a name without a dot."""
        return self.type in (QTYPE.A, QTYPE.AAAA) and "." not in self.name.rstrip(".")


def parse(data: bytes) -> Question:
    """Read a question.

    Raises:
        Malformed: it is none.
    """
    try:
        record = DNSRecord.parse(data)
        if record.header.qr or not record.questions:
            raise Malformed(None)
        asked = record.questions[0]
        options = [r for r in record.ar if r.rtype == QTYPE.OPT]
        # The class of that record is the size (RFC 6891 6.1.2).
        size = max(PLAIN_SIZE, int(options[0].rclass)) if options else PLAIN_SIZE
        return Question(record, str(asked.qname), int(asked.qtype), size, bool(options))
    except Malformed:
        raise
    except Exception:  # what garbage makes of the library is not worth a list
        raise Malformed(_format_error(data)) from None


def _format_error(data: bytes) -> bytes | None:
    if len(data) < _HEADER_SIZE or data[2] & 0x80:
        return None
    header = DNSHeader(id=int.from_bytes(data[:2], "big"), qr=1, ra=1, rcode=RCODE.FORMERR)
    return bytes(DNSRecord(header).pack())


def answer(question: Question, places: Sequence[Place], *, datagram: bool) -> bytes | None:
    """The answer for a container with these places; None where others must be asked.

    A name of ours that has nothing of the type asked for has an empty answer: nobody else knows
    more about it. What is too long for a datagram is cut short, and says so.
    """
    if question.type == QTYPE.PTR:
        address = reversed_address(question.name)
        name = find_name(places, address) if address else None
        if name is None or any(len(label) > LONGEST_LABEL for label in name.split(".")):
            return None
        return _reply(question, [PTR(name)], datagram=datagram)
    addresses = find(places, question.name)
    if addresses is None:
        return None
    random.shuffle(addresses)
    parsed = map(ipaddress.ip_address, addresses)
    match question.type:
        case QTYPE.A:
            found = [A(str(address)) for address in parsed if address.version == 4]
        case QTYPE.AAAA:
            found = [AAAA(str(address)) for address in parsed if address.version == 6]
        case _:
            found = []
    return _reply(question, found, datagram=datagram)


def failure(question: Question, rcode: str) -> bytes:
    """An answer that is none: ``SERVFAIL``, ``REFUSED``, or ``NOERROR`` with nothing in it."""
    reply = _empty(question)
    reply.header.rcode = RCODE.reverse[rcode]
    return bytes(reply.pack())


def _empty(question: Question) -> DNSRecord:
    header = question.record.header
    reply = DNSRecord(
        DNSHeader(id=header.id, bitmap=0, qr=1, ra=1, rd=header.rd, opcode=header.opcode),
        q=question.record.q,
    )
    if question.extended:
        reply.add_ar(EDNS0(udp_len=OUR_SIZE))
    return reply


def _reply(question: Question, data: Sequence[A | AAAA | PTR], *, datagram: bool) -> bytes:
    limit = question.size if datagram else LARGEST
    packed = _packed(question, data)
    if len(packed) <= limit:
        return packed
    # Names are compressed, so all records have the same length.
    bare = len(_packed(question, ()))
    fitting = (limit - bare) * len(data) // (len(packed) - bare)
    return _packed(question, data[: max(0, fitting)], truncated=True)


def _packed(
    question: Question, data: Sequence[A | AAAA | PTR], *, truncated: bool = False
) -> bytes:
    reply = _empty(question)
    reply.header.tc = truncated
    for entry in data:
        reply.add_answer(RR(question.record.q.qname, question.type, CLASS.IN, TTL, entry))
    return bytes(reply.pack())
