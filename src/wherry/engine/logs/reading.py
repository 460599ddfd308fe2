"""Reading a log back: from its files, old ones included, to what ``docker logs`` receives."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import tempfile
import time
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import quote_plus

import orjson

from wherry.engine.container.units import parse_rfc3339, timestamp
from wherry.engine.logs.files import Decoder, Follower, Format, LogFile, rotated, unpacked
from wherry.engine.logs.types import Entry, LogQuery
from wherry.wire.docker_stream import STDERR, STDOUT, frame

_BLOCK = 1 << 17


class Formatter:
    """From messages to what ``GET /containers/{id}/logs`` sends: each a frame, unless ``raw``."""

    def __init__(self, query: LogQuery, *, raw: bool) -> None:
        self._query = query
        self._raw = raw
        self._since = timestamp(query.since, fixed=True) if query.since > 0 else ""
        self._until = timestamp(query.until, fixed=True) if query.until > 0 else ""
        wanted = ((STDOUT, query.stdout), (STDERR, query.stderr))
        self._streams = {stream for stream, chosen in wanted if chosen}
        self.finished = False  # a message later than ``until`` has been seen

    def format(self, entries: Iterable[Entry], decoder: Decoder) -> bytes:
        """The wanted ones of ``entries``."""
        query, since, until = self._query, self._since, self._until
        timed = bool(query.timestamps or since or until)
        output: list[bytes] = []
        for stream, moment, data, attributes in entries:
            if timed:
                stamp = decoder.fixed_time(moment)
                if stamp < since:
                    continue
                if until and stamp > until:
                    self.finished = True
                    break
            if stream not in self._streams:
                continue
            if query.details:
                data = _details(attributes or {}) + b" " + data
            if query.timestamps:
                data = stamp.encode() + b" " + data
            output.append(data if self._raw else frame(stream, data))
        return b"".join(output)


def _details(attributes: Mapping[str, str]) -> bytes:
    pairs = sorted((quote_plus(name), quote_plus(value)) for name, value in attributes.items())
    return ",".join(f"{name}={value}" for name, value in pairs).encode()


class Reading:
    """One look at the log under ``path``, which begins with what is there at this moment.

    ``live`` is what a running container writes to; only that can be followed. Iterate over
    ``pieces`` once, or ``close`` it.
    """

    def __init__(
        self, path: Path, format: Format, live: LogFile | None, query: LogQuery, *, raw: bool
    ) -> None:
        self._format = format
        self._query = query
        self._formatter = Formatter(query, raw=raw)
        self._directory = path.parent
        self._follower: Follower | None = None
        with contextlib.ExitStack() as stack:
            self._old: list[BinaryIO] = []
            self._packed: set[BinaryIO] = set()
            for old in _present(path):
                file = stack.enter_context(old.open("rb"))
                self._old.append(file)
                if old.suffix == ".gz":
                    self._packed.add(file)
            self._current: BinaryIO | None = None
            with contextlib.suppress(FileNotFoundError):
                self._current = stack.enter_context(path.open("rb", buffering=0))
            self._end = os.fstat(self._current.fileno()).st_size if self._current else 0
            if query.follow and live is not None and not live.closed:
                self._follower = live.follow()
                stack.callback(self._follower.close)
            self._files = stack.pop_all()

    def close(self) -> None:
        """Let go of the files."""
        self._files.close()

    async def pieces(self) -> AsyncIterator[bytes]:
        """What to send."""
        try:
            old, offset = await self._choose()
            for file, begin in old:
                file.seek(begin)
                async for data in self._whole(file, None):
                    yield data
            if self._current is None:
                return
            self._current.seek(offset)
            if self._follower is None:
                async for data in self._whole(self._current, self._end):
                    yield data
            else:
                async for data in self._followed(self._current, self._follower):
                    yield data
        finally:
            self.close()

    async def _choose(self) -> tuple[list[tuple[BinaryIO, int]], int]:
        """The old files that are wanted, the oldest first, and where to begin in each; and in the
        current one."""
        wanted = self._query.tail
        offset, missing = 0, -1
        if wanted >= 0:
            found = 0
            if self._current is not None:
                offset, found = self._format.tail(self._current, wanted)
            missing = wanted - found
        chosen: list[tuple[BinaryIO, int]] = []
        for file in reversed(self._old):
            if missing == 0 or _last_time(file, file in self._packed) < self._query.since:
                break
            plain = file
            if file in self._packed:
                try:
                    plain = await asyncio.to_thread(unpacked, file, self._temporary)
                except (EOFError, zlib.error, gzip.BadGzipFile):
                    continue  # torn by a crash of the machine
                self._files.callback(plain.close)
            begin = 0
            if missing > 0:
                begin, found = self._format.tail(plain, missing)
                missing -= found
            chosen.insert(0, (plain, begin))
        return chosen, offset

    def _temporary(self) -> BinaryIO:
        return cast(BinaryIO, tempfile.TemporaryFile(dir=self._directory))

    async def _whole(self, file: BinaryIO, end: int | None) -> AsyncIterator[bytes]:
        """From where ``file`` stands to its end, or to the offset ``end``."""
        decoder = self._format.decoder()
        left = None if end is None else end - file.tell()
        while not self._formatter.finished and (
            block := file.read(_BLOCK if left is None else max(0, min(_BLOCK, left)))
        ):
            if left is not None:
                left -= len(block)
            if data := self._formatter.format(decoder.feed(block), decoder):
                yield data
            await asyncio.sleep(0)  # others want to live as well

    async def _followed(self, file: BinaryIO, follower: Follower) -> AsyncIterator[bytes]:
        """From where ``file`` stands to the end of the run, into the files that come after it."""
        decoder = self._format.decoder()
        while not self._formatter.finished:
            # Asked before the read: what was written before is read then.
            ended, newer = follower.ended, bool(follower.files)
            block = file.read(_BLOCK)
            if block:
                if data := self._formatter.format(decoder.feed(block), decoder):
                    yield data
                await asyncio.sleep(0)
            elif newer:
                file = follower.files.popleft()
                self._files.callback(file.close)
                decoder = self._format.decoder()
            elif os.fstat(file.fileno()).st_size < file.tell():
                file.seek(0)  # someone has emptied it
                decoder = self._format.decoder()
            elif ended or not await self._more(follower):
                return

    async def _more(self, follower: Follower) -> bool:
        """Wait for news; False where the time that is asked for comes first."""
        if not self._query.until:
            await follower.changed()
            return True
        try:
            async with asyncio.timeout(self._query.until / 1e9 - time.time()):
                await follower.changed()
        except TimeoutError:
            return False
        return True


def _present(path: Path) -> list[Path]:
    """The old files of ``path``, the oldest first; of one that is there twice, the plain one."""
    found: dict[int, Path] = {}
    for number, file in rotated(path):
        if number not in found or file.suffix != ".gz":
            found[number] = file
    return list(found.values())


def _last_time(file: BinaryIO, packed: bool) -> int:
    """When the last message was written to an old file, in nanoseconds, at the latest."""
    if packed:
        head = os.pread(file.fileno(), 512, 0)
        if head[3:4] == b"\x04":
            extra = head[12 : 12 + int.from_bytes(head[10:12], "little")]
            with contextlib.suppress(ValueError, KeyError, TypeError):
                return parse_rfc3339(orjson.loads(extra)["lastTime"])
    return os.fstat(file.fileno()).st_mtime_ns
