"""Copying between a client and a process: who ends what."""

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from descriptors import descriptors
from wherry.engine.container import detach
from wherry.engine.container.streams import Outcome, connect
from wherry.engine.errors import BadParameter
from wherry.host.hijack import HijackedStream
from wherry.wire.docker_stream import Demultiplexer


class Client:
    def __init__(self, *inputs):
        self.inputs = list(inputs)
        self.sent = b""
        self.left = asyncio.Event()
        self.more = asyncio.Event()

    async def read(self):
        if not self.inputs:
            await self.more.wait()
            return b""
        return self.inputs.pop(0)

    async def write(self, *pieces):
        if self.left.is_set():
            raise ConnectionResetError
        self.sent += b"".join(pieces)

    async def gone(self):
        await self.left.wait()


class Process:
    def __init__(self, *pieces):
        self.pieces = list(pieces)
        self.input = b""
        self.closed = False
        self.ended = asyncio.Event()
        self.deaf = False

    async def read(self):
        if self.pieces:
            return self.pieces.pop(0)
        await self.ended.wait()
        return 0, b""

    async def write(self, data):
        if self.deaf:
            raise BrokenPipeError
        self.input += data

    async def close_stdin(self):
        self.closed = True
        self.ended.set()


async def test_output_is_framed_for_those_who_want_it():
    client, process = Client(), Process((1, b"out"), (2, b"err"))
    process.ended.set()
    assert await connect(client, process, framed=True, stdin=False) is Outcome.ENDED
    assert Demultiplexer().feed(client.sent) == [(1, b"out"), (2, b"err")]


async def test_streams_that_are_not_wanted_are_left_out():
    client, process = Client(), Process((1, b"out"), (2, b"err"))
    process.ended.set()
    outputs = frozenset((2,))
    await connect(client, process, framed=False, stdin=False, outputs=outputs)
    assert client.sent == b"err"


async def test_the_end_of_input_is_passed_on_and_output_goes_on():
    client, process = Client(b"in", b""), Process()
    assert await connect(client, process, framed=True, stdin=True) is Outcome.ENDED
    assert (process.input, process.closed) == (b"in", True)


async def test_where_input_stays_open_its_end_is_the_end_of_the_connection():
    client, process = Client(b"in", b""), Process()
    outcome = await connect(client, process, framed=True, stdin=True, close_stdin=False)
    assert (outcome, process.input, process.closed) == (Outcome.GONE, b"in", False)


async def test_a_terminal_is_not_closed_by_the_end_of_input():
    client, process = Client(b"\x10", b""), Process()
    keys = detach.DEFAULT
    outcome = await connect(
        client, process, framed=False, terminal=True, stdin=True, detach_keys=keys
    )
    assert (outcome, process.input, process.closed) == (Outcome.GONE, b"\x10", False)


async def test_detach_keys_end_the_connection():
    client, process = Client(b"ls\n\x10", b"\x11more"), Process()
    keys = detach.DEFAULT
    outcome = await connect(
        client, process, framed=False, terminal=True, stdin=True, detach_keys=keys
    )
    assert (outcome, process.input) == (Outcome.DETACHED, b"ls\n")


async def test_without_a_terminal_there_are_no_detach_keys():
    client, process = Client(b"\x10\x11", b""), Process()
    await connect(client, process, framed=True, stdin=True, detach_keys=detach.DEFAULT)
    assert process.input == b"\x10\x11"


async def test_a_process_that_reads_no_more_goes_on_writing():
    client, process = Client(b"in"), Process()
    process.deaf = True
    running = asyncio.create_task(connect(client, process, framed=False, stdin=True))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not running.done()
    process.pieces.append((1, b"late"))
    process.ended.set()
    # The first read waits for the end and answers it; nothing is lost with a real stream.
    assert await running is Outcome.ENDED


@pytest.mark.parametrize("stdin", [True, False])
async def test_a_client_that_leaves_ends_the_connection(stdin):
    client, process = Client(b"in", b"") if stdin else Client(), Process()
    process.close_stdin = lambda: asyncio.sleep(0)
    running = asyncio.create_task(connect(client, process, framed=False, stdin=stdin))
    await asyncio.sleep(0.001)
    client.left.set()
    assert await running is Outcome.GONE


# ---- the client's end


async def hijacked(connection):
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=connection)
    return HijackedStream(transport, b"")


async def test_a_half_closed_connection_is_not_gone_but_a_closed_one_is():
    ours, theirs = socket.socketpair()
    stream = await hijacked(ours)
    gone = asyncio.create_task(stream.gone())
    theirs.shutdown(socket.SHUT_WR)
    assert await stream.read() == b""
    await asyncio.wait((gone,), timeout=0.05)
    assert not gone.done()
    theirs.close()
    await asyncio.wait_for(gone, 60)
    before = descriptors()
    await stream.gone()
    assert not descriptors() - before
    await stream.close()


# ---- detach keys


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", b"\x10\x11"),
        (
            "ctrl-a,a,ctrl-],ctrl-@,ctrl-_,DEL,ctrl-[,ctrl-\\,ctrl-^",
            b"\x01a\x1d\x00\x1f\x7f\x1b\x1c\x1e",
        ),
    ],
)
def test_keys(text, keys):
    assert detach.parse(text) == keys


@pytest.mark.parametrize("text", ["ctrl-A", "ctrl-1", "ab", "ctrl-", "a,,b", "é"])
def test_what_no_terminal_sends_is_refused(text):
    with pytest.raises(BadParameter) as caught:
        detach.parse(text)
    assert caught.value.message == f"Invalid detach keys ({text}) provided"


@given(st.lists(st.binary(max_size=5)), st.binary(min_size=1, max_size=3))
def test_without_the_whole_sequence_all_is_passed_on(chunks, keys):
    filter_ = detach.DetachFilter(keys)
    passed = b""
    for chunk in chunks:
        data, detached = filter_.feed(chunk)
        passed += data
        if detached:
            assert b"".join(chunks).startswith(passed + keys)
            return
    assert passed + filter_.flush() == b"".join(chunks)


async def test_what_was_sent_is_taken_when_the_client_has_read_it(monkeypatch):
    monkeypatch.setattr("wherry.host.hijack._PATIENCE", 1000)
    ours, theirs = socket.socketpair()
    stream = await hijacked(ours)
    await asyncio.wait_for(stream.taken(), 60)
    await stream.write(b"head")
    taken = asyncio.create_task(stream.taken())
    await asyncio.wait((taken,), timeout=0.05)
    assert not taken.done()
    assert theirs.recv(99) == b"head"
    await asyncio.wait_for(taken, 60)
    await stream.write(b"head")
    taken = asyncio.create_task(stream.taken())
    await asyncio.sleep(0.01)
    theirs.close()
    await asyncio.wait_for(taken, 60)
    await stream.close()
