"""Making one member of an archive in a directory, so that no race can lead elsewhere.

The directory is an open descriptor, the name one component. Nothing is followed: what somebody else
puts in the place of a member that was just made gets its own attributes at worst.
"""

from __future__ import annotations

import errno
import os
import stat

from wherry.engine.image import tar
from wherry.engine.image.tar import Entry, TarReader

# Attributes in which overlay keeps its own notes; from an archive they could redirect it.
OVERLAY_XATTRS = ("trusted.overlay.", "user.overlay.")
_COPY = 1 << 20
# An image must not fail for an attribute that the file system cannot hold (SELinux labels mostly).
_XATTR_TOLERATED = (errno.ENOTSUP, errno.EPERM)


def create(parent: int, name: str, entry: Entry, reader: TarReader) -> None:
    """Make ``entry``, which is no hard link, as ``name``; a regular file gets all it should have.

    Everything else is to be ``describe``\\ d.

    Raises:
        FileExistsError: the name is taken.
        OSError: the file system refuses.
    """
    match entry.type:
        case tar.REGULAR:
            _write(parent, name, entry, reader)
        case tar.DIRECTORY:
            os.mkdir(name, 0o700, dir_fd=parent)
        case tar.SYMLINK:
            os.symlink(entry.link, name, dir_fd=parent)
        case tar.FIFO:
            os.mkfifo(name, 0o600, dir_fd=parent)
        case tar.CHARACTER:
            device = os.makedev(entry.major, entry.minor)
            os.mknod(name, 0o600 | stat.S_IFCHR, device, dir_fd=parent)
        case tar.BLOCK_DEVICE:
            device = os.makedev(entry.major, entry.minor)
            os.mknod(name, 0o600 | stat.S_IFBLK, device, dir_fd=parent)


def describe(parent: int, name: str, entry: Entry) -> None:
    """Owner, attributes, mode and time of what is not a regular file."""
    if entry.type == tar.SYMLINK:
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        for key, value in entry.xattrs.items():
            set_xattr(f"/proc/self/fd/{parent}/{name}", key, value)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)
        return
    found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if not stat.S_ISLNK(os.fstat(found).st_mode):
            describe_open(found, entry)
    finally:
        os.close(found)


def describe_open(descriptor: int, entry: Entry) -> None:
    """As ``describe``, for what is open already, if only by O_PATH."""
    path = f"/proc/self/fd/{descriptor}"
    os.chown(path, entry.uid, entry.gid)
    for key, value in entry.xattrs.items():
        set_xattr(path, key, value, follow=True)
    os.chmod(path, entry.mode)  # noqa: PTH101  beside its siblings
    os.utime(path, ns=(entry.mtime, entry.mtime))


def _write(parent: int, name: str, entry: Entry, reader: TarReader) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(name, flags, 0o600, dir_fd=parent)
    try:
        if entry.sparse is None:
            while data := reader.read(_COPY):
                write_all(file, data)
        else:
            for offset, length in entry.sparse:
                os.lseek(file, offset, os.SEEK_SET)
                while length:
                    data = reader.read(min(length, _COPY))
                    write_all(file, data)
                    length -= len(data)
            os.ftruncate(file, entry.real_size)
        os.fchown(file, entry.uid, entry.gid)
        for key, value in entry.xattrs.items():
            set_xattr(file, key, value)
        os.fchmod(file, entry.mode)  # after chown, which clears the set-id bits
        os.utime(file, ns=(entry.mtime, entry.mtime))
    finally:
        os.close(file)


def set_xattr(target: int | str, key: str, value: bytes, *, follow: bool = False) -> None:
    """Set an attribute, unless it is overlay's own or the file system cannot hold such."""
    if key.startswith(OVERLAY_XATTRS):
        return
    try:
        if isinstance(target, int):
            os.setxattr(target, key, value)
        else:
            os.setxattr(target, key, value, follow_symlinks=follow)
    except OSError as error:
        if error.errno not in _XATTR_TOLERATED:
            raise


def write_all(file: int, data: bytes) -> None:
    """Write all of ``data``, however little the kernel takes at a time."""
    written = os.write(file, data)
    while written < len(data):
        written += os.write(file, memoryview(data)[written:])
