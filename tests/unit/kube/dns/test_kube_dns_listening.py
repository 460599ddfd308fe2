"""Connections to the name server, with room for few."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator

import pytest

from wherry.kube.dns import listening
from wherry.kube.dns.listening import Listener, bind

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Place:
    """A listener that says each question back to its client."""

    def __init__(self) -> None:
        self.sockets = bind(["127.0.0.1"], 0)
        self.port = self.sockets[0][0].getsockname()[1]
        self.asked: list[tuple[bytes, str, bool]] = []
        self.listener = Listener(self.sockets, self.answer)
        self.connections: list[asyncio.StreamWriter] = []

    async def answer(self, data: bytes, client: str, datagram: bool) -> bytes:
        self.asked.append((data, client, datagram))
        return data

    async def connect(self, client: str) -> Connection:
        """A connection that was answered once, so it is known."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, local_addr=(client, 0)
        )
        self.connections.append(writer)
        assert await self.ask((reader, writer), b"hello") == b"hello"
        return reader, writer

    async def ask(self, connection: Connection, data: bytes) -> bytes:
        """What is answered; empty where the connection has ended."""
        reader, writer = connection
        writer.write(struct.pack("!H", len(data)) + data)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            async with asyncio.timeout(60):
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                return await reader.readexactly(length)
        return b""


@pytest.fixture
async def place(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr(listening, "CONNECTIONS", 4)
    monkeypatch.setattr(listening, "OF_ONE_CLIENT", 3)
    made = Place()
    await made.listener.open()
    yield made
    for writer in made.connections:
        writer.close()
    await made.listener.close()


async def ended(place: Place, connection: Connection) -> bool:
    """Whether it was closed; one that was not is still of use."""
    return await place.ask(connection, b"still") != b"still"


async def test_one_client_s_connections_make_room_for_its_next_and_for_others(place: Place):
    first = [await place.connect("127.0.0.1") for _ in range(3)]
    assert await place.ask(first[0], b"again") == b"again"
    first.append(await place.connect("127.0.0.1"))
    # Its own that was silent for longest had to go, though there was room for one more.
    assert await ended(place, first.pop(1))
    others = [await place.connect(f"127.0.0.{n}") for n in (2, 3)]
    assert await ended(place, first.pop(1))
    for connection in (*others, *first):
        assert not await ended(place, connection)


async def test_who_asks_is_known_by_its_address(place: Place):
    await place.connect("127.0.0.7")
    assert place.asked == [(b"hello", "127.0.0.7", False)]


async def test_a_connection_that_says_nothing_more_is_closed(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    """Between questions, and in the middle of one; what is still to be answered is."""
    monkeypatch.setattr(listening, "READ", 0.01)
    reader, writer = await place.connect("127.0.0.1")
    writer.write(b"\0\2hi" + b"\0\5hel")
    async with asyncio.timeout(60):
        assert await reader.read() == b"\0\2hi"
    reader, writer = connection = await place.connect("127.0.0.1")
    monkeypatch.setattr(listening, "IDLE", 0.01)
    assert await place.ask(connection, b"last") == b"last"
    async with asyncio.timeout(60):
        assert await reader.read() == b""
