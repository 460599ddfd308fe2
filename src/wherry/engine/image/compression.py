"""Seeing through compression, in bounded memory and against archives made to burst.

What a stream is compressed with is told from its first bytes, as Docker does, whatever its name or
media type says. ``expand`` gives a file of the plain bytes; it holds one window and one buffer,
and refuses to go on when the result is out of all proportion to the input (``Bounds``).
"""

from __future__ import annotations

import io
import os
from enum import Enum
from pathlib import Path
from typing import IO, Any, Protocol, cast

from wherry.engine.errors import BadParameter

CHUNK = 256 << 10
BUFFER = 1 << 20
WINDOW_LIMIT = 128 << 20  # bytes a zstd or xz stream may make us hold

# gzip cannot do better than about 1030:1, and zeros reach that, so a small ratio alone proves
# nothing: a small archive may blow up to RATIO_FREE bytes, beyond that only by RATIO_LIMIT.
RATIO_FREE = 1 << 30
RATIO_LIMIT = 200
DISK_RESERVE = 256 << 20  # bytes that must stay free for everything else
_CHECK_EVERY = 64 << 20


class Compression(Enum):
    """How a stream is packed; the value is the suffix of an OCI layer's media type."""

    NONE = ""
    GZIP = "gzip"
    ZSTD = "zstd"
    BZIP2 = "bzip2"
    XZ = "xz"


_MAGIC = (
    (b"\x1f\x8b\x08", Compression.GZIP),
    (b"\x28\xb5\x2f\xfd", Compression.ZSTD),
    (b"BZh", Compression.BZIP2),
    (b"\xfd7zXZ\0", Compression.XZ),
)


class CompressionError(Exception):
    """The compressed stream is damaged or ends too early."""


def detect(head: bytes) -> Compression:
    """What a stream that starts with ``head`` (six bytes or more) is packed with."""
    for magic, compression in _MAGIC:
        if head.startswith(magic):
            return compression
    # zstd may start with skippable frames; such as eStargz and zstd:chunked put there.
    if len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50:
        return Compression.ZSTD
    return Compression.NONE


class Bounds:
    """How much may come out of ``packed`` bytes, and whether the disk has room for it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._next_check = 0
        self.packed = 0
        self.plain = 0

    def count(self, packed: int, plain: int) -> None:
        """Account for what went in and what came out.

        Raises:
            BadParameter: it is a decompression bomb, or the disk would be full.
        """
        self.packed += packed
        self.plain += plain
        if self.plain > RATIO_FREE and self.plain > RATIO_LIMIT * self.packed:
            raise BadParameter(
                f"archive expands from {self.packed} to more than {self.plain} bytes: refused as"
                " a decompression bomb"
            )
        if self.plain >= self._next_check:
            self._next_check = self.plain + _CHECK_EVERY
            check_room(self._directory)


def check_room(directory: Path) -> None:
    """Raise BadParameter when the file system of ``directory`` has no more to give."""
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    if free < DISK_RESERVE:
        raise BadParameter(
            f"no space left on device: {free >> 20} MiB are free in {directory},"
            f" {DISK_RESERVE >> 20} MiB are kept in reserve"
        )


class _Decompressor(Protocol):
    """What the bz2 and lzma modules have in common."""

    eof: bool
    needs_input: bool
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """zlib in the shape of the others."""

    def __init__(self) -> None:
        import zlib

        self._inner = zlib.decompressobj(wbits=31)
        self._error = zlib.error

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        try:
            return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        except self._error as error:
            raise OSError(f"gzip: {error}") from error


class _Expanded(io.RawIOBase):
    """The plain bytes of a gzip, bzip2 or xz stream, which may have several members."""

    def __init__(self, source: IO[bytes], compression: Compression) -> None:
        super().__init__()
        self._source = source
        self._compression = compression
        self._current: _Decompressor | None = self._new()
        self._rest = b""  # input after the end of a member
        self._started = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        limit = min(len(buffer), CHUNK)
        while self._current is not None:
            if self._current.eof:
                self._rest = (self._current.unused_data or self._source.read(CHUNK)).lstrip(b"\0")
                self._current = self._new() if self._rest else None
                self._started = False
                continue
            data = self._rest
            self._rest = b""
            if not data and self._current.needs_input:
                data = self._source.read(CHUNK)
                if not data:
                    raise CompressionError("unexpected EOF")
            try:
                plain = self._current.decompress(data, limit)
            except (OSError, EOFError, ValueError, _lzma_error()) as error:
                raise CompressionError(str(error)) from error
            if plain:
                buffer[: len(plain)] = plain
                return len(plain)
        return 0

    def _new(self) -> _Decompressor:
        if self._compression is Compression.GZIP:
            return cast(_Decompressor, _Gzip())
        if self._compression is Compression.BZIP2:
            import bz2

            return cast(_Decompressor, bz2.BZ2Decompressor())
        import lzma

        return cast(_Decompressor, lzma.LZMADecompressor(memlimit=WINDOW_LIMIT))


def _lzma_error() -> type[Exception]:
    import lzma

    return lzma.LZMAError


class _Zstd(io.RawIOBase):
    """The plain bytes of a zstd stream, frame after frame."""

    def __init__(self, source: IO[bytes]) -> None:
        super().__init__()
        import zstandard

        self._error = zstandard.ZstdError
        self._reader = zstandard.ZstdDecompressor(max_window_size=WINDOW_LIMIT).stream_reader(
            source, read_size=CHUNK, read_across_frames=True
        )

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return self._reader.readinto(buffer)
        except self._error as error:
            raise CompressionError(str(error)) from error


class _Counted(io.RawIOBase):
    """Passes ``source`` on and reports both sides of the decompression to ``bounds``."""

    def __init__(self, plain: io.RawIOBase, packed: Meter, bounds: Bounds) -> None:
        super().__init__()
        self._plain, self._packed, self._bounds = plain, packed, bounds
        self._seen = packed.count

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = cast(Any, self._plain).readinto(buffer)
        packed = self._packed.count
        self._bounds.count(packed - self._seen, count)
        self._seen = packed
        return int(count)


class Meter(io.RawIOBase):
    """Counts what is read through it, and feeds it to ``digest`` where one is given."""

    def __init__(self, source: IO[bytes], digest: Any = None) -> None:
        super().__init__()
        self._source = source
        self._digest = digest
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._source.read(len(buffer))
        size = len(data)
        buffer[:size] = data
        self.count += size
        if self._digest is not None:
            self._digest.update(data)
        return size


def expand(
    source: io.BufferedReader[Any], bounds: Bounds
) -> tuple[Compression, io.BufferedReader[Any]]:
    """How ``source`` is packed, and a reader of its plain bytes.

    The reader raises CompressionError for damaged input, BadParameter beyond ``bounds``.
    """
    compression = detect(source.peek(6)[:6])
    packed = Meter(cast(IO[bytes], source))
    plain: io.RawIOBase
    if compression is Compression.NONE:
        plain = packed
    elif compression is Compression.ZSTD:
        plain = _Zstd(cast(IO[bytes], packed))
    else:
        plain = _Expanded(cast(IO[bytes], packed), compression)
    return compression, io.BufferedReader(_Counted(plain, packed, bounds), BUFFER)
