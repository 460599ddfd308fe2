"""Other servers are asked for other names, and what they say is kept for as long as they allow.

A question goes on byte for byte, by the transport it came by; every question has a socket of its
own, so that its port and id cannot be guessed. How many are under way is bounded.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import struct
import time
from collections import OrderedDict
from collections.abc import Sequence

from wherry.kube.dns.messages import lifetimes
from wherry.kube.dns.settings import Server

log = logging.getLogger(__name__)

TIMEOUT = 2.0  # seconds for each server
ATTEMPTS = 3
UNDER_WAY = 512
AVOIDED = 10.0  # seconds, after a server did not answer, if there are others
KEPT = 10_000
LONGEST_KEPT, LONGEST_KEPT_WITHOUT = 3600, 30  # seconds: an answer, and that there is none
_LENGTH = struct.Struct("!H")
_HEADER_SIZE = 12
_LARGEST = 65535


class Overloaded(Exception):
    """Too many questions are under way."""


class Memory:
    """Answers of others, with the time until which each may be given again."""

    def __init__(self, size: int = KEPT) -> None:
        self._size = size
        self._kept: OrderedDict[bytes, tuple[bytes, list[int], float, float]] = OrderedDict()

    def get(self, key: bytes, id: bytes) -> bytes | None:
        """The answer to the question ``key`` (all but its id), with its TTLs as they are now."""
        found = self._kept.get(key)
        if found is None:
            return None
        data, places, since, until = found
        now = time.monotonic()
        if now >= until:
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        age = int(now - since)
        reply = bytearray(data)
        reply[:2] = id
        for place in places:
            left = int.from_bytes(reply[place : place + 4], "big") - age
            reply[place : place + 4] = max(0, left).to_bytes(4, "big")
        return bytes(reply)

    def put(self, key: bytes, data: bytes) -> None:
        """Keep an answer for as long as its records say."""
        try:
            places, ttl = lifetimes(data)
        except ValueError:
            return
        answered = data[6:8] != b"\0\0"
        ttl = min(ttl, LONGEST_KEPT if answered else LONGEST_KEPT_WITHOUT)
        if ttl <= 0:
            return
        now = time.monotonic()
        self._kept[key] = data, places, now, now + ttl
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        self._kept.clear()


class Forwarder:
    """Asks other servers; equal questions that come together are asked once."""

    def __init__(self) -> None:
        self.memory = Memory()
        self._asked: dict[tuple[bytes, bool], asyncio.Task[bytes | None]] = {}
        self._avoided: dict[Server, float] = {}

    async def ask(self, query: bytes, servers: Sequence[Server], *, datagram: bool) -> bytes | None:
        """The answer, or None where nobody gives one.

        Raises:
            Overloaded: too many questions are under way.
        """
        key = query[2:]
        if datagram and (kept := self.memory.get(key, query[:2])) is not None:
            return kept
        task = self._asked.get((key, datagram))
        if task is None:
            if len(self._asked) >= UNDER_WAY:
                raise Overloaded
            task = asyncio.ensure_future(self._ask_servers(query, servers, datagram=datagram))
            self._asked[key, datagram] = task
            task.add_done_callback(lambda _: self._asked.pop((key, datagram), None))
        reply = await asyncio.shield(task)
        return None if reply is None else query[:2] + reply[2:]

    async def _ask_servers(
        self, query: bytes, servers: Sequence[Server], *, datagram: bool
    ) -> bytes | None:
        # An id of our own: the client's may be known to who wants to answer in another's place.
        own = random.SystemRandom().randbytes(2) + query[2:]
        now = time.monotonic()
        servers = sorted(servers, key=lambda server: self._avoided.get(server, 0.0) > now)
        tried = 0
        refused: bytes | None = None
        while servers and tried < max(ATTEMPTS, len(servers)):
            server = servers[tried % len(servers)]
            tried += 1
            try:
                async with asyncio.timeout(TIMEOUT):
                    reply = await _ask(own, server, datagram=datagram)
            except (OSError, EOFError, TimeoutError) as error:
                log.debug("name server %s: %s", server[0], error or type(error).__name__)
                self._avoided[server] = time.monotonic() + AVOIDED
                continue
            self._avoided.pop(server, None)
            if reply[3] & 0xF in (0, 3):
                if datagram:
                    self.memory.put(query[2:], reply)
                return reply
            refused = reply
            if tried >= len(servers):
                break
        return refused

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = list(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _ask(query: bytes, server: Server, *, datagram: bool) -> bytes:
    kind = socket.SOCK_DGRAM if datagram else socket.SOCK_STREAM
    loop = asyncio.get_running_loop()
    # Numeric, so that this asks nobody.
    [(family, _, _, _, address), *_] = socket.getaddrinfo(
        server[0], server[1], type=kind, flags=socket.AI_NUMERICHOST
    )
    flags = kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with socket.socket(family, flags) as asking:
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
    """Whether ``reply`` answers ``query``: the same id, and the same question where it has one."""
    if len(reply) < _HEADER_SIZE or reply[:2] != query[:2] or not reply[2] & 0x80:
        return False
    if reply[4:6] == b"\0\0":
        return True
    end = _HEADER_SIZE
    while end < len(query) and query[end]:
        end += query[end] + 1
    end += 5  # the root, the type, the class
    return reply[_HEADER_SIZE:end].lower() == query[_HEADER_SIZE:end].lower()
