"""Outputs with their taps, inputs, and the ends of an exec, on plain pipes and terminals."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

import pytest

from wherry.host.process import Child
from wherry.runtime.streams import BEHIND, ExecProcess, Input, Outputs, Tap


class Source:
    """Outputs of two pipes, and the ends that a process would write to."""

    def __init__(self) -> None:
        self.ends = {}
        descriptors = {}
        for stream in (1, 2):
            ours, self.ends[stream] = os.pipe()
            os.set_blocking(ours, False)
            os.set_blocking(self.ends[stream], False)
            descriptors[ours] = stream
        self.outputs = Outputs(descriptors)

    def write(self, stream: int, data: bytes) -> int:
        return os.write(self.ends[stream], data)

    async def fill(self, most: int = 1 << 30) -> int:
        """Write to stdout for as long as anybody reads it; how much."""
        total, idle = 0, 0
        while idle < 20 and total < most:
            try:
                total += self.write(1, bytes(65536))
                idle = 0
            except BlockingIOError:
                idle += 1
                await asyncio.sleep(0.001)
        return total

    def end(self, stream: int) -> None:
        os.close(self.ends.pop(stream))

    def close(self) -> None:
        self.outputs.close()
        for stream in tuple(self.ends):
            self.end(stream)


@pytest.fixture
async def source() -> AsyncIterator[Source]:
    made = Source()
    yield made
    made.close()


async def read(tap: Tap) -> tuple[int, bytes]:
    return await asyncio.wait_for(tap.read(), 60)


async def said(tap: Tap, text: bytes) -> None:
    """Wait for ``text`` of stdout: a terminal may hand out what is one write in pieces."""
    found = b""
    while len(found) < len(text):
        stream, piece = await read(tap)
        assert stream == 1, found
        found += piece
    assert found == text


async def rest(tap: Tap) -> int:
    """How many bytes come until the end."""
    total = 0
    while (piece := await read(tap))[0]:
        total += len(piece[1])
    return total


async def test_every_tap_gets_everything_with_its_stream(source: Source) -> None:
    taps = [source.outputs.tap(), source.outputs.tap()]
    source.outputs.start()
    for stream, data in ((1, b"out"), (2, b"err"), (1, b"more")):
        source.write(stream, data)
        for tap in taps:
            assert await read(tap) == (stream, data)


async def test_a_late_tap_gets_what_comes_from_then_on(source: Source) -> None:
    first = source.outputs.tap()
    source.outputs.start()
    source.write(1, b"early")
    assert await read(first) == (1, b"early")
    late = source.outputs.tap()
    source.write(1, b"late")
    assert await read(late) == (1, b"late")


async def test_a_waiting_reader_that_is_cancelled_loses_nothing(source: Source) -> None:
    tap = source.outputs.tap()
    source.outputs.start()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await tap.read()
    waiting = asyncio.create_task(tap.read())
    await asyncio.sleep(0)
    source.write(2, b"x")
    assert await asyncio.wait_for(waiting, 60) == (2, b"x")


async def test_the_slowest_tap_holds_the_writer_and_its_leaving_frees_it(source: Source) -> None:
    slow, quick = source.outputs.tap(), source.outputs.tap()
    source.outputs.start()
    reading = asyncio.create_task(rest(quick))
    first = await source.fill()
    assert BEHIND < first < 8 * BEHIND
    assert slow.behind < 2 * BEHIND
    source.outputs.untap(slow)
    second = await source.fill(8 * BEHIND)
    assert second >= 8 * BEHIND
    source.end(1)
    source.outputs.drain()
    assert await asyncio.wait_for(reading, 60) == first + second


async def test_a_tap_that_catches_up_frees_the_writer(source: Source) -> None:
    tap = source.outputs.tap()
    source.outputs.start()
    written = await source.fill()
    received = 0
    while received < written:
        received += len((await read(tap))[1])
    assert await source.fill() > 0


async def test_nobody_listening_holds_nobody(source: Source) -> None:
    source.outputs.start()
    for _ in range(40):
        await asyncio.sleep(0.001)
        source.write(1, bytes(60000))


async def test_a_drain_hands_out_what_was_left_to_those_who_do_not_read(source: Source) -> None:
    tap = source.outputs.tap()
    source.outputs.start()
    written = await source.fill()
    source.outputs.drain()  # the writer's end is still open
    assert await rest(tap) == written
    assert await read(tap) == (0, b"")


async def test_one_output_that_ends_leaves_the_other(source: Source) -> None:
    tap = source.outputs.tap()
    source.outputs.start()
    source.end(1)
    await asyncio.sleep(0.01)
    source.write(2, b"still here")
    assert await read(tap) == (2, b"still here")


async def test_many_small_pieces_count_for_more_than_their_bytes() -> None:
    tap = Tap(lambda: None)
    for _ in range(BEHIND // 100):
        tap.push(1, b"x")
    assert tap.behind > BEHIND


async def test_an_input_waits_for_its_reader_and_keeps_clients_apart() -> None:
    theirs, ours = os.pipe()
    os.set_blocking(ours, False)
    target = Input(ours, terminal=False)
    size = 3 << 20
    writing = [asyncio.create_task(target.write(letter * size)) for letter in (b"a", b"b")]
    received = await asyncio.to_thread(lambda: b"".join(iter_read(theirs, 2 * size)))
    await asyncio.gather(*writing)
    assert received == b"a" * size + b"b" * size
    target.end()
    assert os.read(theirs, 1) == b""
    with pytest.raises(BrokenPipeError):
        await target.write(b"x")
    os.close(theirs)


def iter_read(descriptor: int, size: int) -> Iterator[bytes]:
    while size and (data := os.read(descriptor, 1 << 16)):
        size -= len(data)
        yield data


async def test_closing_an_input_wakes_who_writes() -> None:
    theirs, ours = os.pipe()
    os.set_blocking(ours, False)
    target = Input(ours, terminal=False)
    writing = asyncio.create_task(target.write(bytes(4 << 20)))
    await asyncio.sleep(0.01)
    target.close()
    with pytest.raises(BrokenPipeError):
        await asyncio.wait_for(writing, 60)
    os.close(theirs)


async def test_a_terminals_input_does_not_end_and_a_master_without_users_is_no_error() -> None:
    master, slave = os.openpty()
    os.set_blocking(master, False)
    outputs, target = Outputs({master: 1}), Input(master, terminal=True)
    tap = outputs.tap()
    outputs.start()
    target.end()
    await target.write(b"typed\n")
    await said(tap, b"typed\r\n")
    os.write(slave, b"last words")
    os.close(slave)
    await asyncio.sleep(0.01)
    outputs.drain()
    await said(tap, b"last words")
    assert await read(tap) == (0, b"")


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


async def test_exec_output_input_and_code() -> None:
    process = Exec("cat; echo err >&2; exit 6").process
    await process.write(b"in")
    await process.close_stdin()
    pieces = {}
    while (piece := await asyncio.wait_for(process.read(), 60)) != (0, b""):
        pieces[piece[0]] = piece[1]
    assert pieces == {1: b"in", 2: b"err\n"}
    assert await process.wait() == 6
    await process.close()
    await process.close()


async def test_exec_write_to_a_closed_input_says_so() -> None:
    process = Exec("exec 0<&-; echo ready; exec sleep 1000").process
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
    process = Exec("sleep 1000 & echo $!; exit 0").process
    number, data = await process.read()
    assert await asyncio.wait_for(process.read(), 60) == (0, b"")
    await process.close()
    os.kill(int(data), 9)
    assert number == 1


async def test_exec_close_ends_a_waiting_reader() -> None:
    process = Exec("exec sleep 1000").process
    waiting = asyncio.create_task(process.read())
    await asyncio.sleep(0)
    await process.close()
    assert await asyncio.wait_for(waiting, 60) == (0, b"")
    process._child.kill()
    await process.wait()


async def test_who_comes_when_all_was_read_sees_the_end():
    reading, writing = os.pipe2(os.O_NONBLOCK)
    outputs = Outputs({reading: 1})
    outputs.start()
    os.write(writing, b"x")
    outputs.drain()
    os.close(writing)
    assert await asyncio.wait_for(outputs.tap().read(), 60) == (0, b"")
