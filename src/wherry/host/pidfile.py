"""One daemon a pid file: the lock on it tells who runs, not the number in it.

The kernel drops the lock when the daemon ends, however it ends, so a stale file deceives nobody.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

_MOMENT = 0.001  # seconds
_MOMENTS = 1000


class AlreadyRunning(Exception):
    """Another process holds the pid file."""

    def __init__(self, path: Path, pid: int | None) -> None:
        super().__init__(f"{path.stem} is already running (pid {pid})")
        self.pid = pid


class PidFile:
    """Held for the life of the process."""

    def __init__(self, path: Path) -> None:
        """Take the file.

        Raises:
            AlreadyRunning: somebody else has it.
        """
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        while not _locked(self._descriptor, fcntl.LOCK_EX):
            if not _locked(self._descriptor, fcntl.LOCK_SH):
                os.close(self._descriptor)
                raise AlreadyRunning(path, _read(path))
            # Somebody only looks, for a moment.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            time.sleep(_MOMENT)
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let go before the process ends."""
        os.close(self._descriptor)


def _read(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def running_pid(path: Path) -> int | None:
    """The pid of the daemon that holds ``path``, None where none does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        for _ in range(_MOMENTS):
            if _locked(descriptor, fcntl.LOCK_SH):
                return None
            pid = _read(path)
            if (pid is not None and _lives(pid)) or not path.exists():
                return pid
            time.sleep(_MOMENT)  # it has not written it down yet; a killed one's is still there
    finally:
        os.close(descriptor)
    return None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
