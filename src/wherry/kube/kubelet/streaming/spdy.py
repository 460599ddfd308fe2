"""SPDY/3.1 over a stream of bytes, and remote commands over SPDY."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from wherry.kube.kubelet.streaming.channels import PATIENCE, ClientGone
from wherry.wire.remotecommand import (
    Channel,
    ResizeReader,
    StreamOptions,
    encode_end,
    protocol_version,
)
from wherry.wire.spdy import (
    REFUSED_STREAM,
    DataReceived,
    GoAway,
    PingReceived,
    Session,
    SpdyError,
    StreamOpened,
    StreamReset,
)

MAX_STREAMS = 1024
MAX_BUFFERED = 1 << 20  # bytes of one stream that wait; then the whole connection waits
STREAMS_TIMEOUT = 30.0  # seconds in which a client must have opened the streams of its command


class ByteStream(Protocol):
    """What SPDY runs over."""

    async def read(self) -> bytes:
        """Bytes, ``b""`` at the end."""

    async def write(self, *pieces: bytes | memoryview) -> None:
        """Send, one behind the other; raises ConnectionError where nobody reads."""

    async def close(self) -> None:
        """End it."""


class Stream:
    """One stream of a connection."""

    def __init__(self, connection: Connection, id_: int, headers: Mapping[str, str]) -> None:
        self.id = id_
        self.headers = headers
        self._connection = connection
        self._data: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._finished = False

    async def read(self) -> bytes:
        """The next bytes; ``b""`` when the client ended the stream.

        Raises:
            ClientGone: the connection ended, or the client aborted the stream.
        """
        while not self._data:
            if self._ended:
                return b""
            if self._connection.closed:
                raise ClientGone
            self._arrived.clear()
            await self._arrived.wait()
        data = self._data.popleft()
        self._size -= len(data)
        if self._size < MAX_BUFFERED:
            self._room.set()
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes.

        Raises:
            ClientGone: nobody reads them.
        """
        await self._connection.send(*self._connection.session.pieces(self.id, data))

    async def finish(self) -> None:
        """End our half of the stream."""
        if not self._finished:
            self._finished = True
            with contextlib.suppress(ClientGone):
                await self._connection.send(
                    self._connection.session.data(self.id, b"", finish=True)
                )

    async def reset(self) -> None:
        """Abort the stream."""
        with contextlib.suppress(ClientGone):
            await self._connection.send(self._connection.session.reset(self.id))
        self._connection.forget(self)

    # from the connection

    async def _receive(self, data: bytes, finished: bool) -> None:
        if data:
            self._data.append(data)
            self._size += len(data)
        self._ended = self._ended or finished
        self._arrived.set()
        if self._size >= MAX_BUFFERED:
            self._room.clear()
            await self._room.wait()

    def _broke(self) -> None:
        self._arrived.set()
        self._room.set()


class Connection:
    """The server's end of a SPDY connection; ``streams`` gives those that the client opens."""

    def __init__(self, bytes_: ByteStream) -> None:
        self.session = Session(server=True)
        self.closed = False
        self._bytes = bytes_
        self._streams: dict[int, Stream] = {}
        self._opened: asyncio.Queue[Stream | None] = asyncio.Queue()
        self._sending = asyncio.Lock()
        self._reader = asyncio.create_task(self._read())

    async def accept(self) -> Stream | None:
        """The next stream that the client opens; None when the connection has ended."""
        stream = await self._opened.get()
        if stream is None:
            self._opened.put_nowait(None)
        return stream

    async def send(self, *frames: bytes | memoryview) -> None:
        """Send encoded frames.

        Raises:
            ClientGone: the connection has ended.
        """
        if self.closed:
            raise ClientGone
        try:
            async with self._sending:
                await self._bytes.write(*frames)
        except (ConnectionError, OSError) as error:
            self._end()
            raise ClientGone from error

    async def wait_closed(self) -> None:
        """Return when the client has closed the connection."""
        await asyncio.wait((self._reader,))

    async def close(self) -> None:
        """End the connection."""
        with contextlib.suppress(ClientGone):
            await self.send(self.session.go_away())
        self._end()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        with contextlib.suppress(ConnectionError, OSError):
            await self._bytes.close()

    def forget(self, stream: Stream) -> None:
        """The stream is of no further interest."""
        self._streams.pop(stream.id, None)
        stream._broke()

    async def _read(self) -> None:
        try:
            while data := await self._bytes.read():
                for event in self.session.feed(data):
                    await self._handle(event)
        except (SpdyError, ClientGone, ConnectionError, OSError):
            return
        finally:
            self._end()

    async def _handle(self, event: object) -> None:
        if isinstance(event, DataReceived):
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                await stream._receive(event.data, event.finished)
        elif isinstance(event, StreamOpened):
            if len(self._streams) >= MAX_STREAMS:
                await self.send(self.session.reset(event.stream_id, REFUSED_STREAM))
                return
            stream = Stream(self, event.stream_id, event.headers)
            stream._ended = event.finished
            self._streams[event.stream_id] = stream
            await self.send(self.session.accept(event.stream_id))
            self._opened.put_nowait(stream)
        elif isinstance(event, PingReceived):
            await self.send(event.reply)
        elif isinstance(event, StreamReset):
            stream = self._streams.pop(event.stream_id, None)
            if stream is not None:
                stream._ended = True
                stream._broke()
        elif isinstance(event, GoAway):
            # The client opens no more streams; those that are open go on.
            return

    def _end(self) -> None:
        if not self.closed:
            self.closed = True
            self._opened.put_nowait(None)
            for stream in self._streams.values():
                stream._broke()


class SpdyChannels:
    """The channels of one command as streams, each named by its ``streamType``."""

    def __init__(self, connection: Connection, protocol: str, streams: dict[str, Stream]) -> None:
        self._connection = connection
        self._version = protocol_version(protocol)
        self._streams = streams

    @classmethod
    async def open(
        cls, connection: Connection, protocol: str, options: StreamOptions
    ) -> SpdyChannels:
        """Wait until the client has opened all streams that its command has.

        Raises:
            ClientGone: it went away.
            TimeoutError: it did not open them in time.
        """
        wanted = {c.stream_type for c in options.channels(protocol_version(protocol))}
        streams: dict[str, Stream] = {}
        async with asyncio.timeout(STREAMS_TIMEOUT):
            while set(streams) != wanted:
                stream = await connection.accept()
                if stream is None:
                    raise ClientGone
                kind = stream.headers.get("streamtype", "")
                if kind not in wanted or kind in streams:
                    await stream.reset()
                    continue
                streams[kind] = stream
        return cls(connection, protocol, streams)

    async def stdin(self) -> AsyncIterator[bytes]:
        """See ``Channels``."""
        stream = self._streams.get("stdin")
        with contextlib.suppress(ClientGone):
            while stream is not None and (data := await stream.read()):
                yield data

    async def wait_gone(self) -> None:
        """See ``Channels``."""
        await self._connection.wait_closed()

    async def sizes(self) -> AsyncIterator[tuple[int, int]]:
        """See ``Channels``."""
        stream = self._streams.get("resize")
        reader = ResizeReader()
        while stream is not None and (data := await stream.read()):
            for size in reader.feed(data):
                yield size

    async def write(self, channel: Channel, data: bytes) -> None:
        """See ``Channels``."""
        stream = self._streams.get(channel.stream_type)
        if stream is not None:
            await stream.write(data)

    async def finish(self, status: Mapping[str, Any]) -> None:
        """See ``Channels``."""
        end = encode_end(self._version, status)
        if end:
            await self._streams["error"].write(end)
        for stream in self._streams.values():
            await stream.finish()
            self._connection.forget(stream)  # more input is of no use, and must not fill the way
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._connection.wait_closed()
        await self._connection.close()
