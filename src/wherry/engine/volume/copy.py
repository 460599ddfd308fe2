"""Copying what an image has at a path into the fresh volume that will lie over it.

The image is foreign data and is read beneath an open directory, so that no symbolic link leads out.
Content goes by reflink where the file system can, else by copy_file_range, in the kernel. What
belongs to a file is kept: owner, mode, times, extended attributes, and which names are one file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wherry.host.beneath import open_beneath

_FICLONE = 0x40049409
_PIECE = 1 << 30
# What a file system says that cannot do it that way.
_CANNOT = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM)
# Overlay's own notes on a layer are not the file's.
_NOT_COPIED = ("trusted.overlay.", "user.overlay.")


def copy_tree(root: int, source: str, target: Path) -> None:
    """Copy the content of directory ``source`` beneath ``root`` (a descriptor) into ``target``.

    ``target`` is an existing directory; it takes on what belongs to ``source`` itself.

    Raises:
        OSError: reading or writing failed; what was copied stays.
    """
    _Copy(root, target).run(source.strip("/"))


@dataclass(slots=True)
class _Copy:
    root: int
    target: Path
    links: dict[tuple[int, int], str] = field(default_factory=dict)  # a file's first new name

    def run(self, source: str) -> None:
        # Not by recursion: an image may be deep. A directory's times are set when it is full.
        waiting = [""]
        done: list[str] = []
        while waiting:
            inside = waiting.pop()
            done.append(inside)
            with self._directory(source, inside) as directory:
                for name in os.listdir(directory):  # noqa: PTH208  a descriptor
                    path = f"{inside}/{name}" if inside else name
                    if self._entry(directory, name, f"{self.target}/{path}"):
                        waiting.append(path)
        for inside in reversed(done):
            with self._directory(source, inside) as directory:
                status = os.fstat(directory)
                _dress(f"/proc/self/fd/{directory}", f"{self.target}/{inside or '.'}", status)

    @contextlib.contextmanager
    def _directory(self, source: str, inside: str) -> Iterator[int]:
        path = f"{source}/{inside}" if inside else source
        descriptor = open_beneath(self.root, path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _entry(self, directory: int, name: str, target: str) -> bool:
        """Copy one entry; whether it is a directory, which waits for its content."""
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            Path(target).mkdir(0o700)
            return True
        if status.st_nlink > 1:
            first = self.links.setdefault((status.st_dev, status.st_ino), target)
            if first != target:
                os.link(first, target, follow_symlinks=False)
                return False
        match kind:
            case stat.S_IFREG:
                self._file(directory, name, target, status)
                return False
            case stat.S_IFLNK:
                Path(target).symlink_to(os.readlink(name, dir_fd=directory))
            case stat.S_IFSOCK:
                return False  # it means nothing without its process
            case _:
                os.mknod(target, status.st_mode, status.st_rdev)
        _dress(f"/proc/self/fd/{directory}/{name}", target, status)
        return False

    @staticmethod
    def _file(directory: int, name: str, target: str, status: os.stat_result) -> None:
        source = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory
        )
        try:
            copy = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                _content(source, copy)
            finally:
                os.close(copy)
            _dress(f"/proc/self/fd/{source}", target, status)
        finally:
            os.close(source)


def _content(source: int, target: int) -> None:
    try:
        fcntl.ioctl(target, _FICLONE, source)
        return
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    copied = 0
    while True:
        try:
            count = os.copy_file_range(source, target, _PIECE)
        except OSError as error:
            if copied or error.errno not in _CANNOT:
                raise
            break
        if count == 0:
            return
        copied += count
    while data := os.read(source, 1 << 20):
        view = memoryview(data)
        while view:
            view = view[os.write(target, view) :]


def _dress(source: str, target: str, status: os.stat_result) -> None:
    """Give ``target`` what belongs to the file ``source``, besides its content."""
    link = stat.S_ISLNK(status.st_mode)
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not link:
        os.chmod(target, stat.S_IMODE(status.st_mode))  # noqa: PTH101  many files
        _attributes(source, target)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _attributes(source: str, target: str) -> None:
    """Extended attributes; those that the target's file system does not know stay behind."""
    for name in os.listxattr(source):
        if name.startswith(_NOT_COPIED):
            continue
        value = os.getxattr(source, name)
        try:
            os.setxattr(target, name, value)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EPERM):
                raise
