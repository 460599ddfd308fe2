"""Ports that the kernel cannot lead to a container: this process passes their traffic on.

For a container there are two. What this machine sends to ::1 may not leave by another link and come
back (the kernel takes ::1 from no link but the loopback, translated or not). And a port of IPv6
cannot lead to a container that has IPv4 alone. Everything else is translated by the kernel
(``firewall``) and goes on when this process ends; what is relayed ends with it. A service proxy in
mode userspace relays everything (``service.userspace``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Collection, Sequence
from typing import Any, cast

log = logging.getLogger(__name__)

Address = tuple[str, int]
# Where to lead a client, by its address: what to try, one after the other.
Targets = Callable[[str], Sequence[Address]]
_CHUNK = 1 << 16
# How long to try each of several, in seconds; the last one as long as the kernel does.
_PATIENCE = 1.0
# As long as Docker keeps a client of UDP that says nothing, in seconds.
IDLE = 90.0
# Clients of UDP that a port has at once, each with a socket; one more ends the oldest one's.
MOST_CLIENTS = 4096


class Relay:
    """Passes on what arrives at ``bound``, a socket that listens or takes datagrams.

    ``idle`` is how many seconds a client of UDP is remembered that says nothing.
    """

    def __init__(self, bound: socket.socket, targets: Targets, *, idle: float = IDLE) -> None:
        self._bound = bound
        self._targets = targets
        self._idle = idle
        self._front: _Front | None = None
        self._server: asyncio.Server | None = None
        self._transport: asyncio.DatagramTransport | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Begin to pass on."""
        loop = asyncio.get_running_loop()
        # The socket is ours to close; what serves it gets its own.
        own = self._bound.dup()
        own.setblocking(False)
        if own.type == socket.SOCK_STREAM:
            self._server = await asyncio.start_server(self._accept, sock=own)
        else:
            self._transport, self._front = await loop.create_datagram_endpoint(
                lambda: _Front(self._targets, self._idle), sock=own
            )

    def keep(self, targets: Collection[Address]) -> None:
        """End the flows of datagrams that lead elsewhere than to ``targets``."""
        if self._front is not None:
            self._front.keep(targets)

    def close(self) -> None:
        """End what is passed on now as well."""
        if self._server is not None:
            self._server.close()
        if self._transport is not None:
            self._transport.close()
        for task in self._connections:
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._connect(reader, writer)
        writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await self._reach(writer)
        try:
            await asyncio.gather(_pump(reader, back), _pump(there, writer))
        finally:
            back.close()

    async def _reach(
        self, client: asyncio.StreamWriter
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        name = client.get_extra_info("peername")
        targets = self._targets(name[0] if name else "")
        for target in targets[:-1]:
            with contextlib.suppress(OSError):  # time-outs are such
                async with asyncio.timeout(_PATIENCE):
                    return await asyncio.open_connection(*target)
        if not targets:
            raise ConnectionRefusedError
        return await asyncio.open_connection(*targets[-1])


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on everything, and that it has ended."""
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


class _Front(asyncio.DatagramProtocol):
    """Where clients' datagrams arrive: each client gets a socket of its own towards the target."""

    def __init__(self, targets: Targets, idle: float) -> None:
        self._targets = targets
        self.idle = idle
        self._backs: dict[Any, _Back] = {}
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: Any) -> None:
        back = self._backs.get(address)
        if back is None:
            targets = self._targets(address[0])
            if not targets:
                return
            if len(self._backs) >= MOST_CLIENTS:
                next(iter(self._backs.values())).close()
            back = self._backs[address] = _Back(self, address, targets[0])
            back.opening = asyncio.ensure_future(back.open())
        back.pass_on(data)

    def keep(self, targets: Collection[Address]) -> None:
        for back in tuple(self._backs.values()):
            if back.target not in targets:
                back.close()

    def error_received(self, error: Exception) -> None:
        log.debug("a relayed port: %s", error)

    def connection_lost(self, error: Exception | None) -> None:
        for back in tuple(self._backs.values()):
            back.close()

    def answer(self, data: bytes, address: Any) -> None:
        """Send a client what the target has answered."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.sendto(data, address)

    def forget(self, address: Any) -> None:
        """A client is gone, or has said nothing for long."""
        self._backs.pop(address, None)


class _Back(asyncio.DatagramProtocol):
    """The way to the target, and back, of one client."""

    def __init__(self, front: _Front, address: Any, target: Address) -> None:
        self._front, self._address, self.target = front, address, target
        self._waiting: list[bytes] = []
        self._transport: asyncio.DatagramTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.opening: asyncio.Future[None] | None = None

    async def open(self) -> None:
        """Connect, and send what has arrived meanwhile."""
        loop = asyncio.get_running_loop()
        try:
            self._transport, _ = await loop.create_datagram_endpoint(
                lambda: self, remote_addr=self.target
            )
        except OSError as error:
            log.debug("a relayed port: %s", error)
            self.close()
            return
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self.pass_on(data)

    def pass_on(self, data: bytes) -> None:
        """Send to the target."""
        self._rest()
        if self._transport is None:
            self._waiting.append(data)
        else:
            self._transport.sendto(data)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._front.idle, self.close)

    def datagram_received(self, data: bytes, address: Any) -> None:
        self._rest()
        self._front.answer(data, self._address)

    def error_received(self, error: Exception) -> None:
        log.debug("a relayed port: %s", error)

    def close(self) -> None:
        """Forget this client."""
        if self._timer is not None:
            self._timer.cancel()
        if self.opening is not None:
            self.opening.cancel()
        if self._transport is not None:
            self._transport.close()
        self._front.forget(self._address)
