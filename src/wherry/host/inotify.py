"""Learn of changes in a directory, by inotify(7)."""

from __future__ import annotations

import asyncio
import ctypes
import os
from pathlib import Path
from types import TracebackType

from wherry.host.readiness import readable

_IN_CREATE_OR_MOVED_TO = 0x100 | 0x80


class Directory:
    """Watches for names that appear in one directory, from the moment the context is entered."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> Directory:
        library = ctypes.CDLL(None, use_errno=True)
        self._descriptor = library.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        path = os.fsencode(self._path)
        if library.inotify_add_watch(self._descriptor, path, _IN_CREATE_OR_MOVED_TO) < 0:
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
