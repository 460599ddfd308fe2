"""A log file that is appended to in whole messages, rotated by size, and followed.

``<path>`` is written to; ``<path>.1`` is the file before it, ``<path>.2`` the one before that, each
with ``.gz`` behind where old files are compressed. All that follows happens on the event loop, so
that a reader which opens the files between two of its steps sees each message once. A rotation
gives every follower the next file, whatever becomes of its name.

Killed at any point, the files are complete but for a message torn in the middle of its write, which
``open`` cuts off, and a compression under way, which it does again.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import struct
import zlib
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import BinaryIO, Protocol

from wherry.engine.container.units import timestamp
from wherry.engine.logs.types import Entry, RawTime

log = logging.getLogger(__name__)

# So many files a follower may be behind before it loses the oldest.
_BEHIND = 16
_BLOCK = 1 << 16
# By directory, what is being compressed there.
_compressions: dict[asyncio.Task[None], Path] = {}


# Moves a full file away for one who wants another order than ours. Raises OSError: it cannot.
Rotator = Callable[[], Awaitable[None]]


class Decoder(Protocol):
    """Finds the messages in a file that is fed to it from its beginning, or that of a message."""

    def feed(self, data: bytes) -> list[Entry]:
        """The messages that ``data`` completes."""

    def fixed_time(self, time: RawTime) -> str:
        """``time`` of an entry in UTC with nine decimals; such texts compare as times do."""


class Format(Protocol):
    """How messages stand in a file."""

    def cut(self, batch: bytes, at: int) -> int:
        """The end of the message that byte ``at - 1`` of ``batch`` belongs to."""

    def end(self, file: BinaryIO) -> int:
        """Where the last complete message of ``file`` ends."""

    def tail(self, file: BinaryIO, messages: int) -> tuple[int, int]:
        """Where the last ``messages`` messages begin, and how many there are from there on."""

    def decoder(self) -> Decoder:
        """One for one file."""


class LogFile:
    """The file of one running container.

    ``capacity`` is the size in bytes from which on the next message goes to a new file, 0 for none;
    ``max_files`` counts the file that is written to.
    """

    def __init__(
        self,
        path: Path,
        format: Format,
        *,
        capacity: int = 0,
        max_files: int = 1,
        compress: bool = False,
        mode: int = 0o640,
    ) -> None:
        self.path = path
        self.format = format
        self.closed = False
        self._capacity = capacity
        self._rotator: Rotator | None = None
        self.max_files = max(max_files, 1)
        self._compress = compress
        self._mode = mode
        self._followers: set[Follower] = set()
        self._compressing: asyncio.Task[None] | None = None
        self._descriptor = self._open()
        self._recover()

    # ---- writing

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self.path, flags, self._mode)

    def _recover(self) -> None:
        """Repair what a kill has left."""
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            end = self.format.end(file) if size else 0
        if end < size:
            os.ftruncate(self._descriptor, end)
        for number, plain in rotated(self.path):
            if number >= self.max_files:
                plain.unlink()
            elif plain.suffix == ".gz":
                continue
            elif _name(self.path, number, ".gz").exists():
                plain.unlink()
            elif self._compress and number == 1:
                self._start_compression()

    def rotate_by(self, capacity: int, rotator: Rotator) -> None:
        """From ``capacity`` bytes on, ``rotator`` is asked to move the file away."""
        self._capacity, self._rotator = capacity, rotator

    async def append(self, batch: bytes) -> None:
        """Write whole messages.

        Raises:
            OSError: the disk takes no more; what of the batch was not written is lost.
        """
        if self._capacity:
            size = os.fstat(self._descriptor).st_size  # (someone may have emptied it)
            while batch:
                room = self._capacity - size
                if room <= 0:
                    size = await self._rotate(size)
                    continue
                cut = self.format.cut(batch, room) if len(batch) > room else len(batch)
                self._write(batch[:cut])
                size += cut
                batch = batch[cut:]
        else:
            self._write(batch)
        self.wake()

    def _write(self, batch: bytes) -> None:
        written = os.write(self._descriptor, batch)
        while written < len(batch):
            try:
                written += os.write(self._descriptor, memoryview(batch)[written:])
            except OSError:
                whole = self.format.end(io.BytesIO(batch[:written]))
                end = os.fstat(self._descriptor).st_size
                os.ftruncate(self._descriptor, max(0, end - written + whole))
                raise

    async def _rotate(self, size: int) -> int:
        """Go on in a new file; returns its size."""
        if self._rotator is not None:
            try:
                await self._rotator()
                self._replace()
            except OSError as error:
                return self._cannot_rotate(size, error)
            return 0
        while self._compressing is not None:
            await asyncio.wait((self._compressing,))
        former = _name(self.path, 1)
        try:
            shift(self.path, self.max_files)
            try:
                self._replace()
            except OSError:
                former.rename(self.path)
                raise
        except OSError as error:
            return self._cannot_rotate(size, error)
        if self.max_files < 2:
            former.unlink(missing_ok=True)
        elif self._compress:
            self._start_compression()
        return 0

    def _cannot_rotate(self, size: int, error: OSError) -> int:
        log.error("cannot rotate %s: %s", self.path, error)
        self._capacity += size  # rather a file that is too large than one that is lost
        return size

    def _replace(self) -> None:
        """Go on in a new file: writer and followers, or none of them.

        Raises:
            OSError: there is none, as where too many files are open.
        """
        with contextlib.ExitStack() as stack:
            descriptor = self._open()
            stack.callback(os.close, descriptor)
            files = [stack.enter_context(self.path.open("rb")) for _ in self._followers]
            stack.pop_all()
        os.close(self._descriptor)
        self._descriptor = descriptor
        for follower, file in zip(self._followers, files, strict=True):
            follower.next_file(file)

    def _start_compression(self) -> None:
        source = _name(self.path, 1)
        task = asyncio.get_running_loop().create_task(_compress(source))
        self._compressing = task
        _compressions[task] = self.path.parent
        task.add_done_callback(self._compressed)

    def _compressed(self, task: asyncio.Task[None]) -> None:
        del _compressions[task]
        self._compressing = None

    def close(self) -> None:
        """Write no more; followers come to their end."""
        if not self.closed:
            self.closed = True
            os.close(self._descriptor)
            self.wake()

    # ---- following

    def follow(self) -> Follower:
        """One who is told of what is appended from now on."""
        follower = Follower(self)
        self._followers.add(follower)
        return follower

    def unfollow(self, follower: Follower) -> None:
        """Forget ``follower``."""
        self._followers.discard(follower)

    def wake(self) -> None:
        """Tell the followers that there is more."""
        for follower in self._followers:
            follower.wake()


class Follower:
    """What happens to a file, for one reader of it; close it in the end."""

    def __init__(self, file: LogFile) -> None:
        self._file = file
        self._waiting: asyncio.Future[None] | None = None
        self._news = False
        self.files: deque[BinaryIO] = deque()  # those that came after the one it reads

    @property
    def ended(self) -> bool:
        """Whether nothing more will be appended."""
        return self._file.closed

    def next_file(self, file: BinaryIO) -> None:
        """The log goes on in ``file``."""
        self.files.append(file)
        if len(self.files) > max(_BEHIND, self._file.max_files):
            self.files.popleft().close()

    def wake(self) -> None:
        """There is something new."""
        self._news = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def changed(self) -> None:
        """Wait until there is something new since the last call."""
        while not self._news:
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        self._news = False

    def close(self) -> None:
        """Be told no more."""
        self._file.unfollow(self)
        while self.files:
            self.files.popleft().close()


# ---- the old files


def _name(path: Path, number: int, suffix: str = "") -> Path:
    return path.with_name(f"{path.name}.{number}{suffix}")


def rotated(path: Path) -> list[tuple[int, Path]]:
    """The old files of ``path``, by their numbers, the oldest first."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for entry in path.parent.iterdir():
            if entry.name.startswith(f"{path.name}."):
                number = entry.name[len(path.name) + 1 :].removesuffix(".gz")
                if number.isdigit():
                    found.append((int(number), entry))
    return sorted(found, reverse=True)


def shift(path: Path, max_files: int) -> None:
    """Make room for a new ``path``: every file takes the next number, the oldest goes."""
    for number, old in rotated(path):
        if number >= max_files - 1:
            old.unlink()
        else:
            old.rename(_name(path, number + 1, old.suffix if old.suffix == ".gz" else ""))
    with contextlib.suppress(FileNotFoundError):
        path.rename(_name(path, 1))


async def finish(directory: Path) -> None:
    """Return when nothing is being compressed in ``directory`` or below, as it will be removed."""
    if tasks := [task for task, place in _compressions.items() if place.is_relative_to(directory)]:
        await asyncio.wait(tasks)


async def _compress(source: Path) -> None:
    target = _name(source.with_suffix(""), 1, ".gz")
    temporary = target.with_name(target.name + ".tmp")
    try:
        await asyncio.to_thread(compress, source, temporary)
        temporary.rename(target)
        source.unlink()
    except FileNotFoundError:
        return  # the container has been removed
    except OSError as error:
        log.error("cannot compress %s: %s", source, error)
        temporary.unlink(missing_ok=True)


def compress(source: Path, target: Path) -> None:
    """Write ``source`` to ``target`` in gzip format (RFC 1952), as dockerd does.

    The header's extra field says when the last message was written, so that a reader can tell
    without unpacking that all are too old.
    """
    extra = b'{"lastTime":"%s"}' % timestamp(source.stat().st_mtime_ns).encode()
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    checksum = size = 0
    with source.open("rb") as plain, target.open("wb") as packed:
        packed.write(b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff" + struct.pack("<H", len(extra)))
        packed.write(extra)
        while block := plain.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
            size += len(block)
            packed.write(packer.compress(block))
        packed.write(packer.flush())
        packed.write(struct.pack("<II", checksum, size & 0xFFFFFFFF))


def unpacked(file: BinaryIO, make: Callable[[], BinaryIO]) -> BinaryIO:
    """The content of a compressed ``file`` in a new one that ``make`` makes; blocks.

    Raises:
        OSError: the disk is full.
        EOFError, zlib.error: ``file`` is damaged.
    """
    import gzip

    plain = make()
    with gzip.GzipFile(fileobj=file) as packed:
        while block := packed.read(_BLOCK):
            plain.write(block)
    plain.seek(0)
    return plain
