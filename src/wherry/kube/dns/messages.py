"""Questions read, answers written: RFC 1035, RFC 2308 (negative answers), RFC 2782 (SRV), RFC 6891
(EDNS0). Messages are dnslib's."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from dnslib import (
    AAAA,
    CLASS,
    CNAME,
    EDNS0,
    NS,
    PTR,
    QTYPE,
    RCODE,
    RR,
    SOA,
    SRV,
    TXT,
    A,
    DNSHeader,
    DNSRecord,
)

from wherry.kube.dns.names import Entry
from wherry.kube.dns.zone import VERSION, Zone

TTL = 5  # seconds
PLAIN_SIZE = 512
OUR_SIZE = 1232
LARGEST = 65535

_HEADER = struct.Struct("!HHHHHH")
_RESPONSE = 0x8000
_OPCODE = 0x7800


class Malformed(Exception):
    """The message is no question; ``reply`` says so to its sender, where it can be told."""

    def __init__(self, reply: bytes | None) -> None:
        super().__init__()
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Question:
    """A client's question."""

    record: DNSRecord
    name: str
    """In small letters, without the final dot."""
    type: str
    size: int
    """The longest answer that the client takes in a datagram, in bytes."""


def parse(data: bytes) -> Question:
    """Read a question.

    Raises:
        Malformed: it is none, or not one that we answer.
    """
    if len(data) < _HEADER.size:
        raise Malformed(None)
    id, flags, questions, *_ = _HEADER.unpack_from(data)
    if flags & _RESPONSE:
        raise Malformed(None)
    if flags & _OPCODE:
        raise Malformed(_refusal(id, flags, RCODE.NOTIMP))
    if questions != 1:
        raise Malformed(_refusal(id, flags, RCODE.FORMERR))
    try:
        record = DNSRecord.parse(data)
        asked = record.q
        if asked.qclass != CLASS.IN:
            raise Malformed(_refusal(id, flags, RCODE.REFUSED))
        options = [entry for entry in record.ar if entry.rtype == QTYPE.OPT]
        size = max(PLAIN_SIZE, int(options[0].rclass)) if options else PLAIN_SIZE
        return Question(record, str(asked.qname).lower().rstrip("."), QTYPE[asked.qtype], size)
    except Malformed:
        raise
    except Exception:  # what garbage makes of the library is not worth a list
        raise Malformed(_refusal(id, flags, RCODE.FORMERR)) from None


def _refusal(id: int, flags: int, code: int) -> bytes:
    return _HEADER.pack(id, _RESPONSE | flags & 0x7900 | code, 0, 0, 0, 0)


def failure(question: Question, code: str = "SERVFAIL") -> bytes:
    """An answer that is none."""
    reply = _reply(question, authoritative=False)
    reply.header.rcode = getattr(RCODE, code)
    return bytes(reply.pack())


def _reply(question: Question, *, authoritative: bool = True) -> DNSRecord:
    asked = question.record
    header = DNSHeader(id=asked.header.id, qr=1, aa=int(authoritative), ra=1, rd=asked.header.rd)
    reply = DNSRecord(header, questions=list(asked.questions))
    if any(entry.rtype == QTYPE.OPT for entry in asked.ar):
        reply.add_ar(EDNS0(udp_len=OUR_SIZE))
    return reply


def answer(question: Question, zone: Zone, turn: int = 0) -> DNSRecord:
    """What ``zone`` says; an alias alone where its target lies elsewhere.

    ``turn`` chooses with which of several addresses the answer begins: hosts share the load.
    """
    reply = _reply(question)
    name, type = question.name, question.type
    if name.endswith(".arpa"):
        found = zone.names_of(name)
        if found is None:
            return _nothing(reply, zone, exists=False)
        if type in ("PTR", "ANY"):
            for target in found:
                reply.add_answer(RR(question.record.q.qname, QTYPE.PTR, ttl=TTL, rdata=PTR(target)))
        return reply if reply.rr else _nothing(reply, zone, exists=True)
    entry = zone.find(name)
    if entry is None:
        return _nothing(reply, zone, exists=False)
    _add(reply, question.record.q.qname, entry, question, zone, turn)
    return reply if reply.rr else _nothing(reply, zone, exists=True)


def _add(
    reply: DNSRecord, owner: object, entry: Entry, question: Question, zone: Zone, turn: int
) -> None:
    type, name = question.type, question.name
    if entry.alias:
        reply.add_answer(RR(owner, QTYPE.CNAME, ttl=TTL, rdata=CNAME(entry.alias)))
        target = zone.find(entry.alias) if zone.covers(entry.alias) else None
        if target is not None and not target.alias:
            _add(reply, entry.alias, target, question, zone, turn)
        return
    if type in ("A", "AAAA", "ANY"):
        for record in _addresses(owner, entry, type, turn):
            reply.add_answer(record)
    if type in ("SRV", "ANY") and entry.targets:
        weight = max(1, 100 // len(entry.targets))
        for place in entry.targets:
            data = SRV(0, weight, place.port, place.name)
            reply.add_answer(RR(owner, QTYPE.SRV, ttl=TTL, rdata=data))
        for host in dict.fromkeys(place.name for place in entry.targets):
            found = zone.find(host)
            for record in _addresses(host, found, "ANY") if found else ():
                reply.add_ar(record)
    if name == zone.domain and type in ("SOA", "ANY"):
        reply.add_answer(_authority(zone))
    if name == zone.domain and type in ("NS", "ANY"):
        reply.add_answer(RR(owner, QTYPE.NS, ttl=TTL, rdata=NS(f"ns.dns.{zone.domain}")))
        reply.add_ar(*_addresses(f"ns.dns.{zone.domain}", Entry((zone.server,)), "ANY"))
    if name == f"dns-version.{zone.domain}" and type in ("TXT", "ANY"):
        reply.add_answer(RR(owner, QTYPE.TXT, ttl=TTL, rdata=TXT(VERSION)))


def _addresses(owner: object, entry: Entry, type: str, turn: int = 0) -> list[RR]:
    """The address records of an entry, beginning with another one each ``turn``."""
    result = []
    start = turn % max(1, len(entry.addresses))
    for text in (*entry.addresses[start:], *entry.addresses[:start]):
        six = ipaddress.ip_address(text).version == 6
        if type in ("AAAA" if six else "A", "ANY"):
            data = AAAA(text) if six else A(text)
            result.append(RR(owner, QTYPE.AAAA if six else QTYPE.A, ttl=TTL, rdata=data))
    return result


def _authority(zone: Zone) -> RR:
    times = (1, 7200, 1800, 86400, TTL)
    data = SOA(f"ns.dns.{zone.domain}", f"hostmaster.{zone.domain}", times)
    return RR(zone.domain, QTYPE.SOA, ttl=TTL, rdata=data)


def _nothing(reply: DNSRecord, zone: Zone, *, exists: bool) -> DNSRecord:
    """No such name, or nothing of that type; the zone's SOA tells how long that may be kept."""
    if not exists:
        reply.header.rcode = RCODE.NXDOMAIN
    reply.add_auth(_authority(zone))
    return reply


def alias_of(reply: DNSRecord) -> str | None:
    """The name outside of the zone that an answer ends with, None where it ends with an address."""
    if not reply.rr or reply.rr[-1].rtype != QTYPE.CNAME:
        return None
    return str(reply.rr[-1].rdata.label).rstrip(".")


def packed(reply: DNSRecord, question: Question, *, datagram: bool) -> bytes:
    """The message as it is sent, cut short where a datagram cannot take it (and saying so)."""
    data = bytes(reply.pack())
    limit = min(question.size, OUR_SIZE) if datagram else LARGEST
    if len(data) <= limit:
        return data
    reply.ar = [entry for entry in reply.ar if entry.rtype == QTYPE.OPT]
    while len(data := bytes(reply.pack())) > limit and reply.rr:
        reply.header.tc = 1
        del reply.rr[max(0, len(reply.rr) * limit // len(data) - 1) :]
    return data


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
                type, _, ttl, length = struct.unpack_from("!HHIH", data, at)
                if type != QTYPE.OPT:
                    places.append(at + 4)
                    if section == 1 and type == QTYPE.SOA:
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
    keepable = flags & 0xF in (RCODE.NOERROR, RCODE.NXDOMAIN) and not flags & 0x0200
    return places, (shortest or 0) if keepable else 0


def _skip_name(data: bytes, at: int) -> int:
    while data[at]:
        if data[at] & 0xC0 == 0xC0:
            return at + 2
        at += data[at] + 1
    return at + 1
