"""Mount options as users write them, ``ro,size=1m``: flags for the kernel, data for the rest.

The names are those of mount(8); the texts of errors are Docker's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from wherry.host import syscalls

_SYNCHRONOUS = 0x10
_MANDLOCK = 0x40
_DIRSYNC = 0x80
_NOATIME = 0x400
_NODIRATIME = 0x800
_POSIXACL = 1 << 16
_UNBINDABLE = 1 << 17
_SLAVE = 1 << 19
_SHARED = 1 << 20
_STRICTATIME = 1 << 24
_SILENT = 0x8000
_BIND_READ_ONLY = syscalls.MS_BIND | syscalls.MS_RDONLY

_PROPAGATION = {
    "private": syscalls.MS_PRIVATE,
    "shared": _SHARED,
    "slave": _SLAVE,
    "unbindable": _UNBINDABLE,
}
_PROPAGATION_TYPES = syscalls.MS_PRIVATE | _SHARED | _SLAVE | _UNBINDABLE

# name: (the flag, whether the name clears it)
_FLAGS: dict[str, tuple[int, bool]] = {
    "acl": (_POSIXACL, False),
    "async": (_SYNCHRONOUS, True),
    "atime": (_NOATIME, True),
    "bind": (syscalls.MS_BIND, False),
    "dev": (syscalls.MS_NODEV, True),
    "diratime": (_NODIRATIME, True),
    "dirsync": (_DIRSYNC, False),
    "exec": (syscalls.MS_NOEXEC, True),
    "mand": (_MANDLOCK, False),
    "noacl": (_POSIXACL, True),
    "noatime": (_NOATIME, False),
    "nodev": (syscalls.MS_NODEV, False),
    "nodiratime": (_NODIRATIME, False),
    "noexec": (syscalls.MS_NOEXEC, False),
    "nomand": (_MANDLOCK, True),
    "norelatime": (syscalls.MS_RELATIME, True),
    "nostrictatime": (_STRICTATIME, True),
    "nosuid": (syscalls.MS_NOSUID, False),
    "rbind": (syscalls.MS_BIND | syscalls.MS_REC, False),
    "relatime": (syscalls.MS_RELATIME, False),
    "remount": (syscalls.MS_REMOUNT, False),
    "ro": (syscalls.MS_RDONLY, False),
    "rw": (syscalls.MS_RDONLY, True),
    "strictatime": (_STRICTATIME, False),
    "suid": (syscalls.MS_NOSUID, True),
    "sync": (_SYNCHRONOUS, False),
    **{name: (flag, False) for name, flag in _PROPAGATION.items()},
    **{f"r{name}": (flag | syscalls.MS_REC, False) for name, flag in _PROPAGATION.items()},
}
_ONE_OF = {"bind", "rbind", *_PROPAGATION, *(f"r{name}" for name in _PROPAGATION)}
_TMPFS_DATA = {"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"}


class MountError(Exception):
    """A mount that the kernel refused, told with what it was asked for."""


class BadOption(ValueError):
    """An option that there is not."""


@dataclass(frozen=True, slots=True)
class Options:
    """Parsed options: flags of mount(2), and what is left for the file system."""

    flags: int
    data: str


def parse(text: str) -> Options:
    """``ro,size=1m`` and the like; later options override earlier ones."""
    flags, data = 0, []
    for name in filter(None, text.split(",")):
        if name == "defaults":
            continue
        if name not in _FLAGS:
            data.append(name)
            continue
        flag, clears = _FLAGS[name]
        flags = flags & ~flag if clears else flags | flag
    return Options(flags, ",".join(data))


def mount(source: str, target: str, kind: str, text: str) -> None:
    """Mount ``source`` at ``target`` as file system ``kind`` with options ``text``.

    Raises:
        MountError: the kernel refuses; nothing is left mounted.
    """
    wanted = parse(text)
    flags = wanted.flags & ~_PROPAGATION_TYPES
    _step("mount", source, target, kind, flags, wanted.data)
    try:
        if wanted.flags & _PROPAGATION_TYPES:
            of_propagation = _PROPAGATION_TYPES | syscalls.MS_REC | _SILENT
            _step("remount", "", target, "", wanted.flags & of_propagation, "")
        if flags & _BIND_READ_ONLY == _BIND_READ_ONLY:
            # The kernel makes a bind read-only in a second step only.
            _step("remount-ro", "", target, "", flags | syscalls.MS_REMOUNT, "")
    except MountError:
        syscalls.umount(target, syscalls.MNT_DETACH)
        raise


def _step(what: str, source: str, target: str, kind: str, flags: int, data: str) -> None:
    try:
        syscalls.mount(source, target, kind, flags, data)
    except OSError as error:
        text = f"{what} {source}:{target}" if source else f"{what} {target}"
        text += f", flags: {flags:#x}" if flags else ""
        text += f", data: {data}" if data else ""
        reason = os.strerror(error.errno or 0).lower()
        raise MountError(f"{text}: {reason}") from error


def merge_tmpfs(options: Sequence[str]) -> list[str]:
    """``options`` of a tmpfs without those that later ones override.

    Raises:
        BadOption: one of them is none of a tmpfs.
    """
    taken: set[object] = set()
    kept: list[str] = []
    for option in reversed(options):
        if option in ("", "defaults"):
            continue
        key: object
        if option in _FLAGS:
            key = "propagation" if option in _ONE_OF else _FLAGS[option][0]
        else:
            parts = option.split("=", 1)
            if len(parts) != 2 or parts[0] not in _TMPFS_DATA:
                shown = " ".join(f'"{part}"' for part in parts)
                raise BadOption(f"invalid tmpfs option [{shown}]")
            key = parts[0]
        if key not in taken:
            taken.add(key)
            kept.append(option)
    return kept[::-1]
