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
import select
import socket
import sys
import termios

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_request import BaseRequest

from wherry.host.readiness import readable


class _TakenResponse(web.Response):
    """Stands for the answer that was already written by hand."""

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


class HijackedStream:
    """Both directions of a connection that HTTP no longer owns."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.response: web.Response = _TakenResponse()

    async def read(self, limit: int = 1 << 18) -> bytes:
        """Up to ``limit`` bytes from the client; ``b""`` once it has closed its sending half."""
        return await self.reader.read(limit)

    async def write(self, data: bytes) -> None:
        """Send ``data`` and wait until the connection takes more.

        Raises:
            ConnectionError: the client has gone.
        """
        self.writer.write(data)
        await self.writer.drain()

    def write_eof(self) -> None:
        """Close our sending half where the transport can (TLS cannot)."""
        if self.writer.can_write_eof() and not self.writer.is_closing():
            self.writer.write_eof()

    async def taken(self) -> None:
        """Return when a client on a unix socket has read all that was sent, or after a second.

        Each time it reads, the kernel tells those who poll edge-triggered that there is more room.
        """
        await asyncio.sleep(0)  # the transport sends at the end of the loop's turn
        connection = self.writer.get_extra_info("socket")
        if connection is None or connection.family != socket.AF_UNIX:
            return
        descriptor = connection.fileno()
        if descriptor < 0:
            return
        with select.epoll(1) as watch, contextlib.suppress(TimeoutError):
            watch.register(descriptor, select.EPOLLOUT | select.EPOLLET)
            async with asyncio.timeout(1.0):
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
        connection = self.writer.get_extra_info("socket")
        if connection is None:
            await asyncio.get_running_loop().create_future()  # for ever: nobody can tell
        if connection.fileno() < 0:
            return
        with select.epoll(1) as watch:
            watch.register(connection.fileno(), 0)
            await readable(watch.fileno())

    async def close(self) -> None:
        """Send what is buffered, then close."""
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except (ConnectionError, OSError):
            return


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
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20, loop=loop)
    stream_protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    early = protocol._message_tail
    protocol._message_tail = b""
    transport.set_protocol(stream_protocol)
    stream_protocol.connection_made(transport)
    if early:
        reader.feed_data(early)
    # aiohttp pauses a connection while a handler owns the request; the stream needs it to flow.
    if not transport.is_reading():
        transport.resume_reading()
    writer = asyncio.StreamWriter(transport, stream_protocol, reader, loop)
    writer.write(head)
    return HijackedStream(reader, writer)
