"""Long lists and slow watchers hold no memory without bound."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from apiserver_clients import PODS, Connection, make_pods, session
from apiserver_process import Server

WATCHERS = 100
MEGABYTE = 1 << 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path).start()
    yield running
    running.stop()


def resident(server: Server, field: str = "VmRSS") -> int:
    """Bytes; ``VmHWM``: at most so far."""
    assert server.process is not None
    for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)


async def test_lists_that_nobody_reads_are_not_held_encoded(server: Server) -> None:
    await make_pods(server, 2000, weight=10_000)  # 20 MB a list
    before = resident(server)
    slow = [await Connection.open(server) for _ in range(40)]  # 800 MB, were they held
    for connection in slow:
        connection.ask(PODS)
    for connection in slow:
        assert (await connection.head())[0] == 200
    other = await Connection.open(server)
    other.ask(f"{PODS}/p-00000")
    assert (await other.answer())[0] == 200
    assert resident(server) - before < 250 * MEGABYTE
    for connection in slow[1:]:
        await connection.close()
    mark, items, rest = b'"weight":"', 0, b""
    async with asyncio.timeout(60):
        while items < 2000:  # who reads late reads all of it
            data = await slow[0].reader.read(1 << 20)
            assert data, items
            items += (rest + data).count(mark)
            rest = (rest + data)[1 - len(mark) :]  # a piece may end within one
    assert items == 2000


async def test_slow_watchers_hold_no_more_than_their_connections(server: Server) -> None:
    """They are told all of a burst when they read on."""
    await make_pods(server, 1, weight=0)
    slow = [await Connection.open(server) for _ in range(WATCHERS)]
    for connection in slow:
        connection.ask(f"{PODS}?watch=1&resourceVersion=0")
        assert (await connection.head())[0] == 200
        await connection.reader.readuntil(b"\n\r\n")
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
    before = resident(server)
    async with session(server) as client:
        for n in range(300):
            patch = {"metadata": {"annotations": {"weight": str(n) + "x" * 20_000}}}
            kind = {"Content-Type": "application/merge-patch+json"}
            async with client.patch(f"{PODS}/p-00000", data=json.dumps(patch), headers=kind) as r:
                assert r.status == 200
    # 6 MB for each of a hundred, were they held.
    assert resident(server) - before < 250 * MEGABYTE
    last = slow[0]
    last.writer.transport.resume_reading()  # type: ignore[attr-defined]
    told = b""
    async with asyncio.timeout(60):
        while b'"weight":"299x' not in told:
            told = told[-100:] + await last.reader.read(1 << 20)
    for connection in slow:
        await connection.close()
