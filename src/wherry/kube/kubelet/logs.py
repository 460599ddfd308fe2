"""Logs of containers: files in the CRI format, read from the front, the end, a time, or followed.

A line is ``<RFC 3339 time> <stdout|stderr> <F|P> <text>``; ``P`` marks a part of a longer line
(https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md).
A follower sleeps in inotify(7) until the file grows, and ends when the container has ended and all
was read.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from wherry.host.readiness import readable

CHUNK = 64 * 1024
_IN_MODIFY, _IN_MOVE_SELF, _IN_DELETE_SELF = 0x2, 0x800, 0x400


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What of a log is wanted; the names are those of ``PodLogOptions``."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    since: datetime | None = None
    tail: int | None = None  # lines
    limit: int | None = None  # bytes


class LogReader:
    """Turns the lines of a log file into what the user sees. No I/O."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._since = _stamp(options.since) if options.since is not None else b""
        self._rest = b""
        self._within_line = False
        self._left = options.limit

    @property
    def full(self) -> bool:
        """Whether the limit of bytes has been reached."""
        return self._left is not None and self._left <= 0

    def feed(self, data: bytes) -> bytes:
        """What ``data``, behind all that came before, adds to the output."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        output = b"".join(self._line(line) for line in lines)
        if self._left is not None:
            output = output[: max(self._left, 0)]
            self._left -= len(output)
        return output

    def _line(self, line: bytes) -> bytes:
        stamp, _, rest = line.partition(b" ")
        _stream, _, rest = rest.partition(b" ")
        tag, space, text = rest.partition(b" ")
        if not space and not tag:
            return b""  # not of this format: nothing that a container wrote
        if self._since and _comparable(stamp) < self._since:
            return b""
        begins = not self._within_line
        self._within_line = tag.startswith(b"P")
        if stamp.endswith(b"+00:00"):
            stamp = stamp[:-6] + b"Z"
        prefix = stamp + b" " if self._options.timestamps and begins else b""
        return prefix + text + (b"" if self._within_line else b"\n")


def _stamp(moment: datetime) -> bytes:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").encode()


def _comparable(stamp: bytes) -> bytes:
    """The moment in UTC, so that bytes compare as times do."""
    if stamp.endswith(b"Z"):
        return stamp[:-1]
    if stamp.endswith(b"+00:00"):
        return stamp[:-6]
    try:
        text = stamp.decode()
        head, dot, fraction = text.partition(".")
        digits = "".join(c for c in fraction if c.isdigit() or c in "+-:")
        sign = max(digits.find("+"), digits.find("-"))
        nanos, zone = (digits[:sign], digits[sign:]) if sign >= 0 else (digits, "")
        return _stamp(datetime.fromisoformat(f"{head}{dot}{nanos[:6]}{zone}"))
    except ValueError:
        return stamp


def tail_offset(file: BinaryIO, lines: int) -> int:
    """Where the last ``lines`` lines of ``file`` begin."""
    size = file.seek(0, os.SEEK_END)
    if lines <= 0:
        return size
    position = size
    found = 0
    while position > 0:
        length = min(CHUNK, position)
        position -= length
        file.seek(position)
        data = file.read(length)
        end = len(data)
        while (index := data.rfind(b"\n", 0, end)) >= 0:
            # The one that ends the last line begins none.
            if position + index + 1 < size:
                found += 1
                if found == lines:
                    return position + index + 1
            end = index
    return 0


async def read_log(
    path: Path, options: LogOptions, is_running: Callable[[], bool], ended: asyncio.Event
) -> AsyncIterator[bytes]:
    """The log as pieces of output; followed, if asked, until the container has ended.

    ``ended`` is set when the container has ended; ``is_running`` says whether it still runs.

    Raises:
        FileNotFoundError: there is no such log.
    """
    reader = LogReader(options)
    with path.open("rb", buffering=0) as file, _Growth(path, options.follow) as growth:
        if options.tail is not None:
            file.seek(tail_offset(file, options.tail))
        while not reader.full:
            # Asked before the read: what a container wrote before it ended is in the file then.
            last_round = not options.follow or not is_running()
            data = file.read(CHUNK)
            if data:
                output = reader.feed(data)
                if output:
                    yield output
                continue
            if last_round:
                return
            await growth.wait(ended)


class _Growth:
    """Waits until a file grows, through inotify."""

    def __init__(self, path: Path, wanted: bool) -> None:
        self._path = path
        self._wanted = wanted
        self._descriptor = -1

    def __enter__(self) -> _Growth:
        if not self._wanted:
            return self
        library = _library()
        self._descriptor = library.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        mask = _IN_MODIFY | _IN_MOVE_SELF | _IN_DELETE_SELF
        if library.inotify_add_watch(self._descriptor, os.fsencode(self._path), mask) < 0:
            number = ctypes.get_errno()
            os.close(self._descriptor)
            raise OSError(number, os.strerror(number), self._path)
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    async def wait(self, ended: asyncio.Event) -> None:
        """Return when the file has grown or the container has ended."""
        growing = asyncio.create_task(readable(self._descriptor))
        ending = asyncio.create_task(ended.wait())
        try:
            await asyncio.wait((growing, ending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (growing, ending):
                task.cancel()
            await asyncio.gather(growing, ending, return_exceptions=True)
        try:
            os.read(self._descriptor, CHUNK)
        except BlockingIOError:
            return


@cache
def _library() -> Any:
    return ctypes.CDLL(None, use_errno=True)
