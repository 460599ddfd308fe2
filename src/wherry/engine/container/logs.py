"""Reading back what containers wrote: files in the CRI log format (see ``log_sink``).

A line is ``<RFC 3339 time> <stdout|stderr> <F|P> <text>``. ``P`` marks a piece of a longer line
whose next piece follows in the next line of the same stream; ``F`` its last piece. See
https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from wherry.engine.container.units import parse_rfc3339, timestamp
from wherry.wire.docker_stream import STDERR, STDOUT, frame

_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the file. ``time`` is as written; ``data`` has the newline that it stands for."""

    time: bytes
    stream: int
    partial: bool
    data: bytes

    @property
    def nanoseconds(self) -> int:
        """When it was written, since the epoch."""
        return parse_rfc3339(self.time.decode("ascii", "replace"))


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What of a log is wanted. Times are nanoseconds since the epoch, 0 for no bound."""

    stdout: bool = True
    stderr: bool = True
    timestamps: bool = False
    since: int = 0
    until: int = 0
    tail: int = -1  # messages from the end; -1 for all
    follow: bool = False


def parse(line: bytes) -> Entry | None:
    """One line without its newline; None where it is none of the format (a torn write)."""
    parts = line.split(b" ", 3)
    if len(parts) < 3 or parts[1] not in (b"stdout", b"stderr"):
        return None
    partial = parts[2].startswith(b"P")
    text = parts[3] if len(parts) == 4 else b""
    stream = STDERR if parts[1] == b"stderr" else STDOUT
    return Entry(parts[0], stream, partial, text if partial else text + b"\n")


def tail_offset(file: BinaryIO, messages: int) -> int:
    """Where the last ``messages`` messages of ``file`` begin; the pieces of a line are one."""
    end = file.seek(0, os.SEEK_END)
    if messages == 0:
        return end
    position, pending, found = end, b"", 0
    while position > 0:
        start = max(0, position - _BLOCK)
        file.seek(start)
        block = file.read(position - start) + pending
        lines = block.split(b"\n")
        # The first of the lines may have begun in the block before.
        at = start + len(block)
        for index in range(len(lines) - 1, 0, -1):
            line = lines[index]
            at -= len(line)
            if line and not _is_partial(line):
                found += 1
                if found > messages:
                    return at + len(line) + 1
            at -= 1
        pending, position = lines[0], start
    if pending and not _is_partial(pending) and found >= messages:
        return len(pending) + 1
    return 0


def _is_partial(line: bytes) -> bool:
    parts = line.split(b" ", 3)
    return len(parts) > 2 and parts[2].startswith(b"P")


class LogFormatter:
    """From lines of the file to what ``GET /containers/{id}/logs`` sends."""

    def __init__(self, query: LogQuery, *, raw: bool) -> None:
        self._query = query
        self._raw = raw
        self._inside = {STDOUT: False, STDERR: False}  # a long line is under way
        self.finished = False  # a message later than ``until`` has been seen

    def format(self, lines: Iterator[bytes]) -> bytes:
        """The wanted ones of ``lines``, framed unless ``raw``."""
        query = self._query
        output: list[bytes] = []
        for line in lines:
            entry = parse(line)
            if entry is None:
                continue
            if query.since or query.until:
                moment = entry.nanoseconds
                if moment < query.since:
                    continue
                if query.until and moment > query.until:
                    self.finished = True
                    break
            inside = self._inside[entry.stream]
            self._inside[entry.stream] = entry.partial
            if not (query.stdout if entry.stream == STDOUT else query.stderr):
                continue
            data = entry.data
            if query.timestamps and not inside:
                data = timestamp(entry.nanoseconds, fixed=True).encode() + b" " + data
            output.append(data if self._raw else frame(entry.stream, data))
        return b"".join(output)


async def read(
    path: Path,
    query: LogQuery,
    *,
    raw: bool,
    changed: Callable[[], Awaitable[bool]] | None = None,
) -> AsyncIterator[bytes]:
    """What to send, in pieces.

    To follow, ``changed`` must wait until the file may have grown, and answer whether more can
    come; after a no, what is there is read to its end.
    """
    formatter = LogFormatter(query, raw=raw)
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return  # never started
    with file:
        if query.tail >= 0:
            file.seek(tail_offset(file, query.tail))
        else:
            file.seek(0)
        rest = b""
        more = changed is not None
        while True:
            while block := file.read(_BLOCK):
                *lines, rest = (rest + block).split(b"\n")
                if data := formatter.format(iter(lines)):
                    yield data
                if formatter.finished:
                    return
            if not more or changed is None:
                return
            more = await changed()
