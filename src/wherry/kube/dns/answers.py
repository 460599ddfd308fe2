"""What the zone says to a question. (RFC 2308 for what it has not, RFC 2782 for SRV)"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from wherry.kube.dns.names import Entry
from wherry.kube.dns.zone import VERSION, Zone
from wherry.wire.dns import Code, Question, Record, Reply, Type, plain

TTL = 30
"""Seconds, as kubeadm has CoreDNS say."""
_VERSION_TTL = 28_800
_FIT = 100
"""More addresses than fit into a datagram of ours; nobody need write down the others for it."""
_HOPS = 8
"""So many aliases lead on to others, at most."""
_PLACE = struct.Struct("!HHH")
_TIMES = struct.Struct("!IIIII")
_VERSION = bytes([len(VERSION)]) + VERSION.encode()


def answer(question: Question, zone: Zone, turn: int = 0, *, datagram: bool = False) -> Reply:
    """What ``zone`` says; an alias alone where its target lies elsewhere.

    Questions of the type ANY hear no more than whether there is such a name, and an alias: no
    records of all types, as from CoreDNS.

    ``turn`` chooses with which of several addresses the answer begins: hosts share the load. For a
    ``datagram`` an answer that does not fit is not whole.
    """
    most = _FIT if datagram else None
    reply = Reply()
    name, type = question.name, question.type
    if name.endswith(".arpa"):
        found = zone.names_of(name)
        if found is not None and type == Type.PTR:
            reply.answers = [Record("", Type.PTR, TTL, (target,)) for target in found]
        above = name[name.rindex(".", 0, -len(".arpa")) + 1 :]
        return _said(reply, zone, above, exists=found is not None)
    entry = zone.find(name)
    if entry is not None:
        _add(reply, "", entry, question, zone, turn, most)
    alias = alias_of(reply)
    if alias is not None and type not in (Type.CNAME, Type.ANY) and zone.covers(alias):
        # The answer is about the last name of all (RFC 6604).
        reply.code = Code.NOERROR if zone.find(alias) is not None else Code.NXDOMAIN
        reply.authority.append(_authority(zone, zone.domain))
    return _said(reply, zone, zone.domain, exists=entry is not None)


def orders(question: Question, zone: Zone) -> int:
    """How many answers to a question there are that differ in their order alone."""
    if question.type not in (Type.A, Type.AAAA):
        return 1
    entry = zone.find(question.name)
    for _ in range(_HOPS):
        if entry is None or not entry.alias:
            break
        entry = zone.find(entry.alias)
    return max(1, len(entry.addresses or entry.targets)) if entry is not None else 1


def _said(reply: Reply, zone: Zone, domain: str, *, exists: bool) -> Reply:
    """No such name, or nothing of that type; the domain's SOA tells how long that may be kept."""
    if not reply.answers:
        reply.code = Code.NOERROR if exists else Code.NXDOMAIN
        reply.authority.append(_authority(zone, domain))
    return reply


def _add(
    reply: Reply,
    owner: str,
    entry: Entry,
    question: Question,
    zone: Zone,
    turn: int,
    most: int | None,
    hops: int = _HOPS,
) -> None:
    type, name = question.type, question.name
    if entry.alias:
        reply.answers.append(Record(owner, Type.CNAME, TTL, (entry.alias,)))
        target = zone.find(entry.alias) if zone.covers(entry.alias) else None
        if target is not None and hops and type != Type.CNAME:
            _add(reply, entry.alias, target, question, zone, turn, most, hops - 1)
        return
    if type in (Type.A, Type.AAAA):
        addresses = entry.addresses or tuple(_addresses_there(entry, zone, most))
        reply.answers += islice(_addresses(owner, addresses, type, turn), most)
    elif type == Type.SRV:
        targets = entry.targets[:most]
        for place in targets:
            data = _PLACE.pack(0, entry.weight, place.port) + plain(place.name)
            reply.answers.append(Record(owner, Type.SRV, TTL, (data,)))
        _add_hosts(reply, dict.fromkeys(place.name for place in targets), zone, most)
    elif name == zone.domain and type == Type.SOA:
        reply.answers.append(_authority(zone, owner))
    elif name == zone.domain and type == Type.NS:
        servers = zone.name_servers()
        reply.answers += (Record(owner, Type.NS, TTL, (server,)) for server in servers)
        _add_hosts(reply, servers, zone, most)
    elif name == f"dns-version.{zone.domain}" and type == Type.TXT:
        reply.answers.append(Record(owner, Type.TXT, _VERSION_TTL, (_VERSION,)))


def _add_hosts(reply: Reply, hosts: Iterable[str], zone: Zone, most: int | None) -> None:
    """The addresses of names in the answer, which spare the client another question."""
    for host in hosts:
        if found := zone.find(host):
            reply.additional += islice(_addresses(host, found.addresses, Type.ANY), most)


def _addresses_there(entry: Entry, zone: Zone, most: int | None) -> dict[str, None]:
    """The addresses at which a port is; no more of them than ``most`` places have."""
    found: dict[str, None] = {}
    for host in dict.fromkeys(place.name for place in entry.targets[:most]):
        if there := zone.find(host):
            found |= dict.fromkeys(there.addresses)
    return found


def _addresses(owner: str, addresses: Sequence[str], type: int, turn: int = 0) -> Iterator[Record]:
    """The records of addresses (of type ANY: of both families), from another one each ``turn``."""
    start = turn % max(1, len(addresses))
    for text in (*addresses[start:], *addresses[:start]):
        six = ":" in text
        wanted = Type.AAAA if six else Type.A
        if type in (wanted, Type.ANY):
            data = socket.inet_pton(socket.AF_INET6 if six else socket.AF_INET, text)
            yield Record(owner, wanted, TTL, (data,))


def _authority(zone: Zone, owner: str) -> Record:
    names = f"ns.dns.{zone.domain}", f"hostmaster.{zone.domain}"
    return Record(owner, Type.SOA, TTL, (*names, _TIMES.pack(zone.serial, 7200, 1800, 86400, TTL)))


def alias_of(reply: Reply) -> str | None:
    """The name that an answer ends with, None where it ends with an address."""
    if not reply.answers or reply.answers[-1].type != Type.CNAME:
        return None
    alias = reply.answers[-1].data[0]
    assert isinstance(alias, str)
    return alias
