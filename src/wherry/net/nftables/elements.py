"""Elements of nftables' sets and maps, many at a time, in the kernel's own words.

nft's text is what rules are written in, and what an element a day is best written in. A service
proxy moves tens of thousands: to print, parse and check them would take most of a second, and
longer for the next one the more there are. So they go into the kernel as the messages of
linux/netfilter/nf_tables.h, and come out of it as such: what lies in a map after a restart can be
compared with what should, byte by byte.

Tables, chains and rules are made by ``nft``. Everything here is blocking.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from wherry.net import netlink
from wherry.net.netlink import (
    NETLINK_NETFILTER,
    NLA_F_NESTED,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    attribute,
    nested,
)
from wherry.net.nftables.expressions import FAMILIES, SUBSYSTEM, Chain
from wherry.net.nftables.nft import NftError

_DELETE_TABLE, _GET_CHAIN = SUBSYSTEM << 8 | 2, SUBSYSTEM << 8 | 4
_ONLY_EMPTY = 0x100  # NLM_F_NONREC
_NEW, _GET, _DELETE = (SUBSYSTEM << 8 | number for number in (12, 13, 14))
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_BATCH_HEADER = struct.Struct(">BBH")

_CHAIN_TABLE, _CHAIN_NAME = 1, 3
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_LIST_ELEMENT = 1
_KEY, _DATA, _KEY_END = 1, 2, 10
_VALUE, _VERDICT = 1, 2
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2
_GOTO = -4

# An attribute's length is 16 bits; a list of this many elements stays below it.
_AT_ONCE = 400
_SO_SNDBUFFORCE = 32  # Python has no name for it


class Element(NamedTuple):
    """One element: where it is, its key, and what a map says at that key.

    Keys and values are in the kernel's form, each part of a concatenation padded to four bytes. A
    value that is text is a verdict: the chain to go to. ``end`` makes the key the first of a range.
    """

    family: str  # ip, ip6
    container: str
    key: bytes
    value: bytes | str = b""
    end: bytes = b""


class Table:
    """The elements of the tables of one name, of either family."""

    def __init__(self, name: str) -> None:
        self._name = name
        # Kept open: after a deletion the kernel lets a socket go only when nobody can see what was
        # deleted any more, tens of milliseconds later.
        self._socket: socket.socket | None = None

    def change(
        self,
        deleted: Iterable[Element],
        added: Iterable[Element],
        chains: Iterable[Chain] = (),
    ) -> None:
        """Make chains, take elements out and put others in, as one transaction (blocking).

        Raises:
            NftError: nothing was changed.
        """
        parts = [message for chain in chains for message in chain.messages(self._name)]
        parts += self._messages(_DELETE, 0, deleted)
        parts += self._messages(_NEW, NLM_F_CREATE, added)
        if not parts:
            return
        batch = [_batch(_BATCH_BEGIN, 0)]
        for sequence, (kind, flags, body) in enumerate(parts, 1):
            last = NLM_F_ACK if sequence == len(parts) else 0
            flags |= netlink.NLM_F_REQUEST | last
            batch.append(netlink.message(kind, flags, sequence, body))
        batch.append(_batch(_BATCH_END, len(parts) + 1))
        if self._socket is None:
            self._socket = _open()
        bodies = {sequence: body for sequence, (_, _, body) in enumerate(parts, 1)}
        _transact(self._socket, b"".join(batch), bodies)

    def remove_empty(self, family: str) -> None:
        """Take the table away if nothing is in it (blocking)."""
        body = netlink.netfilter(attribute(1, self._name), family=FAMILIES[family])
        flags = netlink.NLM_F_REQUEST | NLM_F_ACK | _ONLY_EMPTY
        batch = _batch(_BATCH_BEGIN, 0) + netlink.message(_DELETE_TABLE, flags, 1, body)
        # There may be none, or something in it.
        with contextlib.suppress(NftError), contextlib.closing(_open()) as connection:
            _transact(connection, batch + _batch(_BATCH_END, 2), {1: body})

    def close(self) -> None:
        """Let the socket go."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _messages(
        self, kind: int, flags: int, elements: Iterable[Element]
    ) -> Iterator[tuple[int, int, bytes]]:
        by_container: dict[tuple[str, str], list[Element]] = {}
        for element in elements:
            by_container.setdefault((element.family, element.container), []).append(element)
        for (family, container), listed in by_container.items():
            head = self._container(family, container)
            with_value = kind == _NEW
            for start in range(0, len(listed), _AT_ONCE):
                some = listed[start : start + _AT_ONCE]
                body = b"".join([_encoded(element, with_value) for element in some])
                yield kind, flags, head + attribute(_LIST_ELEMENTS | NLA_F_NESTED, body)

    def _container(self, family: str, container: str) -> bytes:
        named = attribute(_LIST_TABLE, self._name), attribute(_LIST_SET, container)
        return netlink.netfilter(*named, family=FAMILIES[family])

    def read(self, family: str, container: str) -> list[Element]:
        """What a set or map holds; nothing where there is none (blocking).

        Raises:
            OSError: the kernel refuses.
        """
        found = []
        for body in _ask(_GET, self._container(family, container)):
            values = netlink.read_netfilter(body)
            for kind, data in _listed(values.get(_LIST_ELEMENTS, b"")):
                if kind == _LIST_ELEMENT:
                    found.append(_decoded(family, container, data))
        return found

    def chains(self, family: str) -> set[str]:
        """The names of the chains; none where there is no such table (blocking).

        Raises:
            OSError: the kernel refuses.
        """
        found = set()
        for body in _ask(_GET_CHAIN, netlink.netfilter(family=FAMILIES[family])):
            values = netlink.read_netfilter(body)
            if values.get(_CHAIN_TABLE, b"").rstrip(b"\0").decode() == self._name:
                found.add(values[_CHAIN_NAME].rstrip(b"\0").decode())
        return found


def _ask(kind: int, body: bytes) -> list[bytes]:
    with netlink.Connection(NETLINK_NETFILTER) as connection:
        try:
            return connection.ask(kind, body, NLM_F_DUMP)
        except FileNotFoundError:
            return []


def _batch(kind: int, sequence: int) -> bytes:
    body = _BATCH_HEADER.pack(socket.AF_UNSPEC, 0, SUBSYSTEM)
    return netlink.message(kind, netlink.NLM_F_REQUEST, sequence, body)


def _open() -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    opened = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
    opened.bind((0, 0))
    return opened


def _transact(connection: socket.socket, batch: bytes, bodies: Mapping[int, bytes]) -> None:
    # A batch must be sent whole.
    connection.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, len(batch) + (1 << 16))
    connection.send(batch)
    done, fault = False, ""
    while True:
        # All answers are there when the sending has come back.
        try:
            data = connection.recv(1 << 20, socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
        for kind, sequence, body in netlink.messages(data):
            if kind != netlink.NLMSG_ERROR:
                continue
            (number,) = struct.unpack_from("=i", body)
            if number and not fault:
                fault = f"{os.strerror(-number)} ({_place(bodies.get(sequence, b''))})"
            done = True
    if not done:
        raise NftError(os.strerror(errno.EAGAIN))
    if fault:
        raise NftError(fault)


def _place(body: bytes) -> str:
    """What a refused message was about."""
    values = netlink.read_netfilter(body)
    words = (values.get(kind, b"").rstrip(b"\0").decode() for kind in (_LIST_TABLE, _LIST_SET))
    return " ".join(filter(None, words)) or "the transaction"


# ---- one element as bytes

_KEY_HEAD = struct.Struct("=HHHHHH")
_DATA_HEAD = struct.Struct("=HHHH")


def _encoded(element: Element, with_value: bool) -> bytes:
    _, _, key, value, end = element
    rest = b""
    if end:
        rest = nested(_KEY_END | NLA_F_NESTED, attribute(_VALUE, end))
    if value and with_value:
        if isinstance(value, str):
            rest += _verdict(value)
        else:
            size = len(value)
            rest += _DATA_HEAD.pack(8 + size, _DATA | NLA_F_NESTED, 4 + size, _VALUE) + value
    size = len(key)
    return (
        _KEY_HEAD.pack(
            12 + size + len(rest),
            _LIST_ELEMENT | NLA_F_NESTED,
            8 + size,
            _KEY | NLA_F_NESTED,
            4 + size,
            _VALUE,
        )
        + key
        + rest
    )


@functools.lru_cache(1024)
def _verdict(chain: str) -> bytes:
    parts = attribute(_VERDICT_CODE, struct.pack(">i", _GOTO)), attribute(_VERDICT_CHAIN, chain)
    return nested(_DATA | NLA_F_NESTED, nested(_VERDICT | NLA_F_NESTED, *parts))


def _decoded(family: str, container: str, data: bytes) -> Element:
    values = netlink.attributes(data)
    key = netlink.attributes(values[_KEY])[_VALUE]
    end = netlink.attributes(values[_KEY_END])[_VALUE] if _KEY_END in values else b""
    value: bytes | str = b""
    if _DATA in values:
        said = netlink.attributes(values[_DATA])
        if _VALUE in said:
            value = said[_VALUE]
        else:
            verdict = netlink.attributes(said[_VERDICT])
            value = verdict[_VERDICT_CHAIN].rstrip(b"\0").decode()
    return Element(family, container, key, value, end)


def _listed(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes in ``data``, also where there are several of one kind."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


# ---- parts of keys and values


def address(text: str) -> bytes:
    """An address of either family."""
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def number(value: int) -> bytes:
    """A packet's mark, which is in the machine's order."""
    return struct.pack("=I", value)


def read_number(value: bytes) -> int:
    """Undo ``number``."""
    read: int = struct.unpack("=I", value)[0]
    return read


def port(value: int) -> bytes:
    """A port, in the network's order."""
    return struct.pack(">Hxx", value)


def protocol(value: int) -> bytes:
    """A transport's number."""
    return struct.pack("=Bxxx", value)
