"""Take an HTTP connection over from aiohttp and use it as a plain stream of bytes.

Docker's attach and exec, and Kubernetes' exec, attach and port-forward over SPDY, begin as an HTTP
request and go on as a protocol of their own on the same connection (RFC 9110, section 7.8). The
handler must stay in its coroutine until the stream has ended, then return ``stream.response``:
aiohttp then closes the connection and writes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import socket
import sys
import termios
from collections import deque

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_request import BaseRequest

from wherry.host.readiness import readable

# So many bytes from a client may wait for their reader.
_WAITING = 1 << 18
_LEAST_READ = 1 << 14
# Seconds in which a client may take what it was sent.
_PATIENCE = 1.0


class _TakenResponse(web.Response):
    """Stands for the answer that was already written by hand."""

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


class HijackedStream(asyncio.Protocol):
    """Both directions of a connection that HTTP, or whoever owned it, no longer owns.

    ``early`` is what its former owner has received and not used; ``half_closes`` says whether the
    transport can go on writing when the other side has ended.

    What arrives is handed on in the pieces in which it came, without being copied again; whoever
    does not read in time, or a peer that does not, holds the other side up.
    """

    def __init__(
        self, transport: asyncio.Transport, early: bytes, *, half_closes: bool = True
    ) -> None:
        self._half_closes = half_closes
        self.response: web.Response = _TakenResponse()
        self._transport = transport
        self._pieces: deque[bytes] = deque([early] if early else ())
        self._waiting = len(early)
        self._ended = False
        self._error: Exception | None = None
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None  # there while the transport takes no more
        self._secured = transport.get_extra_info("ssl_object") is not None
        transport.set_protocol(self)

    # ---- what the transport tells

    def data_received(self, data: bytes) -> None:
        """Keep it for ``read``."""
        self._pieces.append(data)
        self._waiting += len(data)
        if self._waiting > _WAITING:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """The client sends no more; we may, where the transport can."""
        self._ended = True
        self._wake()
        return self._half_closes

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing goes any more, in either direction."""
        self._ended, self._error = True, exc
        self._closed.set_result(None)
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        """Enough is buffered."""
        self._room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """There is room again, or there will never be."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    # ---- what its user asks

    def hand_over(self, protocol: asyncio.BaseProtocol) -> list[bytes]:
        """Give the connection to ``protocol``, which must be told first what is returned here."""
        pieces = [*self._pieces]
        self._pieces.clear()
        self._transport.set_protocol(protocol)
        if self._waiting > _WAITING and not self._ended:
            self._transport.resume_reading()
        return pieces

    async def read(self) -> bytes:
        """Some bytes from the client; ``b""`` once it has closed its sending half.

        Raises:
            ConnectionError: the connection broke.
        """
        while not self._pieces:
            if self._error is not None:
                raise ConnectionResetError("the client's connection broke") from self._error
            if self._ended:
                return b""
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data = self._pieces.popleft()
        before = self._waiting
        self._waiting -= len(data)
        if self._waiting <= _WAITING < before and not self._ended:
            self._transport.resume_reading()
        return data

    async def write(self, *pieces: bytes | memoryview) -> None:
        """Send ``pieces``, one behind the other, and wait until the connection takes more.

        Raises:
            ConnectionError: the client has gone.
        """
        if self._closed.done() or self._transport.is_closing():
            raise ConnectionResetError("the client closed the connection")
        if self._secured and len(pieces) > 1:
            self._transport.write(b"".join(pieces))  # each piece would be a TLS record of its own
        else:
            self._transport.writelines(pieces)
        while self._room is not None:
            await asyncio.shield(self._room)
        if self._closed.done():
            raise ConnectionResetError("the client closed the connection")

    async def taken(self) -> None:
        """Return when a client on a unix socket has read all that was sent, or after a while.

        Each time it reads, the kernel tells those who poll edge-triggered that there is more room.
        """
        await asyncio.sleep(0)  # the transport sends at the end of the loop's turn
        connection = self._transport.get_extra_info("socket")
        if connection is None or connection.family != socket.AF_UNIX:
            return
        descriptor = connection.fileno()
        if descriptor < 0:
            return
        with select.epoll(1) as watch, contextlib.suppress(TimeoutError):
            watch.register(descriptor, select.EPOLLOUT | select.EPOLLET)
            async with asyncio.timeout(_PATIENCE):
                while connection.fileno() == descriptor:
                    watch.poll(0)
                    if not _unread(descriptor):
                        return
                    await readable(watch.fileno())

    async def gone(self) -> None:
        """Return when the client has closed the connection, or when it has broken off.

        A client that has only ended its sending half is still there, and reads. The kernel tells
        the two apart with a hang-up (poll(2)) for those who ask for no event at all, which is what
        a poll object of its own does here. Over TCP a close looks like the end of the sending half,
        until something is sent.
        """
        connection = self._transport.get_extra_info("socket")
        if connection is None:
            await asyncio.shield(self._closed)  # nobody else can tell
        elif connection.fileno() >= 0:
            with select.epoll(1) as watch:
                watch.register(connection.fileno(), 0)
                await readable(watch.fileno())

    def abort(self) -> None:
        """Close at once, whatever is buffered."""
        self._transport.abort()

    def finish(self) -> None:
        """End our sending half."""
        if not self._transport.is_closing() and self._transport.can_write_eof():
            self._transport.write_eof()

    async def close(self) -> None:
        """Send what is buffered, then close."""
        self._transport.close()
        await asyncio.shield(self._closed)


class _End(asyncio.BufferedProtocol):
    """One end of two connections that are joined: what arrives goes to the other at once."""

    def __init__(self, stream: HijackedStream, ended: asyncio.Future[None]) -> None:
        self.transport = stream._transport
        self.stream = stream  # takes the connection back at the end
        self.other: _End | None = None
        self._ended = ended
        self._buffer = bytearray()

    def get_buffer(self, sizehint: int) -> bytearray:
        # A new one each time: the former may still wait to be sent.
        self._buffer = bytearray(min(max(sizehint, _LEAST_READ), _WAITING))
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            whole = nbytes == len(self._buffer)
            self.other.transport.write(self._buffer if whole else memoryview(self._buffer)[:nbytes])

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def eof_received(self) -> bool:
        self._end()
        return self.stream.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self.stream.connection_lost(exc)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)


async def join(one: HijackedStream, other: HijackedStream) -> None:
    """Carry bytes both ways until either side sends no more; both are to be closed then.

    Neither task nor queue lies between them: each piece is written where it is read, and who does
    not take it stops the reading.
    """
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    first, second = _End(one, ended), _End(other, ended)
    for end, peer in ((first, second), (second, first)):
        end.other = peer
        for piece in end.stream.hand_over(end):
            peer.transport.write(piece)
        if end.stream._ended:
            end._end()
    for end in (first, second):
        if end.stream._room is not None:
            end.pause_writing()
    try:
        await ended
    finally:
        for end in (first, second):
            end.other = None
            if not end.stream._closed.done():
                end.transport.set_protocol(end.stream)


async def client_gone(request: BaseRequest) -> None:
    """Return when the client of ``request`` has closed its connection.

    For answers that may be silent for long: nobody else notices before something is sent.
    """
    transport = request.transport
    connection = transport.get_extra_info("socket") if transport is not None else None
    if connection is None or connection.fileno() < 0:
        return
    # One of our own: the transport may close its descriptor for what TLS says, before the kernel
    # has anything to tell.
    descriptor = os.dup(connection.fileno())
    try:
        with select.epoll(1) as watch:
            watch.register(descriptor, select.EPOLLRDHUP)
            await readable(watch.fileno())
    finally:
        os.close(descriptor)


class _Waiting(asyncio.Protocol):
    """Keeps what comes before the stream has taken over."""

    def __init__(self) -> None:
        self.early = b""
        self.ended = False

    def data_received(self, data: bytes) -> None:
        self.early += data

    def eof_received(self) -> bool:
        self.ended = True
        return True


def take_over(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> HijackedStream:
    """A connection of asyncio's streams as such a stream, with what they have received."""
    early = bytes(reader._buffer)  # type: ignore[attr-defined]
    ended = reader.at_eof()
    plain = writer.get_extra_info("ssl_object") is None  # TLS of the event loop ends both ways
    stream = HijackedStream(writer.transport, early, half_closes=plain)  # type: ignore[arg-type]
    if reader._paused:  # type: ignore[attr-defined]
        writer.transport.resume_reading()  # type: ignore[attr-defined]
    if ended or reader._eof:  # type: ignore[attr-defined]
        stream.eof_received()
    return stream


async def adopt(connection: socket.socket) -> HijackedStream:
    """A connected socket as such a stream, which closes it."""
    loop = asyncio.get_running_loop()
    transport, waiting = await loop.create_connection(_Waiting, sock=connection)
    stream = HijackedStream(transport, waiting.early)
    if waiting.ended:
        stream.eof_received()
    return stream


def _unread(descriptor: int) -> int:
    """How much memory that holds what the other side of a unix socket has not read."""
    answer = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(answer, sys.byteorder)


def hijack(request: BaseRequest, head: bytes) -> HijackedStream:
    """Answer ``request`` with the raw ``head`` (status line, headers, empty line) and take over.

    Bytes the client sent behind its request are the first that the stream reads.

    Raises:
        ConnectionResetError: the client has already gone.
    """
    protocol = request.protocol
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client closed the connection")
    early = protocol._message_tail
    protocol._message_tail = b""
    stream = HijackedStream(transport, early)
    # aiohttp pauses a connection while a handler owns the request; the stream needs it to flow.
    if not transport.is_reading():
        transport.resume_reading()
    transport.write(head)
    return stream
