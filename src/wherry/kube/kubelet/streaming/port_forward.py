"""Ports of a pod, carried to a client: many connections over one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from aiohttp import WSMsgType, web

from wherry.engine.cri.types import CRIError
from wherry.host.hijack import adopt
from wherry.kube.kubelet.streaming.channels import ClientGone
from wherry.kube.kubelet.streaming.spdy import Connection, Stream
from wherry.kube.kubelet.streaming.websocket import send
from wherry.wire.remotecommand import ProtocolError, decode_message

FAREWELL = 2.0  # seconds a server in a pod has to take the last of what its client sent

Dial = Callable[[int], Awaitable[int]]
"""Connects to a port of the pod; a socket's descriptor. Raises CRIError."""


class _Pair:
    """The two streams of one forwarded connection."""

    def __init__(self) -> None:
        self.data: Stream | None = None
        self.error: Stream | None = None


async def serve_spdy(connection: Connection, dial: Dial, described: str) -> None:
    """Forward as the client asks, until it closes the connection."""
    pairs: dict[str, _Pair] = {}
    tasks: set[asyncio.Task[None]] = set()
    try:
        while (stream := await connection.accept()) is not None:
            kind = stream.headers.get("streamtype", "")
            if kind not in ("data", "error") or not stream.headers.get("port", "").isdigit():
                await stream.reset()
                continue
            request = _request_id(stream, kind)
            pair = pairs.setdefault(request, _Pair())
            setattr(pair, kind, stream)
            if pair.data is not None and pair.error is not None:
                del pairs[request]
                task = asyncio.create_task(_forward(pair.data, pair.error, dial, described))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await connection.close()


def _request_id(stream: Stream, kind: str) -> str:
    """Which connection a stream belongs to; old clients open its error stream just before."""
    named = stream.headers.get("requestid")
    return named or str(stream.id if kind == "error" else stream.id - 2)


async def _forward(data: Stream, error: Stream, dial: Dial, described: str) -> None:
    port = int(data.headers["port"])
    try:
        descriptor = await dial(port)
    except CRIError as refused:
        with contextlib.suppress(ClientGone):
            text = f"error forwarding port {port} to pod {described}: {refused.message}"
            await error.write(text.encode())
        await error.finish()
        await data.reset()
        return
    await error.finish()
    with contextlib.suppress(ClientGone, OSError):
        await _carry(descriptor, data)
    await data.finish()


class _Ends(Protocol):
    async def read(self) -> bytes: ...

    async def write(self, data: bytes) -> None: ...


async def _carry(descriptor: int, client: _Ends) -> None:
    """Carry bytes both ways between a socket and the client, until the socket has ended."""
    inside = await adopt(socket.socket(fileno=descriptor))

    async def inward() -> None:
        while data := await client.read():
            await inside.write(data)
        inside.finish()

    async def outward() -> None:
        while data := await inside.read():
            await client.write(data)

    sending = asyncio.create_task(inward())
    try:
        await outward()
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        try:
            async with asyncio.timeout(FAREWELL):
                await inside.close()
        except TimeoutError:
            inside.abort()


class _Numbered:
    """One forwarded port on a WebSocket: two channels, for data and errors."""

    def __init__(self, socket_: web.WebSocketResponse, protocol: str, index: int) -> None:
        self._socket = socket_
        self._protocol = protocol
        self._channel = 2 * index
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue(32)

    async def announce(self, port: int) -> None:
        """Both channels begin with the port's number."""
        head = struct.pack("<H", port)
        await send(self._socket, self._protocol, self._channel, head)
        await send(self._socket, self._protocol, self._channel + 1, head)

    async def read(self) -> bytes:
        return await self.incoming.get()

    async def write(self, data: bytes) -> None:
        await send(self._socket, self._protocol, self._channel, data)

    async def write_error(self, text: str) -> None:
        await send(self._socket, self._protocol, self._channel + 1, text.encode())


async def serve_websocket(
    socket_: web.WebSocketResponse,
    protocol: str,
    ports: Sequence[int],
    dial: Dial,
    described: str,
) -> None:
    """Forward ``ports``, one connection each, until the client closes the WebSocket."""
    ends = [_Numbered(socket_, protocol, index) for index in range(len(ports))]
    tasks = []
    try:
        for end, port in zip(ends, ports, strict=True):
            await end.announce(port)
            tasks.append(asyncio.create_task(_forward_numbered(end, port, dial, described)))
        hearing = asyncio.create_task(_hear(socket_, protocol, ends))
        # A channel cannot be ended alone: when no forward is left, the whole connection ends.
        forwarding = asyncio.gather(*tasks, return_exceptions=True)
        tasks.append(hearing)
        await asyncio.wait((hearing, forwarding), return_when=asyncio.FIRST_COMPLETED)
    except ClientGone:
        return
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await socket_.close()


async def _hear(socket_: web.WebSocketResponse, protocol: str, ends: Sequence[_Numbered]) -> None:
    """Hand on what the client sends, until it closes or says what is no message."""
    with contextlib.suppress(ProtocolError):
        async for message in socket_:
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                break
            channel, data = decode_message(protocol, message.data)
            if channel % 2 == 0 and channel // 2 < len(ends) and data:
                await ends[channel // 2].incoming.put(data)


async def _forward_numbered(end: _Numbered, port: int, dial: Dial, described: str) -> None:
    with contextlib.suppress(ClientGone, OSError):
        try:
            descriptor = await dial(port)
        except CRIError as refused:
            await end.write_error(
                f"error forwarding port {port} to pod {described}: {refused.message}"
            )
            return
        await _carry(descriptor, end)
