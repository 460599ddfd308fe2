"""Remote commands and port-forwards over a WebSocket."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiohttp import WSMsgType, web

from wherry.kube.kubelet.streaming.channels import ClientGone
from wherry.wire.remotecommand import (
    CLOSE_SIGNAL,
    Channel,
    ProtocolError,
    ResizeReader,
    StreamOptions,
    decode_message,
    encode_end,
    encode_message,
    protocol_version,
)

MAX_MESSAGE = 16 << 20
_BINARY = 0x82  # the one and last frame of a message of bytes
_QUEUE = 32  # messages of input that wait for the command


class WebSocketChannels:
    """The channels of one command as numbered messages."""

    def __init__(
        self, socket: web.WebSocketResponse, protocol: str, options: StreamOptions
    ) -> None:
        self._socket = socket
        self._protocol = protocol
        self._version = protocol_version(protocol)
        self._options = options
        self._input: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUE)
        self._sizes: asyncio.Queue[tuple[int, int] | None] = asyncio.Queue()
        self._gone = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def open(self) -> None:
        """Tell the client that the streams are there, as it expects."""
        first = Channel.ERROR
        if self._options.stdout:
            first = Channel.STDOUT
        elif self._options.stderr:
            first = Channel.STDERR
        await send(self._socket, self._protocol, first, b"")

    async def stdin(self) -> AsyncIterator[bytes]:
        """See ``Channels``."""
        while (data := await self._input.get()) is not None:
            yield data

    async def sizes(self) -> AsyncIterator[tuple[int, int]]:
        """See ``Channels``."""
        while (size := await self._sizes.get()) is not None:
            yield size

    async def wait_gone(self) -> None:
        """See ``Channels``."""
        await self._gone.wait()

    async def write(self, channel: Channel, data: bytes) -> None:
        """See ``Channels``."""
        await send(self._socket, self._protocol, channel, data)

    async def finish(self, status: Mapping[str, Any]) -> None:
        """See ``Channels``."""
        end = encode_end(self._version, status)
        if end:
            await send(self._socket, self._protocol, Channel.ERROR, end)
        # aiohttp does not wait for the client's own Close while somebody else reads.
        await self.close()
        await self._socket.close()

    async def close(self) -> None:
        """Stop reading."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self) -> None:
        resize = ResizeReader()
        try:
            async for message in self._socket:
                if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                    break
                channel, data = decode_message(self._protocol, message.data)
                if channel == CLOSE_SIGNAL:
                    if data[:1] == bytes((Channel.STDIN,)):
                        await self._input.put(None)
                elif channel == Channel.STDIN:
                    if data:
                        await self._input.put(data)
                elif channel == Channel.RESIZE:
                    for size in resize.feed(data):
                        self._sizes.put_nowait(size)
        except ProtocolError:
            await self._socket.close()
        finally:
            self._gone.set()
            self._sizes.put_nowait(None)
            if self._input.full():
                self._input.get_nowait()
            self._input.put_nowait(None)


async def send(socket: web.WebSocketResponse, protocol: str, channel: int, data: bytes) -> None:
    """Send a message of a channel, as ``protocol`` writes it.

    Raises:
        ClientGone: nobody is there to take it.
    """
    message = encode_message(protocol, channel, data)
    try:
        if isinstance(message, str):
            await socket.send_str(message)
        else:
            await socket.send_bytes(message)
    except (ConnectionError, RuntimeError) as error:
        raise ClientGone from error


def message_head(length: int) -> bytes:
    """What stands before a binary message of a server (RFC 6455, section 5.2)."""
    if length < 126:
        return struct.pack(">BB", _BINARY, length)
    if length < 1 << 16:
        return struct.pack(">BBH", _BINARY, 126, length)
    return struct.pack(">BBQ", _BINARY, 127, length)


class WebSocketTunnel:
    """A WebSocket as a plain stream of bytes: SPDY goes through it, for port-forward."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        self._socket = socket
        self._request = request

    async def read(self) -> bytes:
        """Bytes from the client, ``b""`` when it has closed."""
        while True:
            message = await self._socket.receive()
            if message.type is WSMsgType.BINARY:
                if message.data:
                    return bytes(message.data)
                continue
            return b""

    async def write(self, *pieces: bytes | memoryview) -> None:
        """Send ``pieces`` to the client as one message.

        It is written here, with its head, in one piece: much goes this way, and aiohttp's own
        writer makes two of it.

        Raises:
            ConnectionError: it has gone.
        """
        transport = self._request.transport
        if self._socket.closed or transport is None or transport.is_closing():
            raise ConnectionResetError("the WebSocket is closed")
        head = message_head(sum(len(piece) for piece in pieces))
        transport.write(b"".join((head, *pieces)))
        await self._request.protocol._drain_helper()

    async def close(self) -> None:
        """End the connection."""
        await self._socket.close()
