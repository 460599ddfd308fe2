"""A container's root file system: layers of an image under a writable one, by overlay.

https://docs.kernel.org/filesystems/overlayfs.html
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path

from wherry.host import mount_table, syscalls

# mount(2) takes one page of options, its closing zero included.
_OPTIONS_LIMIT = 4095
_SPECIAL = re.compile(r"[,:\\\s]")


def mount_overlay(lower: Sequence[Path], upper: Path, work: Path, target: Path) -> None:
    """Mount ``lower`` (topmost first) under ``upper`` at ``target``.

    ``work`` is an empty directory on the file system of ``upper``. Where the paths are too long for
    the kernel's one page of options, or hold signs that separate options there, they are given as
    open descriptors of this process (``/proc/self/fd/…``), enough for 200 layers.

    Raises:
        OSError: with the kernel's reason; ``filename`` is the target.
    """
    _overlay([*lower], [upper, work], target, 0)


def mount_layers(lower: Sequence[Path], target: Path) -> None:
    """Mount ``lower`` (topmost first) alone, read-only, at ``target``.

    Raises:
        OSError: with the kernel's reason; ``filename`` is the target.
    """
    if len(lower) > 1:
        _overlay(lower, [], target, syscalls.MS_RDONLY)
        return
    # Overlay wants two at least.
    syscalls.mount(str(lower[0]), str(target), "", syscalls.MS_BIND)
    again = syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_RDONLY
    syscalls.mount("", str(target), "", again)


def open_layers(lower: Sequence[Path], target: Path) -> int:
    """A descriptor of ``lower`` as one tree, to read; ``target`` is an empty directory.

    It is mounted there for a moment only: the mount lives as long as the descriptor, and ends with
    this process at the latest.

    Raises:
        OSError: with the kernel's reason.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    if len(lower) == 1:
        return os.open(lower[0], flags)
    mount_layers(lower, target)
    try:
        return os.open(target, flags)
    finally:
        syscalls.umount(str(target), syscalls.UMOUNT_NOFOLLOW | syscalls.MNT_DETACH)


def _overlay(
    lower: Sequence[Path], upper_and_work: Sequence[Path], target: Path, flags: int
) -> None:
    options = overlay_options([str(path) for path in lower], *map(str, upper_and_work))
    if options is not None:
        syscalls.mount("overlay", str(target), "overlay", flags, options)
        return
    with contextlib.ExitStack() as stack:

        def short(path: Path) -> str:
            descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            return f"/proc/self/fd/{descriptor}"

        options = overlay_options([short(path) for path in lower], *map(short, upper_and_work))
        if options is None:
            raise OSError(errno.E2BIG, f"{len(lower)} layers are too many for one mount", target)
        syscalls.mount("overlay", str(target), "overlay", flags, options)


def overlay_options(lower: Sequence[str], upper: str = "", work: str = "") -> str | None:
    """The options of an overlay mount, or None where these paths cannot be written as such.

    Without ``upper`` (and ``work``) it is read-only.
    """
    paths = [*lower, *filter(None, (upper, work))]
    if any(_SPECIAL.search(path) for path in paths):
        return None
    # index=off: a layer may be below many containers at once. The other two keep the upper layer a
    # plain record of what changed, whatever the kernel's defaults are.
    options = f"index=off,redirect_dir=off,metacopy=off,lowerdir={':'.join(lower)}"
    if upper:
        options += f",upperdir={upper},workdir={work}"
    return options if len(os.fsencode(options)) <= _OPTIONS_LIMIT else None


def unmount(target: Path) -> None:
    """Unmount ``target``, at its last use where it is busy; nothing where it is not mounted.

    Raises:
        OSError: for any other reason.
    """
    try:
        syscalls.umount(str(target), syscalls.UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return
        if error.errno != errno.EBUSY:
            raise
        syscalls.umount(str(target), syscalls.UMOUNT_NOFOLLOW | syscalls.MNT_DETACH)


def mounts_below(root: Path) -> list[Path]:
    """Mount points at or below ``root``, in the order in which they can be unmounted."""
    return mount_points(mount_table.read(), root.resolve())


def mount_points(mountinfo: str, root: Path) -> list[Path]:
    """``mounts_below`` for the text of a mountinfo file (proc(5)): later mounts come first."""
    points = (Path(unescape(line.split(" ", 5)[4])) for line in mount_table.lines(mountinfo))
    return [point for point in points if point.is_relative_to(root)][::-1]


def unescape(text: str) -> str:
    """Undo the octal escapes (``\\040``) of a field of mountinfo."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
