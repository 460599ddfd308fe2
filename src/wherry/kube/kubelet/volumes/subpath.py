"""Reach a path within a volume without ever leaving the volume.

What lies in a volume is the pod's to write, so a path that the pod's manifest names there may by
now be a symbolic link to anywhere. The kernel resolves it (openat2(2) with RESOLVE_BENEATH, Linux
5.6), and what it found is held open and mounted by that handle: no second look-up that could go
elsewhere. (Upstream's CVE-2017-1002101 and CVE-2021-25741 tell why.)
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path, PurePosixPath

from wherry.host.beneath import open_within
from wherry.kube.kubelet.volumes import mounts


class SubPathError(Exception):
    """The path leads out of the volume, or cannot be made."""


def open_subpath(volume: Path, path: str) -> int:
    """A handle (O_PATH) to ``path`` in ``volume``; missing directories are made as it is itself.

    Raises:
        SubPathError: it leads out of the volume, or something is in the way.
    """
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", ".")]
    if ".." in parts:
        raise SubPathError(f"subPath {path!r} must not contain '..'")
    root = os.open(volume, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        whole = "/".join(parts)
        try:
            return open_within(root, whole, os.O_PATH)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
        mode = stat.S_IMODE(os.fstat(root).st_mode)
        for count in range(1, len(parts) + 1):
            _make_directory(root, parts[:count], mode)
        return open_within(root, whole, os.O_PATH)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise SubPathError(f"subPath {path!r} leads out of its volume") from error
        raise SubPathError(f"subPath {path!r}: {error.strerror}") from error
    finally:
        os.close(root)


def read_file(volume: Path, path: str, most: int) -> bytes | None:
    """The content of a regular file in ``volume``; None where there is none.

    Raises:
        SubPathError: it leads out of the volume, is no regular file, or has more than ``most``
            bytes.
    """
    root = os.open(volume, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        handle = open_within(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise SubPathError(f"path {path!r} leads out of its volume") from error
        raise SubPathError(f"path {path!r}: {error.strerror}") from error
    finally:
        os.close(root)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise SubPathError(f"path {path!r} is no regular file")
    with os.fdopen(handle, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise SubPathError(f"file {path!r} has more than {most} bytes")
    return content


def _make_directory(root: int, parts: list[str], mode: int) -> None:
    parent = open_within(root, "/".join(parts[:-1]), os.O_PATH | os.O_DIRECTORY)
    try:
        os.mkdir(parts[-1], 0o700, dir_fd=parent)
        made = open_within(parent, parts[-1], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.fchmod(made, mode)  # whatever our own mask is
        finally:
            os.close(made)
    except FileExistsError:
        return
    finally:
        os.close(parent)


def mount_subpath(volume: Path, path: str, target: Path) -> None:
    """Show ``path`` of ``volume`` at ``target`` (made as a directory or a file, as it fits).

    Raises:
        SubPathError: see ``open_subpath``.
    """
    handle = open_subpath(volume, path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        # From the container's last incarnation; the path may lead elsewhere by now.
        mounts.unmount(target)
        if Path(f"/proc/self/fd/{handle}").is_dir():
            target.mkdir(exist_ok=True, mode=0o750)
        else:
            target.touch(mode=0o640)
        mounts.bind(f"/proc/self/fd/{handle}", target)
    finally:
        os.close(handle)
