"""Who holds which slot: a symbolic link ``slots/N`` below the run directory, to a data directory.

A claim holds as long as that directory has an instance; one whose directory was deleted by hand is
given to the next who asks. Whoever reads claims to take one has ``locked`` them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INSTANCE = "instance.json"
_LOCK = ".lock"


def holder(root: Path, slot: int) -> Path | None:
    """The data directory that claims ``slot`` and still has an instance."""
    try:
        directory = (_claims(root) / str(slot)).readlink()
    except OSError:
        return None
    return directory if (directory / INSTANCE).exists() else None


def claim(root: Path, slot: int, data_dir: Path) -> Path | None:
    """Claim ``slot`` for ``data_dir``; returns who else holds it, None where it is ours."""
    held = holder(root, slot)
    if held is not None:
        return held if held != data_dir else None
    link = _claims(root) / str(slot)
    link.unlink(missing_ok=True)
    link.symlink_to(data_dir)
    return None


def release(root: Path, slot: int, data_dir: Path) -> None:
    """Give the slot back, if it is that of ``data_dir``."""
    with locked(root):
        link = _claims(root) / str(slot)
        if link.is_symlink() and link.readlink() == data_dir:
            link.unlink()
        if [path.name for path in _claims(root).iterdir()] == [_LOCK]:  # the last one: no trace
            (_claims(root) / _LOCK).unlink()
            with contextlib.suppress(OSError):  # somebody has made the next lock just now
                _claims(root).rmdir()


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Nobody else claims or releases a slot meanwhile."""
    while True:
        path = _claims(root) / _LOCK
        try:
            _claims(root).mkdir(parents=True, exist_ok=True, mode=0o755)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except (FileNotFoundError, FileExistsError):
            continue  # the last instance took the directory along just now
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(descriptor, path):
                yield
                return
            # Whoever had it before removed the file: lock the one that is there now.
        finally:
            os.close(descriptor)


def _claims(root: Path) -> Path:
    return root / "slots"


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
