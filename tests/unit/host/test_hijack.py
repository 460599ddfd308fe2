"""A connection taken over from HTTP, as a stream of bytes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from wherry.host.hijack import HijackedStream, adopt, hijack, join, take_over

HEAD = b"HTTP/1.1 101 UPGRADED\r\n\r\n"
Handler = Callable[[HijackedStream], Awaitable[None]]


class Server:
    """An HTTP server whose every request is taken over by ``handler``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.handler: Handler

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        stream = hijack(request, HEAD)
        try:
            await self.handler(stream)
        finally:
            await stream.close()
        return stream.response

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(str(self._path))
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        assert await reader.readexactly(len(HEAD)) == HEAD
        return reader, writer

    async def run(self) -> web.ServerRunner:
        runner = web.ServerRunner(web.Server(self._serve))
        await runner.setup()
        await web.UnixSite(runner, str(self._path)).start()
        return runner


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    server = Server(tmp_path / "socket")
    runner = await server.run()
    yield server
    await runner.cleanup()


async def test_what_was_received_before_comes_first() -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    stream = HijackedStream(transport, b"early")
    writer.write(b"late")
    assert await stream.read() == b"early"
    assert await stream.read() == b"late"
    await stream.write(b"two ", b"pieces")
    await stream.close()
    assert await _all(reader) == b"two pieces"
    writer.close()


async def test_a_client_that_sends_no_more_may_still_listen(server: Server) -> None:
    async def answer(stream: HijackedStream) -> None:
        while await stream.read():
            continue
        await stream.write(b"goodbye")

    server.handler = answer
    reader, writer = await server.connect()
    writer.write(b"x")
    writer.write_eof()
    assert await reader.read() == b"goodbye"
    writer.close()


async def test_a_client_that_does_not_read_holds_the_writer(server: Server) -> None:
    written = 0
    stuck = asyncio.Event()

    async def flood(stream: HijackedStream) -> None:
        nonlocal written
        for _ in range(64):
            asyncio.get_running_loop().call_later(0.2, stuck.set)
            await stream.write(bytes(1 << 18))
            written += 1

    server.handler = flood
    reader, writer = await server.connect()
    await stuck.wait()
    assert written < 32
    assert len(await _all(reader)) == 64 << 18
    writer.close()


async def _all(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.read(), 60)


async def test_a_handler_that_does_not_read_holds_the_client(server: Server) -> None:
    go = asyncio.Event()
    received = 0

    async def slow(stream: HijackedStream) -> None:
        nonlocal received
        await go.wait()
        while data := await stream.read():
            received += len(data)

    server.handler = slow
    reader, writer = await server.connect()
    writer.transport.set_write_buffer_limits(0)
    sent = 16 << 20
    writer.write(bytes(sent))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await writer.drain()
    go.set()
    await asyncio.wait_for(writer.drain(), 60)
    writer.write_eof()
    assert await _all(reader) == b""
    assert received == sent
    writer.close()


async def test_writing_to_a_client_that_has_gone_says_so(server: Server) -> None:
    gone: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def talk(stream: HijackedStream) -> None:
        try:
            while True:
                await stream.write(bytes(1 << 16))
                await asyncio.sleep(0)
        except ConnectionError:
            gone.set_result(True)

    server.handler = talk
    _, writer = await server.connect()
    writer.transport.abort()
    assert await asyncio.wait_for(gone, 60)


async def test_abort_ends_a_reader(server: Server) -> None:
    async def abort(stream: HijackedStream) -> None:
        asyncio.get_running_loop().call_soon(stream.abort)
        assert await stream.read() == b""

    server.handler = abort
    reader, writer = await server.connect()
    assert await _all(reader) == b""
    writer.close()


async def test_joined_connections_carry_both_ways_until_one_ends() -> None:
    """What was received before comes first, in order, and nothing is lost at the end."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    behind = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = behind.sockets[0].getsockname()[1]
    one, other = socket.socketpair()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    far = take_over(reader, writer)
    near = await adopt(one)
    sent = bytes(range(256)) * (1 << 14)
    loop = asyncio.get_running_loop()
    other.setblocking(False)
    await loop.sock_sendall(other, b"early")
    await asyncio.sleep(0)
    joined = asyncio.create_task(join(near, far))
    sending = asyncio.create_task(loop.sock_sendall(other, sent))
    got = b""
    async with asyncio.timeout(60):
        while len(got) < len(sent) + 5:
            got += await loop.sock_recv(other, 1 << 16)
        await sending
    assert got == b"early" + sent
    other.shutdown(socket.SHUT_WR)
    async with asyncio.timeout(60):
        await joined
        await near.close()
        await far.close()
    assert await loop.sock_recv(other, 1) == b""
    other.close()
    behind.close()
