"""Commands in containers, and connections into them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import pytest

from wherry.engine.cri import streams
from wherry.engine.cri.streams import KilledAtClose, connect, run_to_end
from wherry.engine.cri.types import CRIError


class Process:
    """An exec whose process is one of ours."""

    def __init__(self, process: asyncio.subprocess.Process, pieces: list[tuple[int, bytes]]):
        self.pid = process.pid
        self.closed = False
        self._process = process
        self._pieces = [*pieces, (0, b"")]
        self.write = self.close_stdin = self.resize = None

    async def read(self) -> tuple[int, bytes]:
        return self._pieces.pop(0)

    async def wait(self) -> int:
        return await self._process.wait()

    async def close(self) -> None:
        self.closed = True


async def started(*argv: str, pieces: list[tuple[int, bytes]]) -> tuple[Any, Any]:
    process = await asyncio.create_subprocess_exec(*argv)
    return process, Process(process, pieces)


async def test_what_a_command_says_is_kept_as_far_as_the_limit_and_its_code_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "EXEC_LIMIT", 4)
    pieces = [(1, b"abc"), (2, b"x"), (1, b"def")]
    _, inner = await started("sh", "-c", "exit 3", pieces=pieces)
    result = await run_to_end(KilledAtClose(inner), ["sh"], 0)
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"abcd", b"x")
    assert inner.closed


async def test_what_runs_too_long_is_killed() -> None:
    process, inner = await started("sleep", "1000", pieces=[])
    with pytest.raises(CRIError) as raised:
        await run_to_end(KilledAtClose(inner), ["sleep", "1000"], 0.01)
    assert raised.value.message == 'command "sleep 1000" timed out: timeout 0.01s exceeded'
    assert await process.wait() == -9


async def test_a_port_that_nobody_listens_at_is_named() -> None:
    with contextlib.closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))  # and so nobody else's
        port = bound.getsockname()[1]
        with pytest.raises(CRIError) as raised:
            await connect("12ab", None, port)
    assert raised.value.message == (
        f"failed to connect to localhost:{port} inside namespace 12ab: connection refused"
    )


async def test_a_connection_is_the_callers_to_close() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        descriptor = await connect("12ab", None, server.getsockname()[1])
        accepted, _ = server.accept()
        with accepted, socket.socket(fileno=descriptor) as connection:
            connection.sendall(b"x")
            assert accepted.recv(1) == b"x"
