"""Ask other name servers what ours does not know.

A query goes on byte for byte, by the transport it came by: EDNS0 and truncation stay between the
client and who knows the answer. Nothing is kept.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wherry.net import name_service

log = logging.getLogger(__name__)

TIMEOUT = 4.0  # seconds for each server
MAX_SERVERS = 3
PORT = 53
_LARGEST = 65535
_LENGTH = struct.Struct("!H")
_NOERROR, _NXDOMAIN = 0, 3


@dataclass(frozen=True, slots=True)
class Upstream:
    """A name server; ``from_host`` where only this machine reaches it (its own loopback)."""

    address: str
    from_host: bool = False
    port: int = PORT


async def forward(
    query: bytes,
    upstreams: Sequence[Upstream],
    namespace: Path | None,
    *,
    datagram: bool,
    timeout: float = TIMEOUT,
) -> bytes | None:
    """The best answer of ``upstreams``, asked one after the other from inside ``namespace``.

    As in Docker, the first that knows the name is believed, and an authority that says there is no
    such name; other refusals count only when nobody says better. None where nobody answers.
    """
    best: bytes | None = None
    for upstream in upstreams[:MAX_SERVERS]:
        place = None if upstream.from_host else namespace
        try:
            async with asyncio.timeout(timeout):
                reply = await _ask(query, upstream, place, datagram=datagram)
        except (OSError, EOFError, TimeoutError) as error:
            log.debug("name server %s: %s", upstream.address, error or type(error).__name__)
            continue
        if _final(reply):
            return reply
        best = reply
    return best


def _final(reply: bytes) -> bool:
    code, authoritative = reply[3] & 0xF, bool(reply[2] & 0x4)
    return code == _NOERROR or (code == _NXDOMAIN and authoritative)


async def _ask(
    query: bytes, upstream: Upstream, namespace: Path | None, *, datagram: bool
) -> bytes:
    kind = socket.SOCK_DGRAM if datagram else socket.SOCK_STREAM
    loop = asyncio.get_running_loop()
    # Numeric, so that this asks nobody; it knows what "%eth0" behind an address means.
    [(family, _, _, _, address), *_] = socket.getaddrinfo(
        upstream.address, upstream.port, type=kind, flags=socket.AI_NUMERICHOST
    )
    # A socket of its own for every query: its port is one that nobody can guess.
    with name_service.client(kind, family, namespace) as asking:
        await loop.sock_connect(asking, address)
        if not datagram:
            return await _ask_stream(query, asking)
        await loop.sock_sendall(asking, query)
        while True:
            reply = await loop.sock_recv(asking, _LARGEST)
            if belongs(query, reply):
                return reply


async def _ask_stream(query: bytes, asking: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(asking, _LENGTH.pack(len(query)) + query)
    received = b""
    while len(received) < 2 or len(received) < 2 + _LENGTH.unpack_from(received)[0]:
        data = await loop.sock_recv(asking, _LARGEST)
        if not data:
            raise EOFError("closed the connection")
        received += data
    reply = received[2 : 2 + _LENGTH.unpack_from(received)[0]]
    if not belongs(query, reply):
        raise OSError("answered another question")
    return reply


def belongs(query: bytes, reply: bytes) -> bool:
    """Whether ``reply`` is the answer to ``query``: same id, and same question where it has one."""
    if len(reply) < 12 or reply[:2] != query[:2] or not reply[2] & 0x80:
        return False
    if reply[4:6] == b"\0\0":
        return True
    end = 12
    while end < len(query) and query[end]:
        end += query[end] + 1
    end += 5  # the root, the type, the class
    return reply[12:end].lower() == query[12:end].lower()
