"""A container's streams in the daemon: log, clients, input, end."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
from collections.abc import AsyncIterator

import pytest

from wherry.runtime.hub import ContainerStream, Hub


class Log:
    def __init__(self) -> None:
        self.written = b""
        self.closed = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def write(self, stream: int, data: bytes) -> None:
        await self.gate.wait()
        self.written += data

    async def close(self) -> None:
        self.closed = True


class Broken(Log):
    async def write(self, stream: int, data: bytes) -> None:
        raise RuntimeError("a driver with a fault")


class Container:
    """A hub, and what the container would hold: it writes ``out``, reads ``stdin``."""

    def __init__(self, log: Log | None = None, *, once: bool = True) -> None:
        self.stdin, stdin = os.pipe()
        stdout, self.out = os.pipe()
        for descriptor in (stdin, stdout, self.stdin):
            os.set_blocking(descriptor, False)
        self.claimed = 0
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.hub = Hub({"stdin": stdin, "stdout": stdout}, log, once=once, claim_stdin=self._claim)

    def _claim(self) -> None:
        self.claimed += 1

    def attach(self, *, stdin: bool = False) -> ContainerStream:
        return self.hub.attach(self.code, stdin=stdin)

    def input_is_open(self) -> bool:
        try:
            return os.read(self.stdin, 100) != b""
        except BlockingIOError:
            return True

    async def close(self) -> None:
        await self.hub.release()
        for descriptor in (self.stdin, self.out):
            os.close(descriptor)


@pytest.fixture
async def logged() -> AsyncIterator[tuple[Container, Log]]:
    log = Log()
    made = Container(log)
    yield made, log
    await made.close()


async def test_log_and_clients_get_the_same_and_the_log_is_whole_at_the_end(
    logged: tuple[Container, Log],
) -> None:
    container, log = logged
    stream = container.attach()
    os.write(container.out, b"hello")
    assert await stream.read() == (1, b"hello")
    os.write(container.out, b" and goodbye")
    await container.hub.finish()
    assert (log.written, log.closed) == (b"hello and goodbye", True)
    assert await stream.read() == (1, b" and goodbye")
    assert await stream.read() == (0, b"")


async def test_a_client_that_does_not_read_does_not_keep_the_end(
    logged: tuple[Container, Log],
) -> None:
    container, log = logged
    container.attach()
    os.write(container.out, bytes(60000))
    await asyncio.wait_for(container.hub.finish(), 60)
    assert len(log.written) == 60000


async def test_a_log_that_fails_does_not_hold_the_container(
    caplog: pytest.LogCaptureFixture,
) -> None:
    container = Container(Broken())
    stream = container.attach()
    for _ in range(40):
        os.write(container.out, bytes(60000))
        assert await asyncio.wait_for(stream.read(), 60) == (1, bytes(60000))
    await container.hub.finish()
    assert "a driver with a fault" in caplog.text
    await container.close()


async def test_a_log_that_hangs_keeps_its_container_only_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wherry.runtime.hub._LOG_TIMEOUT", 0.01)
    log = Log()
    log.gate.clear()
    container = Container(log)
    os.write(container.out, b"x")
    await asyncio.wait_for(container.hub.finish(), 60)
    await container.close()


async def test_letting_go_logs_what_was_read_and_leaves_the_rest(
    logged: tuple[Container, Log],
) -> None:
    container, log = logged
    os.write(container.out, b"read")
    await asyncio.sleep(0.01)
    await container.hub.release()
    assert (log.written, log.closed) == (b"read", True)


@pytest.mark.parametrize("by_leaving", [True, False])
async def test_input_for_one_client_ends_with_it(by_leaving: bool) -> None:
    container = Container(once=True)
    stream = container.attach(stdin=True)
    assert container.claimed == 1
    assert "stdin" not in container.hub.ends
    await stream.write(b"x")
    assert os.read(container.stdin, 10) == b"x"
    await (stream.close() if by_leaving else stream.close_stdin())
    assert not container.input_is_open()
    await container.close()


async def test_an_onlooker_does_not_end_the_input(logged: tuple[Container, Log]) -> None:
    container, _ = logged
    await container.attach(stdin=False).close()
    assert container.claimed == 0
    assert container.input_is_open()


async def test_input_for_many_survives_each(logged: tuple[Container, Log]) -> None:
    container = Container(once=False)
    for _ in range(2):
        stream = container.attach(stdin=True)
        await stream.write(b"x")
        assert os.read(container.stdin, 10) == b"x"
        await stream.close_stdin()
        await stream.close()
    assert container.claimed == 0
    assert container.hub.ends.keys() == {"stdin", "stdout"}
    await container.close()


async def test_a_terminal_is_given_its_size() -> None:
    master, slave = os.openpty()
    os.set_blocking(master, False)
    hub = Hub({"terminal": master}, None, once=True, claim_stdin=lambda: None)
    hub.resize(132, 43)
    size = fcntl.ioctl(slave, termios.TIOCGWINSZ, bytes(8))
    assert struct.unpack("HHHH", size)[:2] == (43, 132)
    await hub.finish()
    hub.resize(1, 1)
    os.close(slave)


@pytest.mark.parametrize("kind", [Log, Broken])
async def test_a_mark_parts_what_the_log_has_from_what_a_client_gets(kind: type[Log]) -> None:
    log = kind()
    log.gate.clear()
    container = Container(log)
    marked: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def at() -> None:
        marked.set_result(log.written)

    early = container.attach()
    os.write(container.out, b"before ")
    assert await early.read() == (1, b"before ")
    late = container.hub.attach(container.code, stdin=False, at=at)
    os.write(container.out, b"after")
    assert await late.read() == (1, b"after")
    assert marked.done() is (kind is Broken)
    log.gate.set()
    assert await asyncio.wait_for(marked, 60) == (b"before " if kind is Log else b"")
    await container.close()


async def test_a_mark_is_passed_even_when_the_log_is_closed() -> None:
    container = Container(Log())
    await container.hub.finish()
    passed = asyncio.Event()

    async def at() -> None:
        passed.set()

    stream = container.hub.attach(container.code, stdin=False, at=at)
    await asyncio.wait_for(passed.wait(), 60)
    assert await stream.read() == (0, b"")
    for descriptor in (container.stdin, container.out):
        os.close(descriptor)


async def test_one_who_waits_for_a_log_that_is_given_up_is_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wherry.runtime.hub._LOG_TIMEOUT", 0)
    log, passed = Log(), asyncio.Event()
    log.gate.clear()
    made = Container(log)
    os.write(made.out, b"never kept")
    await asyncio.sleep(0.01)

    async def at() -> None:
        passed.set()

    made.hub.attach(made.code, stdin=False, at=at)
    await made.hub.finish()
    await asyncio.wait_for(passed.wait(), 60)
    await made.close()
