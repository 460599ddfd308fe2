"""The sockets: datagrams, and connections with any number of questions each (RFC 7766)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import cast

from wherry.kube.dns.sharing import Shares

log = logging.getLogger(__name__)

CONNECTIONS, OF_ONE_CLIENT = 256, 64
IDLE, READ, WRITE = 10.0, 3.0, 5.0
"""Seconds (as in CoreDNS) that a connection may be silent between questions, in the middle of one,
and not take an answer."""
PIPELINED = 32
"""Questions of one connection that may be under way."""
_ATTEMPTS = 20
_RECEIVE_BUFFER = 4 * 1024 * 1024
_LENGTH = struct.Struct("!H")

Answer = Callable[[bytes, str, bool], bytes | Awaitable[bytes]]
"""What is said to a question, given who asks and whether by a datagram: at once, or after waiting
for others (how many may wait is its own matter). Empty for silence."""

Pair = tuple[socket.socket, socket.socket]
"""Of one address: for datagrams, and for connections."""


def bind(addresses: Iterable[str], port: int = 53) -> list[Pair]:
    """Take addresses, which need not be there yet: what is asked from now on waits.

    Port 0 is any that is free.

    Raises:
        OSError: somebody else has the port.
    """
    addresses = tuple(addresses)
    attempts = 1 if port else _ATTEMPTS
    for attempt in range(attempts):
        try:
            return _bind(addresses, port)
        except OSError as error:
            # One that is free for datagrams need not be free for connections.
            if error.errno != errno.EADDRINUSE or attempt == attempts - 1:
                raise
    raise AssertionError("unreachable")


def _bind(addresses: Iterable[str], port: int) -> list[Pair]:
    pairs: list[Pair] = []
    try:
        for address in addresses:
            datagrams = _bound(address, port, socket.SOCK_DGRAM)
            with contextlib.suppress(OSError):
                datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            port = datagrams.getsockname()[1]
            try:
                pairs.append((datagrams, _bound(address, port, socket.SOCK_STREAM)))
            except OSError:
                datagrams.close()
                raise
    except OSError:
        close(pairs)
        raise
    return pairs


def close(pairs: Iterable[Pair]) -> None:
    """Give them back."""
    for pair in pairs:
        for bound in pair:
            bound.close()


class Listener:
    """Serves the questions that come to sockets."""

    def __init__(self, sockets: Sequence[Pair], answer: Answer) -> None:
        self._answer = answer
        self._transports: list[asyncio.DatagramTransport] = []
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: Shares[asyncio.StreamWriter] = Shares(CONNECTIONS, OF_ONE_CLIENT)
        self._sockets = list(sockets)

    async def open(self) -> None:
        """Begin to answer."""
        loop = asyncio.get_running_loop()
        for datagrams, connections in self._sockets:
            transport, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self), sock=datagrams
            )
            self._transports.append(transport)
            self._servers.append(await asyncio.start_server(self._connected, sock=connections))

    async def close(self) -> None:
        """Stop, and give up what is under way."""
        for transport in self._transports:
            transport.close()
        for server in self._servers:
            server.close()
        self._transports, self._servers = [], []
        close(self._sockets)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- datagrams

    def received(self, data: bytes, sender: tuple[str, int], by: asyncio.DatagramTransport) -> None:
        """A datagram came."""
        reply = self._answer(data, sender[0], True)
        if not isinstance(reply, bytes):
            self._start(self._later(reply, sender, by))
        elif reply:
            by.sendto(reply, sender)

    async def _later(
        self, reply: Awaitable[bytes], sender: tuple[str, int], by: asyncio.DatagramTransport
    ) -> None:
        data = await reply
        if data and not by.is_closing():
            by.sendto(data, sender)

    def _start(self, work: Awaitable[None]) -> asyncio.Future[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a question was not answered", exc_info=error)

    # -- connections

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        client = str((writer.get_extra_info("peername") or ("",))[0])
        giver = self._connections.who_gives(client)
        if giver is not None and (silent := self._connections.oldest(giver)) is not None:
            self._connections.give(giver, silent)
            silent.transport.abort()
        self._connections.take(client, writer)
        try:
            await self._converse(client, reader, writer)
        except (OSError, EOFError, TimeoutError):
            pass
        finally:
            self._connections.give(client, writer)
            self._tasks.discard(task)
            writer.close()

    async def _converse(
        self, client: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer each question as soon as it can be, whatever the ones before it wait for."""
        under_way: set[asyncio.Future[None]] = set()
        try:
            while not writer.is_closing():
                async with asyncio.timeout(IDLE):
                    (length,) = _LENGTH.unpack(await reader.readexactly(2))
                async with asyncio.timeout(READ):
                    data = await reader.readexactly(length)
                self._connections.renew(client, writer)
                task = self._start(self._reply(self._answer(data, client, False), writer))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                if len(under_way) >= PIPELINED:
                    await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if under_way:
                await asyncio.wait(under_way)

    async def _reply(self, answer: bytes | Awaitable[bytes], writer: asyncio.StreamWriter) -> None:
        reply = answer if isinstance(answer, bytes) else await answer
        if not reply:
            writer.close()
        elif not writer.is_closing():
            writer.write(_LENGTH.pack(len(reply)) + reply)
            try:
                async with asyncio.timeout(WRITE):
                    await writer.drain()
            except (OSError, TimeoutError):
                writer.transport.abort()


def _bound(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """A socket at an address that may come to this machine later."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bound = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(*(_FREEBIND6 if family == socket.AF_INET6 else _FREEBIND), 1)
        bound.bind((address, port))
        if kind is socket.SOCK_STREAM:
            bound.listen(CONNECTIONS)
    except BaseException:
        bound.close()
        raise
    return bound


# IP_FREEBIND and IPV6_FREEBIND, which Python does not name
_FREEBIND, _FREEBIND6 = (socket.SOL_IP, 15), (socket.IPPROTO_IPV6, 78)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._listener.received(data, addr, self._transport)
