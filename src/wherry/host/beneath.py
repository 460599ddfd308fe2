"""Opening paths that cannot lead out of a directory, whatever symbolic links lie on the way.

openat2(2) with RESOLVE_IN_ROOT resolves a path as if the directory were the root of the file
system: ``..`` stops there and absolute symbolic links start there. The kernel does it in one step,
so nothing can be exchanged between a check and its use. Linux has it since 5.6.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

_SYS_OPENAT2 = 437  # the same on all architectures
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_RESOLVE_IN_ROOT = 0x10

# Errors after which the kernel wants to be asked again: a rename went on beneath the root.
_AGAIN = (errno.EAGAIN, errno.EINTR)


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def open_beneath(root: int, path: str, flags: int) -> int:
    """A descriptor of ``path`` as seen from the directory ``root`` (a descriptor) as ``/``.

    Raises:
        OSError: as open(2).
    """
    return _openat2(root, path, flags, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)


def open_within(root: int, path: str, flags: int) -> int:
    """A descriptor of ``path`` in the directory ``root``, which no link may lead out of.

    Raises:
        OSError: EXDEV where one does; else as open(2).
    """
    return _openat2(root, path, flags, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)


def hold_within(root: Path, path: str) -> int:
    """The same for a directory by its path: a descriptor with O_PATH."""
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return open_within(directory, path, os.O_PATH)
    finally:
        os.close(directory)


def open_without_links(root: int, path: str, flags: int) -> int:
    """A descriptor of ``path`` below the directory ``root``, with no symbolic link on the way.

    For paths that were found by walking: what has become a link since is refused.

    Raises:
        OSError: as open(2); ELOOP for a link, EXDEV for a path that leads out.
    """
    return _openat2(root, path, flags, _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS)


def _openat2(root: int, path: str, flags: int, resolve: int) -> int:
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    raw = os.fsencode(path) or b"."
    while True:
        descriptor = _libc.syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_int(root),
            ctypes.c_char_p(raw),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if descriptor >= 0:
            return int(descriptor)
        code = ctypes.get_errno()
        if code not in _AGAIN:
            raise OSError(code, os.strerror(code), path)


def open_directory(root: int, path: str) -> int:
    """A descriptor of the directory ``path`` beneath ``root``, for use as ``dir_fd``."""
    return open_beneath(root, path, os.O_PATH | os.O_DIRECTORY)
