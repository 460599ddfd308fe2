"""Waiting for a log file to grow, by inotify(7)."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from pathlib import Path
from typing import Any

from wherry.host.readiness import readable

_IN_MODIFY = 0x2


class FileWatch:
    """Tells when a file is written to; for use as a context manager.

    Raises:
        OSError: there is no such file, or the user's inotify watches are used up.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> FileWatch:
        library = ctypes.CDLL(None, use_errno=True)
        self._descriptor = library.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "inotify_init1")
        name = os.fsencode(self._path)
        if library.inotify_add_watch(self._descriptor, name, _IN_MODIFY) < 0:
            number = ctypes.get_errno()
            self.__exit__()
            raise OSError(number, os.strerror(number), str(self._path))
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    async def changed(self, ended: asyncio.Future[Any]) -> bool:
        """Wait for a write after the last call, or for ``ended``; False where it was ``ended``."""
        waiting = asyncio.ensure_future(readable(self._descriptor))
        try:
            await asyncio.wait((waiting, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            await asyncio.wait((waiting,))
        with contextlib.suppress(BlockingIOError):  # only the end woke us
            os.read(self._descriptor, 4096)
        return not ended.done()
