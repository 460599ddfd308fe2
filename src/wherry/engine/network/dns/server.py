"""The name server of one container: its sockets, and what becomes of a query."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wherry.engine.network.dns.answers import answer, is_single_label
from wherry.engine.network.dns.forward import Upstream, forward
from wherry.engine.network.dns.zone import Place
from wherry.net import name_sockets
from wherry.wire.dns import Code, Malformed, Question, failure, read

log = logging.getLogger(__name__)

MAX_QUERIES = 1024  # that wait for others, of one container
MAX_CONNECTIONS = 100
IDLE_TIMEOUT = 8.0  # seconds that a connection may wait for its next query
_LENGTH = struct.Struct("!H")


@dataclass(frozen=True, slots=True)
class Forwarding:
    """Whom a container's unknown names are asked of.

    ``allowed`` is False where its networks have no way out; ``single_labels`` where a name without
    a dot is to be tried with the search list first, as the container's own ndots option says.
    """

    upstreams: Sequence[Upstream] = ()
    allowed: bool = True
    single_labels: bool = True


class NameServer:
    """Answers in the network namespace of one container."""

    def __init__(self, namespace: Path, places: Sequence[Place], forwarding: Forwarding) -> None:
        self._namespace = namespace
        self.places = places
        self.forwarding = forwarding
        self._closed = False
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._waiting: set[asyncio.Task[None]] = set()
        self._connections: set[asyncio.Task[None] | None] = set()

    async def open(self) -> None:
        """Begin to answer.

        Raises:
            OSError: there is no such namespace, or the kernel refuses.
            NftError: the kernel refuses the rule.
        """
        datagrams, connections = await asyncio.to_thread(name_sockets.listen, self._namespace)
        try:
            if not self._closed:
                await self._start(datagrams, connections)
        finally:
            if self._closed or self._server is None:
                datagrams.close()
                connections.close()
                self.close()

    async def _start(self, datagrams: socket.socket, connections: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self), sock=datagrams
        )
        self._server = await asyncio.start_server(self._serve, sock=connections)

    def close(self) -> None:
        """Let go of the namespace at once; who waits for an answer gets none."""
        self._closed = True
        if self._transport is not None:
            self._transport.abort()
        if self._server is not None:
            self._server.close()
        for task in (*self._connections, *self._waiting):
            if task is not None:
                task.cancel()

    # ---- queries

    def received(self, data: bytes, client: tuple[str, int]) -> None:
        """A datagram has come."""
        reply = self._answer(data, datagram=True)
        if isinstance(reply, bytes):
            self._send(reply, client)
        elif reply is not None:
            self._spawn(self._reply_later(reply, client))

    def _send(self, reply: bytes, client: tuple[str, int]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(reply, client)

    async def _reply_later(self, asking: Coroutine[Any, Any, bytes], client: Any) -> None:
        self._send(await asking, client)

    def _answer(self, data: bytes, *, datagram: bool) -> bytes | Coroutine[Any, Any, bytes] | None:
        """The answer, or the work that has it in the end; None where there is nothing to say."""
        try:
            question = read(data)
        except Malformed as malformed:
            return malformed.reply
        reply = answer(question, self.places, datagram=datagram)
        if reply is not None:
            return reply
        if not self.forwarding.allowed:
            return failure(question, Code.SERVFAIL)
        if not self.forwarding.single_labels and is_single_label(question):
            return failure(question, Code.NOERROR)
        if len(self._waiting) >= MAX_QUERIES:
            return failure(question, Code.REFUSED)
        return self._ask_others(data, question, datagram=datagram)

    async def _ask_others(self, data: bytes, question: Question, *, datagram: bool) -> bytes:
        upstreams = self.forwarding.upstreams
        reply = await forward(data, upstreams, self._namespace, datagram=datagram)
        return reply or failure(question, Code.SERVFAIL)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    # ---- connections

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        try:
            if len(self._connections) < MAX_CONNECTIONS:
                self._connections.add(task)
                while await self._serve_one(reader, writer):
                    continue
        except (OSError, EOFError, TimeoutError):
            pass  # the client has gone, or wants nothing more
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one query; whether there may be another."""
        async with asyncio.timeout(IDLE_TIMEOUT):
            (length,) = _LENGTH.unpack(await reader.readexactly(2))
            data = await reader.readexactly(length)
        reply = self._answer(data, datagram=False)
        if reply is None:
            return False
        if not isinstance(reply, bytes):
            reply = await reply
        writer.write(_LENGTH.pack(len(reply)) + reply)
        async with asyncio.timeout(IDLE_TIMEOUT):
            await writer.drain()
        return True


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.received(data, addr)
