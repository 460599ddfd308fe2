"""Directory trees as tar archives, while others may be changing them (blocking).

The tree belongs to a container, which may be running and may be hostile. It is walked by
descriptors; a directory is opened anew from the top without following a link, so nothing that is
exchanged meanwhile leads out of it, and neither memory nor the number of open files depends on how
large or deep it is. What vanishes during the walk is left out.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from wherry.engine.image import tar
from wherry.engine.image.members import OVERLAY_XATTRS
from wherry.engine.image.tar import NSEC, Entry
from wherry.engine.image.tar_writer import END, header, padding
from wherry.host.beneath import open_without_links

log = logging.getLogger(__name__)

PIECE = 1 << 20
# A hole at least so large is worth a map of the file's data.
_HOLE = 1 << 20
_SEGMENTS = 4096
_XATTRS = ("user.", "security.capability", "system.posix_acl_")
_BARE = len(["", "proc", "self", "fd", ""]) - 1  # slashes in the path of a descriptor
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_KINDS = {
    stat.S_IFREG: tar.REGULAR,
    stat.S_IFDIR: tar.DIRECTORY,
    stat.S_IFLNK: tar.SYMLINK,
    stat.S_IFCHR: tar.CHARACTER,
    stat.S_IFBLK: tar.BLOCK_DEVICE,
    stat.S_IFIFO: tar.FIFO,
}


@dataclass(slots=True)
class Found:
    """Something in the tree: ``path`` is relative to its top, ``parent`` an open directory."""

    path: str
    name: str
    parent: int
    status: os.stat_result


def walk(top: int) -> Iterator[Found]:
    """Everything below the directory ``top``, in the order of the names; a directory comes first
    and its content at once after it.

    ``parent`` is open until the next step only.
    """
    # Names that are still to come, last one first, of the directories from the top down to here.
    stack: list[tuple[str, list[str]]] = [("", _names(top, ""))]
    while stack:
        here, names = stack[-1]
        if not names:
            stack.pop()
            continue
        deeper = ""
        try:
            directory = open_without_links(top, here or ".", os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            names.clear()
            continue
        try:
            while names and not deeper:
                name = names.pop()
                try:
                    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                path = f"{here}/{name}" if here else name
                yield Found(path, name, directory, status)
                if stat.S_ISDIR(status.st_mode):
                    deeper = path
        finally:
            os.close(directory)
        if deeper:
            stack.append((deeper, _names(top, deeper)))


def _names(top: int, path: str) -> list[str]:
    try:
        directory = open_without_links(top, path or ".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno not in _GONE:
            raise
        return []
    try:
        return sorted(os.listdir(directory), reverse=True)  # noqa: PTH208  a descriptor
    finally:
        os.close(directory)


@dataclass(slots=True)
class Archiver:
    """Writes members of one archive; knows which files it has had under another name.

    With ``sparse`` large holes are told by a map, which GNU tar, Go and Python understand, instead
    of being written as zeros.
    """

    sparse: bool = False
    _links: dict[tuple[int, int], str] = field(default_factory=dict)

    def add(self, found: Found, name: str) -> Iterator[bytes]:
        """The member for ``found`` as ``name``, which for a directory ends in a slash."""
        yield from self.member(found.parent, found.name, name, found.status)

    def member(self, parent: int, name: str, shown: str, status: os.stat_result) -> Iterator[bytes]:
        """The member for ``name`` in the directory ``parent``; nothing where it has vanished."""
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            log.debug("%s is a socket, which no archive can hold", shown)
            return
        entry = _entry(kind, shown, status)
        try:
            if kind == tar.REGULAR:
                if status.st_nlink > 1:
                    first = self._links.setdefault((status.st_dev, status.st_ino), shown)
                    if first != shown:
                        entry.type, entry.link = tar.LINK, first
                        yield header(entry)
                        return
                yield from self._file(parent, name, entry)
                return
            if kind == tar.SYMLINK:
                entry.link = os.readlink(name, dir_fd=parent)
            elif kind in (tar.CHARACTER, tar.BLOCK_DEVICE):
                entry.major, entry.minor = os.major(status.st_rdev), os.minor(status.st_rdev)
            elif kind == tar.DIRECTORY:
                _read_xattrs(entry, f"/proc/self/fd/{parent}/{name}", follow=False)
        except OSError as error:
            # EINVAL: what was a symbolic link is none any more.
            if error.errno not in (*_GONE, errno.EINVAL):
                raise
            return
        yield header(entry)

    def _file(self, parent: int, name: str, entry: Entry) -> Iterator[bytes]:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(name, flags, dir_fd=parent)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                return
            entry.size = entry.real_size = status.st_size
            _read_xattrs(entry, file)
            if self.sparse and status.st_size - 512 * status.st_blocks >= _HOLE:
                entry.sparse = _segments(file, status.st_size)
                entry.size = sum(length for _, length in entry.sparse)
            yield header(entry)
            for offset, length in entry.sparse or [(0, entry.size)]:
                yield from _data(file, offset, length, entry.name)
            yield padding(entry.size)
        finally:
            os.close(file)


def archive_directory(
    top: int, shown: str, *, itself: bool, skip: Callable[[Found], bool] | None = None
) -> Iterator[bytes]:
    """An archive of what is below the directory ``top``, names beginning with ``shown``.

    With ``itself`` the directory is a member, too.
    """
    archiver = Archiver()
    if itself:
        status = os.fstat(top)
        entry = _entry(tar.DIRECTORY, shown if shown.endswith("/") else f"{shown}/", status)
        _read_xattrs(entry, f"/proc/self/fd/{top}", follow=True)
        yield header(entry)
    prefix = shown if not shown or shown.endswith("/") else f"{shown}/"
    for found in walk(top):
        if skip is None or not skip(found):
            slash = "/" if stat.S_ISDIR(found.status.st_mode) else ""
            yield from archiver.add(found, f"{prefix}{found.path}{slash}")
    yield END


def archive_member(parent: int, name: str, shown: str) -> Iterator[bytes]:
    """An archive of one thing that is not a directory."""
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    yield from Archiver().member(parent, name, shown, status)
    yield END


def describe(path: str, name: str, status: os.stat_result) -> Entry | None:
    """The header of what is at ``path``, as ``name``; None for a socket.

    ``path`` is below a descriptor (``/proc/self/fd/…``); its last component is not followed.
    """
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return None
    entry = _entry(kind, name, status)
    if kind == tar.REGULAR:
        entry.size = entry.real_size = status.st_size
    elif kind == tar.SYMLINK:
        entry.link = os.readlink(path)  # noqa: PTH115  the text as it is
    elif kind in (tar.CHARACTER, tar.BLOCK_DEVICE):
        entry.major, entry.minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    if kind in (tar.REGULAR, tar.DIRECTORY):
        # A bare descriptor is a link to what it is open on.
        _read_xattrs(entry, path, follow=path.count("/") == _BARE)
    return entry


def file_pieces(path: str) -> Iterator[bytes]:
    """The content of a regular file, as long as it was when it was opened."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(file)
        if stat.S_ISREG(status.st_mode):
            yield from _data(file, 0, status.st_size, path)
    finally:
        os.close(file)


def in_pieces(parts: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of about PIECE, whatever size ``parts`` have."""
    gathered: list[bytes] = []
    size = 0
    for part in parts:
        gathered.append(part)
        size += len(part)
        if size >= PIECE:
            yield b"".join(gathered)
            gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)


def _entry(kind: str, name: str, status: os.stat_result) -> Entry:
    return Entry(
        name=name,
        type=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=0,
        # As Docker: whole seconds need no extended header.
        mtime=status.st_mtime_ns // NSEC * NSEC,
    )


def _data(file: int, offset: int, length: int, name: str) -> Iterator[bytes]:
    """Exactly ``length`` bytes; zeros where the file has become shorter, as GNU tar does it."""
    while length:
        data = os.pread(file, min(length, PIECE), offset)
        if not data:
            log.warning("%s has shrunk while it was read; %d bytes are zeros", name, length)
            data = bytes(min(length, PIECE))
        offset += len(data)
        length -= len(data)
        yield data


def _segments(file: int, size: int) -> list[tuple[int, int]]:
    """Where the file has data; with an empty segment at its end, as GNU tar has it."""
    segments: list[tuple[int, int]] = []
    position = 0
    while position < size:
        try:
            begin = os.lseek(file, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        end = min(os.lseek(file, begin, os.SEEK_HOLE), size)
        if len(segments) == _SEGMENTS:
            end = size
        if begin < end:
            segments.append((begin, end - begin))
        position = end
    if not segments or sum(segments[-1]) < size:
        segments.append((size, 0))
    return segments


def _read_xattrs(entry: Entry, target: int | str, *, follow: bool = False) -> None:
    """The attributes that belong to a file wherever it is; labels of this machine do not."""
    try:
        if isinstance(target, int):
            names = os.listxattr(target)
        else:
            names = os.listxattr(target, follow_symlinks=follow)
        for name in names:
            if name.startswith(_XATTRS) and not name.startswith(OVERLAY_XATTRS):
                if isinstance(target, int):
                    entry.xattrs[name] = os.getxattr(target, name)
                else:
                    entry.xattrs[name] = os.getxattr(target, name, follow_symlinks=follow)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENODATA, errno.ENOENT, errno.EPERM):
            raise
