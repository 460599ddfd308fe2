"""System calls that Python 3.11 does not have, through the C library."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Any

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_RELATIME = 0x200000
MNT_DETACH = 0x2
UMOUNT_NOFOLLOW = 0x8
CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000


@cache
def _library() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """mount(2).

    Raises:
        OSError: with the kernel's error number; ``filename`` is the target.
    """
    _check(
        _library().mount(
            os.fsencode(source),
            os.fsencode(target),
            os.fsencode(kind),
            ctypes.c_ulong(flags),
            os.fsencode(data) or None,
        ),
        target,
    )


def umount(target: str, flags: int = 0) -> None:
    """umount2(2).

    Raises:
        OSError: EINVAL where ``target`` is no mount point, EBUSY where it is in use.
    """
    _check(_library().umount2(os.fsencode(target), flags), target)


def unshare(flags: int) -> None:
    """unshare(2): the calling thread leaves the namespaces it shares.

    Raises:
        OSError: EPERM without the privilege.
    """
    _check(_library().unshare(flags), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """setns(2): the calling thread enters the namespace that ``descriptor`` refers to.

    Raises:
        OSError: EINVAL where it is no namespace of that kind, EPERM without the privilege.
    """
    _check(_library().setns(descriptor, kind), "setns")
