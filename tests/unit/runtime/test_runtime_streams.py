"""A client's end of a monitor's socket, and the ends of an exec, without any container."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from wherry.host.process import Child
from wherry.runtime import conmon
from wherry.runtime.streams import ContainerStream, ExecProcess

OUT, ERR = b"\x02", b"\x03"


class Wire:
    """A stream and the monitor's end of its socket."""

    def __init__(self, tmp: Path, half_close: bool = True) -> None:
        ours, self.monitor = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.stream = ContainerStream(ours, tmp, self.code, half_close=half_close)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.monitor.close()
        self.stream.disconnect()


async def test_packets_of_one_stream_become_one_piece(tmp_path: Path) -> None:
    with Wire(tmp_path) as wire:
        for packet in (OUT + b"a", OUT + b"b", ERR + b"c", OUT + b"d"):
            wire.monitor.send(packet)
        assert await wire.stream.read() == (1, b"ab")
        assert await wire.stream.read() == (2, b"c")
        assert await wire.stream.read() == (1, b"d")
        wire.monitor.close()
        assert await wire.stream.read() == (0, b"")
        assert await wire.stream.read() == (0, b"")


async def test_a_reader_waits_and_a_cancelled_one_loses_nothing(tmp_path: Path) -> None:
    with Wire(tmp_path) as wire:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await wire.stream.read()
        waiting = asyncio.create_task(wire.stream.read())
        await asyncio.sleep(0)
        wire.monitor.send(OUT + b"late")
        assert await asyncio.wait_for(waiting, 5) == (1, b"late")


async def test_last_words_come_although_input_was_left_unread(tmp_path: Path) -> None:
    with Wire(tmp_path) as wire:
        await wire.stream.write(b"never read")
        wire.monitor.send(OUT + b"last words")
        wire.monitor.close()
        assert await wire.stream.read() == (1, b"last words")
        assert await wire.stream.read() == (0, b"")


async def test_input_goes_in_packets_the_monitor_can_take(tmp_path: Path) -> None:
    with Wire(tmp_path) as wire:
        data = os.urandom(3 * conmon.STDIN_PACKET + 1)
        writing = asyncio.create_task(wire.stream.write(data))
        received = b""
        wire.monitor.setblocking(False)
        while len(received) < len(data):
            packet = await asyncio.get_running_loop().sock_recv(wire.monitor, 1 << 20)
            assert len(packet) <= conmon.STDIN_PACKET
            received += packet
        await writing
        assert received == data


@pytest.mark.parametrize("half_close", [True, False])
async def test_the_end_of_input_is_passed_on_where_it_shall(
    tmp_path: Path, half_close: bool
) -> None:
    with Wire(tmp_path, half_close) as wire:
        await wire.stream.close_stdin()
        wire.monitor.setblocking(False)
        if half_close:
            assert wire.monitor.recv(10) == b""
        else:
            with pytest.raises(BlockingIOError):
                wire.monitor.recv(10)
        wire.monitor.send(OUT + b"still heard")
        assert await wire.stream.read() == (1, b"still heard")


async def test_writing_to_a_container_that_has_gone_says_so(tmp_path: Path) -> None:
    with Wire(tmp_path) as wire:
        wire.monitor.close()
        with pytest.raises(BrokenPipeError):
            await wire.stream.write(b"x")
        await wire.stream.close_stdin()
        await wire.stream.resize(1, 1)


async def test_absorbing_frees_the_monitor_and_keeps_all_for_the_reader(tmp_path: Path) -> None:
    with Wire(tmp_path) as wire:
        sent = 0
        wire.monitor.setblocking(False)
        wire.stream.absorb()
        for _ in range(200):
            try:
                wire.monitor.send(OUT + bytes(8192))
            except BlockingIOError:
                await asyncio.sleep(0)
                continue
            sent += 8192
        wire.monitor.close()
        received = 0
        while (piece := await asyncio.wait_for(wire.stream.read(), 5)) != (0, b""):
            received += len(piece[1])
        assert received == sent > 1 << 20


async def test_a_reader_that_waits_is_served_when_absorbing_begins(tmp_path: Path) -> None:
    with Wire(tmp_path) as wire:
        waiting = asyncio.create_task(wire.stream.read())
        await asyncio.sleep(0)
        wire.stream.absorb()
        wire.monitor.send(ERR + b"x")
        assert await asyncio.wait_for(waiting, 5) == (2, b"x")
        waiting = asyncio.create_task(wire.stream.read())
        await asyncio.sleep(0)
        wire.monitor.close()
        assert await asyncio.wait_for(waiting, 5) == (0, b"")


async def test_closing_ends_a_waiting_reader_and_waiting_for_the_code_goes_on(
    tmp_path: Path,
) -> None:
    with Wire(tmp_path) as wire:
        waiting = asyncio.create_task(wire.stream.read())
        code = asyncio.create_task(wire.stream.wait())
        await asyncio.sleep(0)
        await wire.stream.close()
        assert await asyncio.wait_for(waiting, 5) == (0, b"")
        wire.code.set_result(3)
        assert await code == 3
        await wire.stream.close()


async def test_a_connection_that_must_stay_is_drained(tmp_path: Path) -> None:
    with Wire(tmp_path) as wire:

        def keep(stream: ContainerStream) -> bool:
            stream.discard_until_end()
            return True

        wire.stream.on_close = keep
        await wire.stream.close()
        wire.monitor.setblocking(False)
        for _ in range(100):
            try:
                wire.monitor.send(OUT + bytes(8192))
            except BlockingIOError:
                await asyncio.sleep(0.001)
        with pytest.raises(BlockingIOError):
            wire.monitor.recv(1)


class Exec:
    """An exec made by hand: a shell in place of the OCI runtime."""

    def __init__(self, script: str) -> None:
        theirs_in, ours_in = os.pipe()
        out, theirs_out = os.pipe()
        err, theirs_err = os.pipe()
        child = Child(["sh", "-c", script], stdin=theirs_in, stdout=theirs_out, stderr=theirs_err)
        for descriptor in (theirs_in, theirs_out, theirs_err):
            os.close(descriptor)
        for descriptor in (ours_in, out, err):
            os.set_blocking(descriptor, False)
        outputs = {out: 1, err: 2}
        self.process = ExecProcess(child, child.pid, outputs=outputs, stdin=ours_in, terminal=False)


@pytest.fixture
def same_descriptors() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


async def test_exec_output_input_and_code() -> None:
    process = Exec("cat; echo err >&2; exit 6").process
    await process.write(b"in")
    await process.close_stdin()
    pieces = {}
    while (piece := await asyncio.wait_for(process.read(), 5)) != (0, b""):
        pieces[piece[0]] = piece[1]
    assert pieces == {1: b"in", 2: b"err\n"}
    assert await process.wait() == 6
    await process.close()
    await process.close()


async def test_exec_write_to_a_closed_input_says_so() -> None:
    process = Exec("exec 0<&-; echo ready; sleep 5").process
    assert await process.read() == (1, b"ready\n")
    with pytest.raises(BrokenPipeError):
        await process.write(bytes(1 << 20))
    await process.close_stdin()
    with pytest.raises(BrokenPipeError):
        await process.write(b"x")
    process._child.kill()
    assert await process.wait() == 137
    await process.close()


async def test_exec_ends_with_its_process_not_with_what_it_left() -> None:
    process = Exec("sleep 5 & echo $!; exit 0").process
    number, data = await process.read()
    assert await asyncio.wait_for(process.read(), 3) == (0, b"")
    await process.close()
    os.kill(int(data), 9)
    assert number == 1


async def test_exec_close_ends_a_waiting_reader() -> None:
    process = Exec("sleep 5").process
    waiting = asyncio.create_task(process.read())
    await asyncio.sleep(0)
    await process.close()
    assert await asyncio.wait_for(waiting, 3) == (0, b"")
    process._child.kill()
    await process.wait()
