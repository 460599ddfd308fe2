"""Asking a name server: a question goes as it is, and what answers another one does not count.

(RFC 1035, section 4.2)
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

from wherry.wire.dns import belongs

_LENGTH = struct.Struct("!H")
_LARGEST = 65535

Opened = Callable[[socket.SocketKind, int], socket.socket]
"""Makes a socket that does not block, of a kind and a family."""


def here(kind: socket.SocketKind, family: int) -> socket.socket:
    """A socket in the network namespace of the process."""
    return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


async def ask(
    query: bytes, server: tuple[str, int], *, datagram: bool, opened: Opened = here
) -> bytes:
    """What ``server`` (address, port) answers to ``query``; give it a time.

    Raises:
        OSError, EOFError: it cannot be reached, or breaks off.
    """
    kind = socket.SOCK_DGRAM if datagram else socket.SOCK_STREAM
    loop = asyncio.get_running_loop()
    # Numeric, so that this asks nobody; it knows what "%eth0" behind an address means.
    [(family, _, _, _, address), *_] = socket.getaddrinfo(
        server[0], server[1], type=kind, flags=socket.AI_NUMERICHOST
    )
    # A socket of its own for every query: its port is one that nobody can guess.
    with opened(kind, family) as asking:
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
