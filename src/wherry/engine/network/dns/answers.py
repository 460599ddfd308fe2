"""What a container's networks say to a question."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Sequence

from wherry.engine.network.dns.zone import Place, find, find_name
from wherry.wire.dns import LARGEST, Question, Record, Reply, Type, packed, reversed_address

TTL = 600  # seconds
_LONGEST_LABEL = 63


def answer(question: Question, places: Sequence[Place], *, datagram: bool) -> bytes | None:
    """The answer for a container with these places; None where others must be asked.

    A name of ours that has nothing of the type asked for has an empty answer: nobody else knows
    more about it. (A datagram may be as long as the client takes: it does not leave the machine.)
    """
    records = _records(question, places)
    if records is None:
        return None
    reply = Reply(authoritative=False, answers=records)
    return packed(reply, question, datagram=datagram, most=LARGEST)


def _records(question: Question, places: Sequence[Place]) -> list[Record] | None:
    if question.type == Type.PTR:
        address = reversed_address(question.name)
        name = find_name(places, address) if address else None
        if name is None or any(len(label) > _LONGEST_LABEL for label in name.split(".")):
            return None
        return [Record("", Type.PTR, TTL, (name,))]
    addresses = find(places, question.name)
    if addresses is None:
        return None
    random.shuffle(addresses)
    size = {int(Type.A): 4, int(Type.AAAA): 16}.get(question.type)
    found = [ipaddress.ip_address(address).packed for address in addresses]
    return [Record("", question.type, TTL, (data,)) for data in found if len(data) == size]


def is_single_label(question: Question) -> bool:
    """Whether it asks for the address of a name without a dot."""
    return question.type in (Type.A, Type.AAAA) and "." not in question.name
