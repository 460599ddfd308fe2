"""Unpacking a layer into a directory that overlay can use as it is.

A layer is a tar archive of changes (OCI image specification, "Layer Filesystem Changeset"). Files
marked ``.wh.<name>`` delete a name of the layers below; overlay knows such a deletion as a
character device 0:0 of that name. ``.wh..wh..opq`` empties a directory; overlay knows that as the
attribute ``trusted.overlay.opaque`` (kernel documentation, filesystems/overlayfs).

The archive is a stranger's. Every name is cleaned, its parent directory is opened beneath the
layer's root by ``beneath`` and the last component is only ever used relative to that descriptor,
without following it. So neither ``../``, nor an absolute name, nor a symbolic or hard link that the
archive itself has made can reach anything outside, not even in a race.

A directory that the archive uses and does not list gets the owner, mode and attributes that the
layers below give it, else root's with mode 0755: merged by overlay, the topmost directory's
attributes are the ones that count, and ``/tmp`` must not lose its sticky bit to a file in it.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from wherry.engine.errors import BadParameter
from wherry.engine.image import members, tar
from wherry.engine.image.members import set_xattr, write_all
from wherry.engine.image.merged import OPAQUE, find, is_whiteout
from wherry.engine.image.tar import Entry, TarReader
from wherry.host.beneath import open_beneath, open_directory

WHITEOUT = ".wh."
WHITEOUT_META = ".wh..wh."
OPAQUE_MARKER = ".wh..wh..opq"
_WHITEOUT_DEVICE = os.makedev(0, 0)
_COPY = 1 << 20


def unpack(reader: TarReader, root: Path, lower: Sequence[Path] = ()) -> tuple[int, int]:
    """Apply the entries of ``reader`` to the empty directory ``root``.

    ``lower`` are the unpacked layers below, topmost first; they are only looked at. Returns the
    layer's size in bytes, which like Docker's is the sum of the sizes its headers state, and the
    number of entries.

    Raises:
        BadParameter: a name leads outside.
        TarError: the archive is damaged.
        OSError: the file system refuses.
    """
    unpacker = _Unpacker(root, lower)
    try:
        for entry in reader:
            unpacker.apply(entry, reader)
        unpacker.finish()
    finally:
        unpacker.close()
    return unpacker.size, unpacker.entries


class _Unpacker:
    def __init__(self, root: Path, lower: Sequence[Path]) -> None:
        self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lower = lower
        self._parent: str | None = (
            ""  # the directory that _parent_fd is open on; entries come in order
        )
        self._parent_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._directory_times: dict[str, int] = {}
        self.size = 0
        self.entries = 0

    def close(self) -> None:
        os.close(self._root)
        os.close(self._parent_fd)

    def apply(self, entry: Entry, reader: TarReader) -> None:
        parts = clean(entry.name)
        self.size += entry.real_size
        self.entries += 1
        if not parts:
            if entry.type == tar.DIRECTORY:
                members.describe_open(self._root, entry)
            return
        name = parts[-1]
        parent = self._open_parent(parts[:-1])
        if name.startswith(WHITEOUT):
            self._white_out(parent, name)
            return
        way = _Way.FREE
        try:
            self._create(parent, name, entry, reader)
        except FileExistsError:
            way = self._make_way(parent, name, entry)
            if way is not _Way.MERGE:
                self._create(parent, name, entry, reader)
        if entry.type == tar.DIRECTORY:
            self._directory_times["/".join(parts)] = entry.mtime
            if way is _Way.WHITEOUT:
                _set_opaque(parent, name)
        if entry.type not in (tar.REGULAR, tar.LINK):
            members.describe(parent, name, entry)

    def finish(self) -> None:
        """Set the times of directories, which every file put into them has changed."""
        for path, mtime in self._directory_times.items():
            head, _, name = path.rpartition("/")
            try:
                parent = self._open_parent(head.split("/") if head else [])
                if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                    os.utime(name, ns=(mtime, mtime), dir_fd=parent, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                continue  # a later entry replaced it

    # Making one entry

    def _create(self, parent: int, name: str, entry: Entry, reader: TarReader) -> None:
        if entry.type == tar.LINK:
            self._link(parent, name, entry)
        else:
            members.create(parent, name, entry, reader)

    def _link(self, parent: int, name: str, entry: Entry) -> None:
        target = clean(entry.link)
        if not target:
            raise BadParameter(f"invalid hard link {entry.name!r} to {entry.link!r}")
        try:
            directory = open_directory(self._root, "/".join(target[:-1]))
        except FileNotFoundError:
            directory = self._directory(target[:-1])
        try:
            source = target[-1]
            if not _exists(directory, source):
                self._copy_up(directory, target)
            os.link(source, name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(directory)

    def _copy_up(self, directory: int, target: list[str]) -> None:
        """Bring a file of a lower layer here, so that this layer can have a second name for it."""
        found = find(self._lower, target)
        if found is None:
            raise BadParameter(f"hard link to {'/'.join(target)!r}, which is not in the image")
        try:
            status = os.fstat(found)
            if not stat.S_ISREG(status.st_mode):
                raise BadParameter(f"hard link to {'/'.join(target)!r}, which is no regular file")
            below = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                copy = os.open(target[-1], flags, 0o600, dir_fd=directory)
                try:
                    while data := os.read(below, _COPY):
                        write_all(copy, data)
                    os.fchown(copy, status.st_uid, status.st_gid)
                    for key in os.listxattr(below):
                        set_xattr(copy, key, os.getxattr(below, key))
                    os.fchmod(copy, stat.S_IMODE(status.st_mode))
                    os.utime(copy, ns=(status.st_mtime_ns, status.st_mtime_ns))
                finally:
                    os.close(copy)
            finally:
                os.close(below)
        finally:
            os.close(found)

    def _make_way(self, parent: int, name: str, entry: Entry) -> _Way:
        """Remove what already has the name, unless a directory meets a directory."""
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            if entry.type == tar.DIRECTORY:
                return _Way.MERGE
            self._parent = None
            shutil.rmtree(name, dir_fd=parent)
            return _Way.FREE
        if stat.S_ISLNK(status.st_mode):
            self._parent = None
        os.unlink(name, dir_fd=parent)
        return _Way.WHITEOUT if is_whiteout(status) else _Way.FREE

    def _white_out(self, parent: int, name: str) -> None:
        """Hide a name, or all names in the directory, that lower layers have.

        What this layer itself puts there stays, in whichever order the two come.
        """
        if name == OPAQUE_MARKER:
            _set_opaque(parent)
            return
        if name.startswith(WHITEOUT_META):
            return  # notes that aufs kept for itself
        target = name.removeprefix(WHITEOUT)
        if target in ("", ".", ".."):
            raise BadParameter(f"invalid whiteout {name!r}")
        try:
            os.mknod(target, stat.S_IFCHR, _WHITEOUT_DEVICE, dir_fd=parent)
        except FileExistsError:
            status = os.stat(target, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                _set_opaque(parent, target)

    # Directories

    def _open_parent(self, parts: list[str]) -> int:
        """A descriptor of the directory, made where it is missing; good until the next call."""
        path = "/".join(parts)
        if path != self._parent:
            descriptor = self._directory(parts)
            os.close(self._parent_fd)
            self._parent, self._parent_fd = path, descriptor
        return self._parent_fd

    def _directory(self, parts: list[str]) -> int:
        """A new descriptor of the directory, made where it is missing."""
        path = "/".join(parts)
        try:
            return open_directory(self._root, path)
        except (FileNotFoundError, NotADirectoryError):
            pass
        parent = os.dup(self._root)
        try:
            for depth, name in enumerate(parts, start=1):
                try:
                    child = open_directory(self._root, "/".join(parts[:depth]))
                except (FileNotFoundError, NotADirectoryError):
                    self._make_directory(parent, parts[:depth])
                    child = open_beneath(parent, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
                os.close(parent)
                parent = child
        except BaseException:
            os.close(parent)
            raise
        return parent

    def _make_directory(self, parent: int, parts: list[str]) -> None:
        """Make a directory that the archive uses without having listed it."""
        name = parts[-1]
        opaque = False
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            if not is_whiteout(os.stat(name, dir_fd=parent, follow_symlinks=False)):
                raise NotADirectoryError(
                    errno.ENOTDIR, os.strerror(errno.ENOTDIR), "/".join(parts)
                ) from None
            os.unlink(name, dir_fd=parent)
            os.mkdir(name, 0o755, dir_fd=parent)
            opaque = True
        if opaque:
            _set_opaque(parent, name)
            return
        found = find(self._lower, parts)
        if found is None:
            # Whatever the umask made of it.
            os.chmod(name, 0o755, dir_fd=parent)  # noqa: S103  a directory of the image
            return
        try:
            status = os.fstat(found)
            if stat.S_ISDIR(status.st_mode):
                os.chown(name, status.st_uid, status.st_gid, dir_fd=parent)
                os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=parent)
                times = (status.st_atime_ns, status.st_mtime_ns)
                os.utime(name, ns=times, dir_fd=parent)
                below = f"/proc/self/fd/{found}"
                for key in os.listxattr(below):
                    set_xattr(f"/proc/self/fd/{parent}/{name}", key, os.getxattr(below, key))
                self._directory_times.setdefault("/".join(parts), status.st_mtime_ns)
        finally:
            os.close(found)


class _Way(Enum):
    """What became of something that had an entry's name before it."""

    FREE = "removed"
    WHITEOUT = "removed, and it hid something below"
    MERGE = "a directory, which stays"


def clean(name: str) -> list[str]:
    """The components of a name in an archive, as from the root.

    Raises:
        BadParameter: ``..`` leads above the root.
    """
    parts: list[str] = []
    for part in name.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            if not parts:
                raise BadParameter(f'"{name}" is outside of "/"')
            parts.pop()
        else:
            parts.append(part)
    return parts


def _set_opaque(directory: int, name: str = "") -> None:
    path = f"/proc/self/fd/{directory}" + (f"/{name}" if name else "")
    os.setxattr(path, OPAQUE, b"y", follow_symlinks=not name)


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
