"""Learn of changes in a directory, of a growing file or a path to come, by inotify(7)."""

from __future__ import annotations

import asyncio
import ctypes
import os
import stat
import struct
import weakref
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol

from wherry.host.readiness import readable

_IN_CREATE_OR_MOVED_TO = 0x100 | 0x80
_IN_CLOSE_WRITE, _IN_MOVED_FROM, _IN_DELETE = 0x8, 0x40, 0x200
_IN_MODIFY_OR_MOVE_SELF = 0x2 | 0x800
_EVENT = struct.Struct("iIII")


class Directory:
    """Watches for names that appear in one directory, from the moment the context is entered.

    With ``content``, also for files that were written or have gone.
    """

    def __init__(self, path: Path, *, content: bool = False) -> None:
        self._path = path
        self._mask = _IN_CREATE_OR_MOVED_TO
        if content:
            self._mask |= _IN_CLOSE_WRITE | _IN_MOVED_FROM | _IN_DELETE
        self._descriptor = -1

    def __enter__(self) -> Directory:
        library = ctypes.CDLL(None, use_errno=True)
        self._descriptor = library.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        path = os.fsencode(self._path)
        if library.inotify_add_watch(self._descriptor, path, self._mask) < 0:
            number = ctypes.get_errno()
            self.close()
            raise OSError(number, os.strerror(number), self._path)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    async def changed_or(self, other: asyncio.Future[int]) -> None:
        """Return when names have appeared since the last call, or ``other`` is done."""
        waiting = asyncio.ensure_future(readable(self._descriptor))
        try:
            await asyncio.wait((waiting, other), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            await asyncio.wait((waiting,))
        try:
            os.read(self._descriptor, 65536)
        except BlockingIOError:
            return


class Watcher(Protocol):
    """Who is told of events."""

    def set(self) -> None:
        """Something has happened to what is watched."""


class Watching:
    """Watches any number of files through one descriptor, of which a user may have few."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None, use_errno=True)
        self._descriptor = -1
        self._watches: dict[int, set[Watcher]] = {}

    def add(self, path: Path) -> Growth:
        """Begin to watch ``path``.

        Raises:
            OSError: it cannot be watched.
        """
        self.open()
        return Growth(self, path)

    def open(self) -> None:
        """Be ready for ``watch``.

        Raises:
            OSError: there may be no more of this.
        """
        if self._descriptor < 0:
            self._descriptor = self._library.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
            if self._descriptor < 0:
                raise OSError(ctypes.get_errno(), "inotify_init1")
            asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def watch(self, watcher: Watcher, path: Path, mask: int) -> int:
        """Have ``watcher`` told of events of ``path``; the number of the watch, -1 for none."""
        number = self._library.inotify_add_watch(self._descriptor, os.fsencode(path), mask)
        if number >= 0:
            self._watches.setdefault(number, set()).add(watcher)
        return int(number)

    def unwatch(self, watcher: Watcher, number: int) -> None:
        """Tell ``watcher`` no more; with nobody left to be told, nothing is open."""
        told = self._watches.get(number)
        if told is None:
            return
        told.discard(watcher)
        if not told:
            del self._watches[number]
            self._library.inotify_rm_watch(self._descriptor, number)
        if not self._watches and self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return
        position = 0
        while position < len(data):
            number, _, _, length = _EVENT.unpack_from(data, position)
            position += _EVENT.size + length
            for watcher in list(self._watches.get(number, ())):
                watcher.set()


class Growth:
    """Tells when a file has been written to, or another has come under its name."""

    def __init__(self, watching: Watching, path: Path) -> None:
        self._watching = watching
        self._path = path
        self._news = asyncio.Event()
        self.set, self.clear = self._news.set, self._news.clear
        self._numbers: list[int] = []
        self.renew()

    async def wait(self) -> None:
        """Return when something has happened since ``clear``."""
        await self._news.wait()

    def renew(self) -> None:
        """Watch the file that has the name now, and its directory for the next."""
        former, self._numbers = self._numbers, []
        for path, mask in (
            (self._path.parent, _IN_CREATE_OR_MOVED_TO),
            (self._path, _IN_MODIFY_OR_MOVE_SELF),
        ):
            number = self._watching.watch(self, path, mask)
            if number >= 0:
                self._numbers.append(number)
        for number in former:
            if number not in self._numbers:
                self._watching.unwatch(self, number)
        self._news.set()

    def close(self) -> None:
        """Watch no more."""
        for number in self._numbers:
            self._watching.unwatch(self, number)
        self._numbers = []


class Appearance:
    """Calls ``came`` when ``path`` is there, or is another file than it was at first.

    Until then the nearest directory that exists is watched, so any part of the path may be missing.

    Raises:
        OSError: it cannot be watched.
    """

    def __init__(self, path: Path, came: Callable[[], None]) -> None:
        self._watching = watching()
        self._path = path.absolute()
        self._came = came
        self._number = -1
        self._former = _identity(self._path)
        self._watching.open()
        self._approach()

    def set(self) -> None:
        """Something came into the directory that is watched."""
        now = _identity(self._path)
        if now is not None and now != self._former:
            self._came()
        else:
            self._approach()

    def _approach(self) -> None:
        """Watch the directory in which the next part of the path must appear."""
        while True:
            place = self._path.parent
            while not place.is_dir():
                place = place.parent
            number = self._watching.watch(self, place, _IN_CREATE_OR_MOVED_TO)
            if number < 0 and place.is_dir():
                raise OSError(ctypes.get_errno(), "inotify_add_watch", str(place))
            former, self._number = self._number, number
            if former not in (-1, number):
                self._watching.unwatch(self, former)
            if place == self._path.parent or not self._towards(place).is_dir():
                return  # nothing has come between the look and the watch

    def _towards(self, place: Path) -> Path:
        return place / self._path.parts[len(place.parts)]

    def close(self) -> None:
        """Watch no more."""
        if self._number >= 0:
            self._watching.unwatch(self, self._number)
            self._number = -1


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    # (The number of a file that has gone may be given to the next at once.)
    return status.st_dev, status.st_ino, stat.S_IFMT(status.st_mode)


_by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Watching] = (
    weakref.WeakKeyDictionary()
)


def watching() -> Watching:
    """The one of this event loop."""
    loop = asyncio.get_running_loop()
    found = _by_loop.get(loop)
    if found is None:
        found = _by_loop[loop] = Watching()
    return found
