"""The driver ``local``: dockerd's compact format, and the copy beside drivers that cannot be read.

A message is a protocol buffer between two copies of its length, four bytes each, big-endian, so
that a file can be read from either end:

    LogEntry:       1 source (string), 2 time in nanoseconds (int64), 3 line (bytes),
                    4 partial (bool), 5 PartialLogEntryMetadata
    … metadata:     1 last (bool), 2 id (string), 3 ordinal (int32)
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO

from wherry.engine.container.units import timestamp
from wherry.engine.logs import options
from wherry.engine.logs.files import Decoder, LogFile
from wherry.engine.logs.info import Info
from wherry.engine.logs.types import STREAMS, Entry, FileWriter, Partial, Piece, RawTime
from wherry.wire import protobuf
from wherry.wire.docker_stream import STDERR, STDOUT

NAME = "local"
OPTIONS = frozenset(("max-file", "max-size", "compress"))
MAX_SIZE, MAX_FILE = 20 << 20, 5

_LENGTH = struct.Struct(">I")
# No message is longer; a length beyond this is none.
_LONGEST = 1 << 20


def check(config: Mapping[str, str]) -> None:
    """Whether the driver knows all options.

    Raises:
        BadParameter: it does not.
    """
    options.check_known(config, OPTIONS, "unknown log opt '{}' for log driver local")


class Writer(FileWriter):
    """Writes the log of one run.

    Raises:
        ValueError: an option makes no sense.
        OSError: the file cannot be opened.
    """

    def __init__(self, info: Info) -> None:
        config = info.config
        capacity = _read(config, "max-size", options.human_size, MAX_SIZE)
        max_files = _read(config, "max-file", options.integer, MAX_FILE)
        compress = True
        if "compress" in config:
            try:
                compress = options.boolean(config["compress"])
            except ValueError as error:
                raise ValueError(f"error reading compress log option: {error}") from None
        if max_files < 0:
            raise ValueError("max file count cannot be less than 0")
        if compress and max_files <= 1:
            raise ValueError("compression cannot be enabled when max file count is 1")
        info.path.parent.mkdir(mode=0o700, exist_ok=True)
        super().__init__(
            LogFile(
                info.path,
                LocalEntries(),
                capacity=capacity,
                max_files=max_files,
                compress=compress,
            )
        )

    def encode(self, pieces: Sequence[Piece]) -> bytes:
        return b"".join(map(encode, pieces))


def _read(config: Mapping[str, str], name: str, parse: Callable[[str], int], default: int) -> int:
    if name not in config:
        return default
    try:
        return parse(config[name])
    except ValueError as error:
        raise ValueError(f"invalid value for {name}: {config[name]}: {error}") from None


# ---- the encoding


def encode(piece: Piece) -> bytes:
    """The messages in the file for ``piece``."""
    name = STREAMS[piece.stream].encode()
    head = protobuf.field(1, name) + b"\x10" + protobuf.varint(piece.time)
    tail = b"" if piece.partial is None else _encode_partial(piece.partial)
    frames: dict[int, tuple[bytes, bytes]] = {}  # by length, what stands before and behind a line
    output: list[bytes] = []
    for line in piece.lines:
        length = len(line)
        frame = frames.get(length)
        if frame is None:
            inner = head + (b"\x1a" + protobuf.varint(length) if length else b"")
            size = _LENGTH.pack(len(inner) + length + len(tail))
            frame = frames[length] = size + inner, tail + size
        output += (frame[0], line, frame[1])
    return b"".join(output)


def _encode_partial(partial: Partial) -> bytes:
    inner = b"\x08\x01" if partial.last else b""
    inner += protobuf.field(2, partial.id.encode()) + b"\x18" + protobuf.varint(partial.ordinal)
    return b"\x20\x01" + protobuf.field(5, inner)


def _fields(data: bytes) -> dict[int, int | bytes]:
    found: dict[int, int | bytes] = {}
    for number, type, value in protobuf.fields(data):
        if type not in (protobuf.VARINT, protobuf.BYTES):
            raise protobuf.Malformed("not a log entry")
        found[number] = value
    return found


def decode(data: bytes) -> Entry | None:
    """One message; None where it is none."""
    try:
        fields = _fields(data)
        line, moment = fields.get(3, b""), fields.get(2, 0)
        last = True
        if fields.get(4):
            partial = fields.get(5, b"")
            last = isinstance(partial, bytes) and bool(_fields(partial).get(1))
    except protobuf.Malformed:
        return None
    if not isinstance(line, bytes) or not isinstance(moment, int):
        return None
    stream = STDERR if fields.get(1) == b"stderr" else STDOUT
    return stream, moment, line + b"\n" if last else line, None


class LocalEntries:
    """The format, for files and readers."""

    def cut(self, batch: bytes, at: int) -> int:
        end = 0
        while end < at:
            end += _LENGTH.unpack_from(batch, end)[0] + 2 * _LENGTH.size
        return end

    def end(self, file: BinaryIO) -> int:
        size = file.seek(0, os.SEEK_END)
        if _before(file, size) is not None:
            return size
        file.seek(0)
        at = 0
        while True:
            head = file.read(_LENGTH.size)
            if len(head) < _LENGTH.size:
                return at
            length = _LENGTH.unpack(head)[0]
            file.seek(at + _LENGTH.size + length)
            if length > _LONGEST or file.read(_LENGTH.size) != head:
                return at
            at = file.tell()

    def tail(self, file: BinaryIO, messages: int) -> tuple[int, int]:
        at = file.seek(0, os.SEEK_END)
        found = 0
        while found < messages and (begin := _before(file, at)) is not None:
            at = begin
            found += 1
        return at, found

    def decoder(self) -> Decoder:
        return LocalDecoder()


def _before(file: BinaryIO, end: int) -> int | None:
    """Where the message begins that ends at ``end``; None where none does."""
    if end < 2 * _LENGTH.size:
        return None
    file.seek(end - _LENGTH.size)
    foot = file.read(_LENGTH.size)
    begin = end - _LENGTH.unpack(foot)[0] - 2 * _LENGTH.size
    if begin < 0:
        return None
    file.seek(begin)
    return begin if file.read(_LENGTH.size) == foot else None


class LocalDecoder:
    """Finds the messages in such a file."""

    def __init__(self) -> None:
        self._rest = b""
        self._second = (0, "")

    def feed(self, data: bytes) -> list[Entry]:
        data = self._rest + data
        at, entries = 0, []
        while at + _LENGTH.size <= len(data):
            begin = at + _LENGTH.size
            end = begin + _LENGTH.unpack_from(data, at)[0]
            if end - begin > _LONGEST:
                at = len(data)  # damaged: nothing after this can be found
                break
            if end + _LENGTH.size > len(data):
                break
            if (entry := decode(data[begin:end])) is not None:
                entries.append(entry)
            at = end + _LENGTH.size
        self._rest = data[at:]
        return entries

    def fixed_time(self, time: RawTime) -> str:
        second, fraction = divmod(int(time), 1_000_000_000)
        if second != self._second[0]:
            self._second = second, timestamp(second * 1_000_000_000, fixed=True)[:20]
        return f"{self._second[1]}{fraction:09d}Z"
