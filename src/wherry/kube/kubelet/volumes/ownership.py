"""Volumes that a pod's ``fsGroup`` may use: their files get the group and its permissions.

https://kubernetes.io/docs/tasks/configure-pod-container/security-context/
Nothing is looked up twice: what a container replaces by a link meanwhile is not followed.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_FILE, _READONLY, _DIRECTORY = 0o660, 0o440, 0o110


def give(root: Path, group: int, *, policy: str = "Always", readonly: bool = False) -> bool:
    """Give all below ``root`` to ``group``; whether there was anything to do.

    With the policy ``OnRootMismatch`` not where ``root`` itself is right already.

    Raises:
        OSError: the file system refuses.
    """
    if policy == "OnRootMismatch" and _is_right(root, group, readonly=readonly):
        return False
    if root.is_dir():
        # The root last: it stands for all, when it is looked at the next time.
        for _path, directories, files, descriptor in os.fwalk(root, topdown=False):
            for name in (*files, *directories):
                _give_one(name, descriptor, group, readonly=readonly)
    _give_one(str(root), None, group, readonly=readonly)
    return True


def _wanted(mode: int, *, readonly: bool) -> int:
    added = _READONLY if readonly else _FILE
    if stat.S_ISDIR(mode):
        added |= _DIRECTORY | stat.S_ISGID
    return stat.S_IMODE(mode) | added


def _is_right(root: Path, group: int, *, readonly: bool) -> bool:
    found = root.stat()
    mode = stat.S_IMODE(found.st_mode)
    return found.st_gid == group and _wanted(found.st_mode, readonly=readonly) == mode


def _give_one(name: str, directory: int | None, group: int, *, readonly: bool) -> None:
    flags = os.O_PATH | os.O_CLOEXEC | (os.O_NOFOLLOW if directory is not None else 0)
    try:
        descriptor = os.open(name, flags, dir_fd=directory)
    except FileNotFoundError:
        return  # who uses the volume has removed it
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISLNK(mode):
            os.chown(name, -1, group, dir_fd=directory, follow_symlinks=False)
            return
        held = Path(f"/proc/self/fd/{descriptor}")
        os.chown(held, -1, group)
        held.chmod(_wanted(mode, readonly=readonly))
    finally:
        os.close(descriptor)
