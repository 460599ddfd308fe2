"""What of volumes needs the kernel: memory file systems, bind mounts, and their removal."""

from __future__ import annotations

import errno
import re
import shutil
from pathlib import Path

from wherry.host import mount_table, syscalls

_ESCAPE = re.compile(r"\\([0-7]{3})")


def mount_tmpfs(target: Path, *, size: int = 0) -> None:
    """Mount a memory file system of at most ``size`` bytes (0: half of the memory)."""
    options = "mode=777" + (f",size={size}" if size else "")
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
    syscalls.mount("tmpfs", str(target), "tmpfs", flags, options)


def mount_huge_pages(target: Path, size: int) -> None:
    """Mount a file system of huge pages of ``size`` bytes.

    Raises:
        OSError: the kernel has no such pages.
    """
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
    syscalls.mount("nodev", str(target), "hugetlbfs", flags, f"pagesize={size}")


def bind(source: str, target: Path) -> None:
    """Show ``source`` at ``target``."""
    syscalls.mount(source, str(target), "none", syscalls.MS_BIND)


def mounts_below(root: Path) -> list[Path]:
    """Mount points at or below ``root``, deepest first."""
    prefix = str(root)
    found = []
    for line in mount_table.lines(mount_table.read()):
        place = _ESCAPE.sub(lambda m: chr(int(m[1], 8)), line.split(" ")[4])
        if place == prefix or place.startswith(prefix + "/"):
            found.append(Path(place))
    return found[::-1]


def is_mounted(path: Path) -> bool:
    """Whether a file system of its own is mounted at ``path`` itself."""
    return path.lstat().st_dev != path.parent.stat().st_dev


def unmount(path: Path) -> None:
    """Unmount what is mounted at or below ``path``, busy or not; no error where nothing is."""
    for place in mounts_below(path):
        try:
            syscalls.umount(str(place), syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # It went with another, as mounts within a shared one do (mount_namespaces(7)).


def remove_tree(root: Path) -> None:
    """Unmount all below ``root``, then delete it; nothing on the other side of a mount is touched.

    Raises:
        OSError: something could not be unmounted; nothing was deleted then.
    """
    if not root.exists():
        return
    unmount(root)
    left = mounts_below(root)
    if left:
        raise OSError(f"still mounted: {left[0]}")
    shutil.rmtree(root)
