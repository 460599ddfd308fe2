"""Options, attributes, tags and what is sent, driver by driver."""

import asyncio
import re
import socket
import struct

import pytest
from log_info import info

from wherry.engine.errors import BadParameter
from wherry.engine.logs import check_options, journald, json_file, local, options, syslog
from wherry.engine.logs.ring import Ring
from wherry.engine.logs.sink import Sink
from wherry.engine.logs.types import Partial, Piece

T = 1_714_557_600_000_000_000


@pytest.mark.parametrize(
    ("driver", "config", "error"),
    [
        ("json-file", {"max-size": "10m", "max-file": "3", "mode": "non-blocking"}, ""),
        ("json-file", {"x": "y"}, "unknown log opt 'x' for json-file log driver"),
        ("local", {"tag": "y"}, "unknown log opt 'tag' for log driver local"),
        ("syslog", {"max-size": "1"}, "unknown log opt 'max-size' for syslog log driver"),
        ("journald", {"max-size": "1"}, "unknown log opt 'max-size' for journald log driver"),
        ("nope", {}, "logger: no log driver named 'nope' is registered"),
        ("none", {"x": "y"}, ""),
        ("json-file", {"mode": "x"}, "logger: logging mode not supported: x"),
        (
            "json-file",
            {"max-buffer-size": "1m"},
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        (
            "local",
            {"mode": "non-blocking", "max-buffer-size": "x"},
            "error parsing option max-buffer-size: invalid size: 'x'",
        ),
        ("syslog", {"cache-disabled": "x"}, "invalid value for option cache-disabled: x"),
        ("syslog", {"syslog-facility": "x"}, "invalid syslog facility"),
        ("syslog", {"syslog-facility": "24"}, "invalid syslog facility"),
        ("syslog", {"syslog-facility": "local7"}, ""),
        ("syslog", {"syslog-format": "x"}, "Invalid syslog format"),
        (
            "syslog",
            {"syslog-address": "1.2.3.4:514"},
            "syslog-address should be in form proto://address, got 1.2.3.4:514",
        ),
        (
            "syslog",
            {"syslog-address": "unix:///nope"},
            "stat /nope: no such file or directory",
        ),
    ],
)
def test_options_are_judged_at_creation(driver, config, error):
    if not error:
        check_options(driver, config)
        return
    with pytest.raises(BadParameter) as caught:
        check_options(driver, config)
    assert caught.value.message == error


@pytest.mark.parametrize(
    ("driver", "config", "error"),
    [
        (json_file, {"max-size": "x"}, "invalid size: 'x'"),
        (json_file, {"max-size": "0"}, "max-size must be a positive number"),
        (json_file, {"max-file": "x"}, 'strconv.Atoi: parsing "x": invalid syntax'),
        (json_file, {"max-file": "0"}, "max-file cannot be less than 1"),
        (json_file, {"compress": "x"}, 'strconv.ParseBool: parsing "x": invalid syntax'),
        (
            json_file,
            {"compress": "true"},
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        ),
        (local, {"max-size": "x"}, "invalid value for max-size: x: invalid size: 'x'"),
        (local, {"max-file": "-1"}, "max file count cannot be less than 0"),
        (local, {"max-file": "1"}, "compression cannot be enabled when max file count is 1"),
        (journald, {}, "journald is not enabled on this host"),
    ],
)
async def test_options_are_judged_at_the_start(driver, config, error, tmp_path, monkeypatch):
    monkeypatch.setattr(journald, "SOCKET", tmp_path / "nope")
    with pytest.raises(ValueError, match=re.escape(error)):
        driver.Writer(info(config, tmp_path / "log"))


def test_sizes_are_decimal_or_binary():
    assert options.human_size("10m") == 10_000_000
    assert options.human_size("1.5 KiB") == 1500
    assert options.human_size("2k", 1024) == 2048
    assert options.human_size("7") == 7


def test_attributes_are_chosen_by_list_and_pattern():
    chosen = info({"labels": "team,nope", "env-regex": "^B", "env": "C"}).attributes()
    assert chosen == {"team": "x", "B": "2=3"}


async def test_json_lines_carry_attributes_and_the_tag(tmp_path):
    config = {"labels": "tier", "tag": "{{.Name}}"}
    writer = json_file.Writer(info(config, tmp_path / "log"))
    await writer.write([Piece(1, T, b"x\n")])
    assert b'"attrs":{"tag":"web","tier":"y"},' in (tmp_path / "log").read_bytes()


# ---- syslog


def test_addresses():
    assert syslog.parse_address("") == ("", "", 0)
    assert syslog.parse_address("udp://1.2.3.4") == ("udp", "1.2.3.4", 514)
    assert syslog.parse_address("tcp+tls://[::1]:6514") == ("tcp+tls", "::1", 6514)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("", rb"<28>\w{3} [ \d]\d \d\d:\d\d:\d\d tag\[\d+\]: x\n"),
        ("rfc3164", rb"<28>\w{3} [ \d]\d \d\d:\d\d:\d\d host tag\[\d+\]: x\n"),
        ("rfc5424", rb"<28>1 [-\d]+T[\d:]+(Z|[-+]\d\d:\d\d) host tag \d+ tag - x\n"),
        ("rfc5424micro", rb"<28>1 [-\d]+T[\d:]+\.\d{6}(Z|[-+]\d\d:\d\d) host tag \d+ tag - x\n"),
    ],
)
def test_formats(name, pattern):
    message = syslog.formatter(name)(28, "host", "tag", b"x\n")
    assert re.fullmatch(pattern, message), message


def test_counted_messages():
    assert syslog.counted(b"abc\n") == b"4 abc\n"


async def test_datagrams_go_one_a_line_and_severity_follows_the_stream():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(60)
        config = {
            "syslog-address": f"udp://127.0.0.1:{server.getsockname()[1]}",
            "syslog-facility": "local0",
        }
        writer = syslog.Writer(info(config))
        await writer.connect()
        await writer.write([Piece(1, T, b"one\n\n"), Piece(2, T, b"two\n")])
        first, second = server.recv(999), server.recv(999)
        await writer.close()
    assert first.startswith(b"<134>") and first.endswith(b"0123456789ab[%d]: one\n" % _pid())
    assert second.startswith(b"<131>") and second.endswith(b": two\n")


def _pid():
    import os

    return os.getpid()


async def test_a_lost_connection_is_made_anew():
    received, connections = asyncio.Queue(), []

    async def serve(reader, writer):
        connections.append(writer)
        while line := await reader.readline():
            received.put_nowait(line)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    writer = syslog.Writer(info({"syslog-address": address, "tag": "t"}))
    await writer.connect()
    await writer.write([Piece(1, T, b"one\n")])
    assert (await received.get()).endswith(b": one\n")
    connections[0].close()
    await asyncio.sleep(0.05)
    await writer.write([Piece(1, T, b"two\n")])
    assert (await received.get()).endswith(b": two\n")
    await writer.close()
    server.close()


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("tcp://127.0.0.1:1", "dial tcp 127.0.0.1:1: connect: connection refused"),
        ("tcp+tls://[::1]:1", "dial tcp [::1]:1: connect: "),
    ],
)
async def test_nobody_listens(address, error):
    writer = syslog.Writer(info({"syslog-address": address}))
    with pytest.raises(OSError) as caught:
        await writer.connect()
    assert error in caught.value.strerror


async def test_without_an_address_the_local_daemon_is_asked(tmp_path, monkeypatch):
    path = tmp_path / "log"
    monkeypatch.setattr(syslog, "LOCAL", (str(path),))
    writer = syslog.Writer(info({}))
    with pytest.raises(OSError, match="Unix syslog delivery error"):
        await writer.connect()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        server.settimeout(60)
        await writer.write([Piece(1, T, b"x\n")])
        assert server.recv(99).startswith(b"<30>")
    await writer.close()


# ---- journald


def test_names_of_fields():
    assert journald.field_name("__com.Example-x1") == "COM_EXAMPLE_X1"


def test_values_with_newlines_are_counted():
    assert journald.encode({"A": b"x", "B": b"y\nz"}) == (
        b"A=x\nB\n" + struct.pack("<Q", 3) + b"y\nz\n"
    )


async def test_the_journal_gets_fields(tmp_path, monkeypatch):
    path = tmp_path / "socket"
    monkeypatch.setattr(journald, "SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        server.settimeout(60)
        writer = journald.Writer(info({"labels": "team", "tag": "{{.Name}}"}))
        await writer.connect()
        await writer.write([Piece(2, T, b"hello\n"), Piece(1, T, b"part", Partial("p", 1, False))])
        first = dict(line.split(b"=", 1) for line in server.recv(9999).splitlines())
        second = dict(line.split(b"=", 1) for line in server.recv(9999).splitlines())
        large = b"x" * (1 << 20)
        await writer.write([Piece(1, T, large + b"\n")])
        data, files, _, _ = socket.recv_fds(server, 99, 1)
        with open(files[0], "rb") as file:
            file.seek(0)
            assert b"MESSAGE=" + large in file.read()
        assert data == b""
        await writer.close()
    assert first[b"MESSAGE"] == b"hello" and first[b"PRIORITY"] == b"3"
    assert first[b"CONTAINER_NAME"] == b"web" and first[b"CONTAINER_ID"] == b"0123456789ab"
    assert first[b"CONTAINER_TAG"] == b"web" and first[b"IMAGE_NAME"] == b"busybox:latest"
    assert first[b"TEAM"] == b"x"
    assert second[b"CONTAINER_PARTIAL_MESSAGE"] == b"true"
    assert second[b"CONTAINER_PARTIAL_LAST"] == b"false"


# ---- non-blocking mode, and the sink


class Slow:
    def __init__(self):
        self.file = None
        self.taken = []
        self.open = asyncio.Event()
        self.closed = self.abandoned = False
        self.fail = False

    async def connect(self):
        return

    async def settle(self):
        return

    async def write(self, pieces):
        await self.open.wait()
        if self.fail:
            raise OSError(28, "No space left on device")
        self.taken += [piece.data for piece in pieces]

    async def close(self):
        self.closed = True

    def abandon(self):
        self.abandoned = True


async def test_messages_without_room_are_dropped():
    slow = Slow()
    ring = Ring(slow, 10)
    await ring.write([Piece(1, T, b"aaa\nbbb\nccc\n"), Piece(1, T, b"d\n")])
    await ring.write([Piece(1, T, b"eee\n")])
    slow.open.set()
    await ring.close()
    assert b"".join(slow.taken) == b"aaa\nbbb\nd\n"
    assert slow.closed


async def test_a_message_larger_than_the_buffer_is_taken_alone():
    slow = Slow()
    ring = Ring(slow, 2)
    await ring.write([Piece(1, T, b"long\nmore\n")])
    slow.open.set()
    await ring.close()
    assert slow.taken == [b"long\n"]


async def test_a_log_that_fails_is_told_once_and_holds_nobody_up(caplog):
    slow = Slow()
    slow.open.set()
    slow.fail = True
    closed = []
    sink = Sink("f" * 64, [slow], lambda: closed.append(1))
    await sink.write(1, b"one\n")
    await sink.write(1, b"two\n")
    slow.fail = False
    await sink.write(1, b"three")
    await sink.close()
    assert slow.taken == [b"three"] and closed == [1]
    assert caplog.text.count("No space left") == 1


async def test_a_log_that_nobody_takes_is_let_go_of(caplog, monkeypatch):
    monkeypatch.setattr("wherry.engine.logs.sink.CLOSE_TIMEOUT", 0)
    slow, closed = Slow(), []
    ring = Ring(slow, 100)
    sink = Sink("f" * 64, [ring], lambda: closed.append(1))
    await sink.write(1, b"one\n")
    draining = ring._task
    await sink.close()
    assert closed == [1]
    assert not slow.abandoned  # its socket is still waited for
    await asyncio.wait([draining])
    await asyncio.sleep(0)
    assert draining.cancelled() and slow.abandoned


async def test_a_connection_that_takes_nothing_is_cut():
    gone = asyncio.Event()

    async def serve(reader, writer):
        await gone.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    writer = syslog.Writer(info({"syslog-address": f"tcp://127.0.0.1:{port}"}))
    await writer.connect()
    transport = writer._connection._writer.transport
    transport.write(b"x" * (16 << 20))
    writer.abandon()
    assert transport.is_closing() and not transport.get_write_buffer_size()
    gone.set()
    server.close()
