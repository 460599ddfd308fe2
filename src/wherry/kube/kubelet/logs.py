"""Logs of containers: files in the CRI format, read from the front, the end, a time, or followed.

A line is ``<RFC 3339 time> <stdout|stderr> <F|P> <text>``; ``P`` marks a part of a longer line
(https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md).
A follower sleeps in inotify(7) until the file grows, goes on where a rotation has put the next one,
and ends when the container has ended and all was read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from wherry.host.inotify import watching
from wherry.kube.api import meta
from wherry.kube.kubelet.log_files import after

CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What of a log is wanted; the names are those of ``PodLogOptions``."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    since: datetime | None = None
    tail: int | None = None  # lines
    limit: int | None = None  # bytes
    stream: bytes = b""  # ``stdout`` or ``stderr`` alone


_STREAMS = {"Stdout": b"stdout", "Stderr": b"stderr"}


def log_options(query: Any) -> LogOptions:
    """The options of a log request.

    Raises:
        ValueError: one of them is malformed.
    """

    def flag(name: str) -> bool:
        return query.get(name, "").lower() in ("1", "true", "t")

    def number(name: str) -> int | None:
        text = query.get(name)
        return int(text) if text else None

    since = None
    if query.get("sinceTime"):
        since = meta.parse_time(query["sinceTime"])
    elif query.get("sinceSeconds"):
        since = datetime.now(UTC) - timedelta(seconds=int(query["sinceSeconds"]))
    return LogOptions(
        follow=flag("follow"),
        previous=flag("previous"),
        timestamps=flag("timestamps"),
        since=since,
        tail=number("tailLines"),
        limit=number("limitBytes"),
        stream=_STREAMS.get(query.get("stream", ""), b""),
    )


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
        stream, _, rest = rest.partition(b" ")
        tag, space, text = rest.partition(b" ")
        if not space and not tag:
            return b""  # not of this format: nothing that a container wrote
        if self._options.stream and stream != self._options.stream:
            return b""
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
    file: BinaryIO = path.open("rb", buffering=0)
    growth = watching().add(path) if options.follow else None
    try:
        if options.tail is not None:
            file.seek(tail_offset(file, options.tail))
        while not reader.full:
            # Asked before the read: what a container wrote before it ended is in the file then.
            last_round = growth is None or not is_running()
            if growth is not None:
                growth.clear()
            data = file.read(CHUNK)
            if data:
                output = reader.feed(data)
                if output:
                    yield output
                continue
            if growth is None:
                return
            # A file to which no more is written has been read to its end: what comes after it?
            with contextlib.suppress(FileNotFoundError):
                following = after(path, file)
                if following is not None:  # (it may have got more since it was read)
                    while data := file.read(CHUNK):
                        if output := reader.feed(data):
                            yield output
                    file.close()
                    file = following
                    growth.renew()
                    continue
            if last_round:
                return
            await _either(growth.wait(), ended.wait())
    finally:
        file.close()
        if growth is not None:
            growth.close()


async def _either(*waits: Coroutine[Any, Any, object]) -> None:
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
