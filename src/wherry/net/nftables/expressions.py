"""Chains and their rules in the kernel's own words, for those that come with elements.

Rules that always are there are text (``nft``). One that is needed by a new element must not wait
until nft has read all elements there are, as it does before it makes a rule; and it should come
with the element, in one transaction. So here are the few expressions that such rules consist
of, as messages of linux/netfilter/nf_tables.h. Registers are numbered as nft numbers them.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from wherry.net.netlink import NLA_F_NESTED, NLM_F_CREATE, attribute, nested, netfilter

SUBSYSTEM = 10
NEW_CHAIN, NEW_RULE = SUBSYSTEM << 8 | 3, SUBSYSTEM << 8 | 6
_APPEND = 0x800
FAMILIES = {"ip": socket.AF_INET, "ip6": socket.AF_INET6}

Expression = bytes
# What a payload is counted from.
NETWORK, TRANSPORT = 1, 2
_MARK, _PROTOCOL = 3, 16


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain that is to be there, and each of its rules as a list of expressions."""

    family: str
    name: str
    rules: Sequence[Sequence[Expression]]

    def messages(self, table: str) -> Iterator[tuple[int, int, bytes]]:
        """The messages (kind, flags, body) that make it."""
        head = netfilter(attribute(1, table), family=FAMILIES[self.family])
        yield NEW_CHAIN, NLM_F_CREATE, head + attribute(3, self.name)
        for rule in self.rules:
            expressions = b"".join(attribute(1 | NLA_F_NESTED, expression) for expression in rule)
            body = head + attribute(2, self.name) + attribute(4 | NLA_F_NESTED, expressions)
            yield NEW_RULE, NLM_F_CREATE | _APPEND, body


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value))


def _expression(name: str, *attributes: bytes) -> Expression:
    return attribute(1, name) + nested(2 | NLA_F_NESTED, *attributes)


def load_payload(base: int, offset: int, length: int, register: int) -> Expression:
    """Bytes of the packet."""
    values = (register, base, offset, length)
    return _expression("payload", *(_number(kind, v) for kind, v in enumerate(values, 1)))


def load_protocol(register: int) -> Expression:
    """The transport's number."""
    return _expression("meta", _number(1, register), _number(2, _PROTOCOL))


def load_mark(register: int) -> Expression:
    """The packet's mark."""
    return _expression("meta", _number(1, register), _number(2, _MARK))


def set_mark(register: int) -> Expression:
    """Mark the packet."""
    return _expression("meta", _number(2, _MARK), _number(3, register))


def only_mark(register: int, mask: int, value: int) -> list[Expression]:
    """Go on if that part of the packet's mark is ``value``."""

    def data(kind: int, number: int) -> bytes:
        return nested(kind | NLA_F_NESTED, attribute(1, struct.pack("=I", number)))

    numbers = (_number(kind, v) for kind, v in ((1, register), (2, register), (3, 4)))
    return [
        load_mark(register),
        _expression("bitwise", *numbers, data(4, mask), data(5, 0)),
        _expression("cmp", _number(1, register), _number(2, 0), data(3, value)),
    ]


def take_turn(register: int, count: int, offset: int) -> Expression:
    """One number after the other, from ``offset`` on, ``count`` of them."""
    values = (register, count, 0, offset)
    return _expression("numgen", *(_number(kind, v) for kind, v in enumerate(values, 1)))


def look_up(container: str, register: int, to: int = 0) -> Expression:
    """Go on if it is in the set, or with what the map says, in register ``to``."""
    found = (_number(3, to),) if to else ()
    return _expression("lookup", attribute(1, container), _number(2, register), *found)


def lead_to(family: str, address: int, port: int) -> Expression:
    """Translate the destination to what the registers say."""
    parts = (_number(1, 1), _number(2, FAMILIES[family]), _number(3, address), _number(5, port))
    return _expression("nat", *parts)


def remember(container: str, key: int, value: int, seconds: int) -> Expression:
    """Put what registers hold into a map for a time; where the key is known, just count anew."""
    timeout = attribute(6, struct.pack(">Q", seconds * 1000))
    return _dynamic(container, 1, key, value, timeout)


def forget(container: str, key: int, value: int) -> Expression:
    """Take the key out of a map."""
    return _dynamic(container, 2, key, value)


def _dynamic(container: str, verb: int, key: int, value: int, *more: bytes) -> Expression:
    parts = (attribute(1, container), _number(3, verb), _number(4, key), _number(5, value))
    return _expression("dynset", *parts, *more)
