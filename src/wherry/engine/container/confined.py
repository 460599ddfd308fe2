"""Paths inside a container's root file system that cannot lead out of it.

An image is foreign data: its ``/etc/passwd`` may be a symbolic link to the host's. ``open_beneath``
resolves such paths as if the root file system were ``/``.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from wherry.host.beneath import open_beneath, open_directory


def read_file(root: Path, path: str, limit: int = 1 << 20) -> bytes | None:
    """At most ``limit`` bytes of the regular file ``path`` below ``root``; None without one.

    What is no regular file (a device, a pipe that would never end) counts as absent.

    Raises:
        OSError: it is there but cannot be read.
    """
    directory = _open_root(root)
    try:
        descriptor = open_beneath(directory, path.lstrip("/"), os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            return None
        raise
    finally:
        os.close(directory)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return None
        return file.read(limit)


def resolve(root: Path, path: str) -> str:
    """``path`` as it is called below ``root`` when all links on the way have been followed.

    What is not there yet is as it would be made.
    """
    base = _open_root(root)
    missing: list[str] = []
    try:
        top = os.readlink(f"/proc/self/fd/{base}")  # noqa: PTH115  a path without links
        current = path
        while True:
            try:
                found = open_beneath(base, current.lstrip("/"), os.O_PATH)
                break
            except OSError:
                if current in ("", "/"):
                    raise
                current, _, last = current.rstrip("/").rpartition("/")
                missing.insert(0, last)
        try:
            reached = os.readlink(f"/proc/self/fd/{found}")  # noqa: PTH115
        finally:
            os.close(found)
    finally:
        os.close(base)
    inside = reached.removeprefix(top.rstrip("/"))
    return os.path.normpath("/".join(("", inside.strip("/"), *missing)))


def make_directories(root: Path, path: str, uid: int = 0, gid: int = 0) -> None:
    """Make directory ``path`` below ``root`` with its parents; what is created belongs to uid, gid.

    Raises:
        NotADirectoryError: something on the way is a file.
    """
    base = _open_root(root)
    current = os.dup(base)
    try:
        walked = ""
        for part in [part for part in os.path.normpath(path).split("/") if part]:
            walked = f"{walked}/{part}"
            try:
                following = open_directory(base, walked)
            except FileNotFoundError:
                os.mkdir(part, 0o755, dir_fd=current)
                os.chown(part, uid, gid, dir_fd=current, follow_symlinks=False)
                following = open_directory(base, walked)
            os.close(current)
            current = following
    finally:
        os.close(current)
        os.close(base)


def _open_root(root: Path) -> int:
    return os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
