"""System calls that Python 3.11 does not have, through the C library."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
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
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000


_OPEN_TREE_CLONE = 0x1
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
# Their numbers are the same on all architectures.
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442
_SYS_PIDFD_GETFD = 438
_MOUNT_ATTR_IDMAP = 0x100000


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


def descriptor_of(process: int, number: int) -> int:
    """pidfd_getfd(2): a copy of descriptor ``number`` of another process, given as a pidfd.

    Raises:
        OSError: EPERM where the process may not be traced.
    """
    result = _library().syscall(
        ctypes.c_long(_SYS_PIDFD_GETFD),
        *(ctypes.c_int(process), ctypes.c_int(number), ctypes.c_uint(0)),
    )
    _check(result, "pidfd_getfd")
    return int(result)


def clone_mount(descriptor: int, *, recursive: bool = False) -> int:
    """open_tree(2): a copy of the mount at ``descriptor``, attached nowhere, as a new descriptor.

    With ``recursive`` the mounts below it are copied, too. It goes with its last descriptor.

    Raises:
        OSError: with the kernel's error number.
    """
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    result = _library().syscall(
        ctypes.c_long(_SYS_OPEN_TREE), ctypes.c_int(descriptor), b"", ctypes.c_uint(flags)
    )
    _check(result, "open_tree")
    return int(result)


def attach_mount(tree: int, target: int) -> None:
    """move_mount(2): attach what ``clone_mount`` returned at ``target``, a descriptor.

    Raises:
        OSError: with the kernel's error number.
    """
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    _check(
        _library().syscall(
            ctypes.c_long(_SYS_MOVE_MOUNT),
            *(ctypes.c_int(tree), b"", ctypes.c_int(target), b"", ctypes.c_uint(flags)),
        ),
        "move_mount",
    )


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("user_namespace", ctypes.c_uint64),
    )


def map_ids(tree: int, user_namespace: int) -> None:
    """mount_setattr(2): show the files of a mount that is attached nowhere with other owners.

    Who is 0 on disk is whom ``user_namespace``, a descriptor, maps 0 to, and so on.

    Raises:
        OSError: EINVAL where the file system cannot do that.
    """
    attributes = _MountAttributes(_MOUNT_ATTR_IDMAP, 0, 0, user_namespace)
    _check(
        _library().syscall(
            ctypes.c_long(_SYS_MOUNT_SETATTR),
            *(ctypes.c_int(tree), b"", ctypes.c_uint(AT_EMPTY_PATH)),
            *(ctypes.byref(attributes), ctypes.c_size_t(ctypes.sizeof(attributes))),
        ),
        "mount_setattr",
    )


_CAPABILITY_VERSION = 0x20080522


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


@contextlib.contextmanager
def file_system_identity(uid: int, gid: int) -> Iterator[None]:
    """What the calling thread makes meanwhile belongs to ``uid`` and ``gid`` (setfsuid(2)).

    It keeps its capabilities over files, which the kernel would take from it with root's identity.
    (Unlike setuid(3) all this concerns one thread only.)
    """
    library = _library()
    header, held = _CapabilityHeader(_CAPABILITY_VERSION, 0), (_CapabilityData * 2)()
    _check(library.capget(ctypes.byref(header), held), "capget")
    former_gid = library.setfsgid(gid)
    former_uid = library.setfsuid(uid)
    try:
        _check(library.capset(ctypes.byref(header), held), "capset")
        yield
    finally:
        library.setfsuid(former_uid)
        library.setfsgid(former_gid)
