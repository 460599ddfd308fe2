"""The kernel's netlink sockets: messages packed and unpacked, and a connection that exchanges them.

netlink(7), rtnetlink(7); of netfilter's messages what all begin with. Only what this room needs:
pyroute2, which has it all, takes 130 ms and 20 MB to import, and half of what a daemon may take to
start. The functions that pack and unpack are pure; ``Connection`` is blocking and cheap (the kernel
does the work within the call that sends it).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from types import TracebackType

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_REPLACE = 0x100
NLM_F_DUMP = 0x300
NETLINK_NETFILTER = 12  # Python has no name for it
NLMSG_ERROR = 2
NLMSG_DONE = 3

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_LINKINFO, IFLA_STATS64, IFLA_NET_NS_FD = 18, 23, 28
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
VETH_INFO_PEER = 1
IFLA_PROTINFO, IFLA_BRPORT_MODE, NLA_F_NESTED = 12, 4, 0x8000
IFLA_MACVLAN_MODE, IFLA_IPVLAN_MODE, IFLA_VLAN_ID = 1, 1, 1
IFLA_BR_NF_CALL_IPTABLES, IFLA_BR_NF_CALL_IP6TABLES = 36, 37
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4
# Ours at once, without asking the neighbours first: who has which address, we know.
IFA_F_NODAD = 0x02
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_TABLE = 1, 4, 5, 6, 15
RTN_UNICAST, RTN_LOCAL, RTN_UNREACHABLE = 1, 2, 7
RTNH_F_ONLINK = 0x4
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
NDA_DST, NDA_LLADDR = 1, 2
NUD_NOARP, NUD_PERMANENT = 0x40, 0x80
NTF_SELF = 0x02
IFLA_VXLAN_ID, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LEARNING, IFLA_VXLAN_PORT = 1, 4, 7, 15
IFLA_VXLAN_LOCAL6 = 17
RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE = 0x1, 0x10, 0x40
RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE = 0x100, 0x400
RT_TABLE_MAIN, RT_TABLE_LOCAL, RT_TABLE_UNSPEC = 254, 255, 0
RTPROT_BOOT, RTPROT_STATIC = 3, 4
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
IFF_UP, IFF_LOOPBACK = 0x1, 0x8

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_NETFILTER = struct.Struct("=BBH")
_ERROR = struct.Struct("=i")


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def attribute(kind: int, value: bytes | str | int) -> bytes:
    """One attribute: text gets its closing zero, a number is 32 bits."""
    if isinstance(value, str):
        value = value.encode() + b"\0"
    elif isinstance(value, int):
        value = struct.pack("=I", value)
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(_aligned(length) - length)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind, b"".join(attributes))


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in ``data`` by kind; of several of one kind the last."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += _aligned(length)
    return found


def link(
    *parts: bytes,
    index: int = 0,
    flags: int = 0,
    change: int = 0,
    family: int = socket.AF_UNSPEC,
) -> bytes:
    """The body of a message about a link (``struct ifinfomsg``)."""
    return _LINK.pack(family, 0, index, flags, change) + b"".join(parts)


def read_link(body: bytes) -> tuple[int, int, dict[int, bytes]]:
    """A link's index, flags and attributes."""
    _, _, index, flags, _ = _LINK.unpack_from(body)
    return index, flags, attributes(body[_LINK.size :])


def address(
    *parts: bytes,
    index: int,
    prefix_length: int,
    family: int = socket.AF_INET,
    flags: int = 0,
    scope: int = RT_SCOPE_UNIVERSE,
) -> bytes:
    """The body of a message about an address (``struct ifaddrmsg``)."""
    return _ADDRESS.pack(family, prefix_length, flags, scope, index) + b"".join(parts)


def read_address(body: bytes) -> tuple[int, int, dict[int, bytes]]:
    """An address' interface index, prefix length and attributes."""
    _, prefix_length, _, _, index = _ADDRESS.unpack_from(body)
    return index, prefix_length, attributes(body[_ADDRESS.size :])


def route(
    *parts: bytes,
    prefix_length: int = 0,
    kind: int = RTN_UNICAST,
    protocol: int = RTPROT_STATIC,
    table: int = RT_TABLE_MAIN,
    family: int = socket.AF_INET,
    scope: int = RT_SCOPE_UNIVERSE,
    flags: int = 0,
) -> bytes:
    """The body of a message about a route (``struct rtmsg``)."""
    fields = (family, prefix_length, 0, 0, table, protocol, scope, kind, flags)
    return _ROUTE.pack(*fields) + b"".join(parts)


def read_route(body: bytes) -> tuple[int, int, int, dict[int, bytes]]:
    """A route's prefix length, table, kind and attributes."""
    _, prefix_length, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(body)
    found = attributes(body[_ROUTE.size :])
    if RTA_TABLE in found:
        (table,) = struct.unpack("=I", found[RTA_TABLE])
    return prefix_length, table, kind, found


def route_protocol(body: bytes) -> int:
    """Who made a route."""
    return int(_ROUTE.unpack_from(body)[5])


def neighbour(
    *parts: bytes, index: int, family: int, state: int = NUD_PERMANENT, flags: int = 0
) -> bytes:
    """The body of a message about a neighbour, or what is behind a port (``struct ndmsg``)."""
    return _NEIGHBOUR.pack(family, index, state, flags, 0) + b"".join(parts)


def read_neighbour(body: bytes) -> tuple[int, int, dict[int, bytes]]:
    """A neighbour's interface index, its state and its attributes."""
    _, index, state, _, _ = _NEIGHBOUR.unpack_from(body)
    return index, state, attributes(body[_NEIGHBOUR.size :])


def netfilter(*parts: bytes, family: int = socket.AF_UNSPEC) -> bytes:
    """The body of a message of netfilter (``struct nfgenmsg``)."""
    return _NETFILTER.pack(family, 0, 0) + b"".join(parts)


def read_netfilter(body: bytes) -> dict[int, bytes]:
    """The attributes of a message of netfilter."""
    return attributes(body[_NETFILTER.size :])


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """A whole message."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The messages in ``data`` as (kind, sequence, body)."""
    return ((kind, sequence, body) for kind, _, sequence, body in _flagged(data))


def _flagged(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """The messages in ``data`` as (kind, flags, sequence, body)."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
        offset += _aligned(length)


# A list is asked for so often while others change it.
_ATTEMPTS = 100
# The answers to so many changes fit into the socket.
_AT_ONCE = 64


class Connection:
    """A netlink socket in the network namespace of the thread that makes it; a context manager."""

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol
        )
        self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def change(self, kind: int, body: bytes, flags: int = 0) -> None:
        """Have the kernel change something.

        Raises:
            OSError: with the kernel's error number.
        """
        self._send(kind, NLM_F_ACK | flags, body)
        for _ in self._answers():
            continue

    def change_all(self, changes: Sequence[tuple[int, bytes, int]]) -> None:
        """Have the kernel make several changes (kind, body, flags), in this order.

        Raises:
            OSError: the first that the kernel refused; those after it may have been made.
        """
        for start in range(0, len(changes), _AT_ONCE):
            self._change_some(changes[start : start + _AT_ONCE])

    def _change_some(self, changes: Sequence[tuple[int, bytes, int]]) -> None:
        data = b""
        first = self._sequence + 1
        for kind, body, flags in changes:
            self._sequence += 1
            made = message(kind, NLM_F_REQUEST | NLM_F_ACK | flags, self._sequence, body)
            data += made + bytes(-len(made) % 4)
        self._socket.send(data)
        refused = 0
        missing = set(range(first, self._sequence + 1))
        while missing:
            for kind, sequence, body in messages(self._socket.recv(1 << 20)):
                if kind == NLMSG_ERROR and sequence in missing:
                    missing.discard(sequence)
                    (number,) = _ERROR.unpack_from(body)
                    refused = refused or -number
        if refused:
            raise OSError(refused, os.strerror(refused))

    def ask(self, kind: int, body: bytes, flags: int = 0) -> list[bytes]:
        """The bodies of the kernel's answer; with ``NLM_F_DUMP`` of all there are.

        A list that changed while it was told may lack what was there all the time, and is asked for
        again.

        Raises:
            OSError: with the kernel's error number.
        """
        if flags & NLM_F_DUMP != NLM_F_DUMP:
            self._send(kind, flags | NLM_F_ACK, body)
            return list(self._answers())
        for _ in range(_ATTEMPTS):
            self._send(kind, flags, body)
            with contextlib.suppress(InterruptedError):
                return list(self._answers())
        raise InterruptedError(errno.EINTR, "the list changes all the time")

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        self._socket.send(message(kind, NLM_F_REQUEST | flags, self._sequence, body))

    def _answers(self) -> Iterator[bytes]:
        interrupted = False
        while True:
            for kind, flags, sequence, body in _flagged(self._socket.recv(1 << 20)):
                if sequence != self._sequence:
                    continue
                interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
                if kind == NLMSG_DONE:
                    if interrupted:
                        raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
                    return
                if kind == NLMSG_ERROR:
                    (number,) = _ERROR.unpack_from(body)
                    if number:
                        raise OSError(-number, os.strerror(-number))
                    return
                yield body
