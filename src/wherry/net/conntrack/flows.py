"""The kernel's memory of connections, where it must forget some.

A translation is decided by the first packet of a connection. Datagrams have no connections: a
client that goes on sending keeps the translation of its first one for ever, also when that leads to
a container which has gone. The messages are those of linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass

from wherry.net import netlink
from wherry.net.netlink import (
    NETLINK_NETFILTER,
    NLA_F_NESTED,
    NLM_F_DUMP,
    Connection,
    attribute,
    nested,
)

_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2
_ORIGINAL, _REPLY = 1, 2
_IP, _PROTOCOL = 1, 2
_SOURCE, _DESTINATION, _SOURCE6, _DESTINATION6 = 1, 2, 3, 4
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_FILTER, _FILTERS = 25, {_ORIGINAL: 1, _REPLY: 2}
_BY_SOURCE, _BY_PROTOCOL, _BY_DESTINATION_PORT = 1 << 0, 1 << 3, 1 << 5
_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}


@dataclass(frozen=True, slots=True)
class Flow:
    """A connection as the client sees it, and whence it is really answered (address, port)."""

    protocol: str
    source: str
    source_port: int
    destination: str
    destination_port: int
    answered_from: tuple[str, int]


def read(body: bytes) -> Flow | None:
    """The flow in a message of the kernel; None for a protocol without ports."""
    values = netlink.read_netfilter(body)
    try:
        protocol, source, source_port, destination, port = _tuple(values[_ORIGINAL])
        _, reply_source, reply_port, _, _ = _tuple(values[_REPLY])
    except KeyError:
        return None
    if protocol not in _PROTOCOLS:
        return None
    answered = (reply_source, reply_port)
    return Flow(_PROTOCOLS[protocol], source, source_port, destination, port, answered)


def _tuple(data: bytes) -> tuple[int, str, int, str, int]:
    parts = netlink.attributes(data)
    addresses, ports = netlink.attributes(parts[_IP]), netlink.attributes(parts[_PROTOCOL])
    old = _SOURCE in addresses
    source, destination = (_SOURCE, _DESTINATION) if old else (_SOURCE6, _DESTINATION6)
    family = socket.AF_INET if old else socket.AF_INET6
    return (
        ports[_NUMBER][0],
        socket.inet_ntop(family, addresses[source]),
        int.from_bytes(ports[_SOURCE_PORT], "big"),
        socket.inet_ntop(family, addresses[destination]),
        int.from_bytes(ports[_DESTINATION_PORT], "big"),
    )


def head(version: int) -> bytes:
    """What a message about flows over IP ``version`` begins with."""
    return netlink.netfilter(family=socket.AF_INET if version == 4 else socket.AF_INET6)


def only(direction: int, protocol: str, *, source: str = "", destination_port: int = 0) -> bytes:
    """What has the kernel list only some flows, as they are in one direction. (One older than 5.8
    lists all.)"""
    (number,) = (n for n, name in _PROTOCOLS.items() if name == protocol)
    flags = _BY_PROTOCOL
    parts = []
    if source:
        flags |= _BY_SOURCE
        packed = ipaddress.ip_address(source).packed
        kind = _SOURCE if len(packed) == 4 else _SOURCE6
        parts.append(nested(_IP | NLA_F_NESTED, attribute(kind, packed)))
    transport = [attribute(_NUMBER, bytes([number]))]
    if destination_port:
        flags |= _BY_DESTINATION_PORT
        transport.append(attribute(_DESTINATION_PORT, destination_port.to_bytes(2, "big")))
    parts.append(nested(_PROTOCOL | NLA_F_NESTED, *transport))
    return nested(direction | NLA_F_NESTED, *parts) + nested(
        _FILTER | NLA_F_NESTED, attribute(_FILTERS[direction], flags)
    )


def forget(
    protocol: str, matches: Callable[[Flow], bool], *, version: int = 4, port: int = 0
) -> int:
    """Forget the flows of ``protocol`` over IP ``version`` that match; returns how many.

    With ``port`` only those to that port, which the kernel finds itself: it may know of many.

    Raises:
        OSError: the kernel refuses.
    """
    everything = head(version)
    count = 0
    with Connection(NETLINK_NETFILTER) as connection:
        asked = everything + only(_ORIGINAL, protocol, destination_port=port)
        for body in connection.ask(_GET, asked, NLM_F_DUMP):
            flow = read(body)
            if flow is None or flow.protocol != protocol or not matches(flow):
                continue
            original = netlink.read_netfilter(body)[_ORIGINAL]
            # It may have ended by itself since it was listed.
            with contextlib.suppress(FileNotFoundError):
                connection.change(
                    _DELETE, everything + attribute(_ORIGINAL | NLA_F_NESTED, original)
                )
                count += 1
    return count
