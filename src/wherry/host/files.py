"""Files that are either the old or the new content, never half of one."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path

_TICK = 50_000_000
"""Nanoseconds within which two changes may leave a file with the same time."""


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Replace ``path`` by ``data`` in one step.

    The content is complete under its name or absent, also after a kill at any moment. With
    ``durable`` it has also reached the disk, name included, when the call returns.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
    if durable:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in directory ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private(path: Path) -> Path:
    """Create directory ``path`` and its parents, readable by its owner alone; returns ``path``."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def state(path: str | Path) -> object:
    """Equal for a file that did not change; for one that just did, equal to nothing: two changes
    within a tick of the clock may leave the same time. None where there is no file.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - half the time, and often asked
    except OSError:
        return None
    if abs(time.time_ns() - status.st_mtime_ns) < _TICK:
        return object()
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev


def directory_size(root: Path) -> int:
    """Bytes of all regular files below ``root``, hard links counted once."""
    total, seen = 0, set()
    for directory, _, names in os.walk(root):
        for name in names:
            try:
                status = os.lstat(os.path.join(directory, name))  # noqa: PTH118  many files
            except FileNotFoundError:
                continue
            if status.st_nlink > 1:
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
            total += status.st_size
    return total
