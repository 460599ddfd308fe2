"""Unpacking an archive into a directory of a container, by the rules of `docker cp`.

The container may be running and change its files meanwhile, and the archive is a client's. Every
parent directory is opened beneath the container's root (``image.beneath``), every last component is
used relative to it and never followed.
"""

from __future__ import annotations

import os
import shutil
import stat

from wherry.engine.errors import BadParameter, EngineError
from wherry.engine.image import members, tar
from wherry.engine.image.tar import Entry, TarReader
from wherry.engine.image.unpack import clean
from wherry.host.beneath import open_beneath


def extract(
    reader: TarReader,
    root: int,
    destination: str,
    *,
    keep_kinds: bool = False,
    owner: tuple[int, int] | None = None,
) -> None:
    """Apply ``reader``'s entries to the directory ``destination`` beneath ``root``, a descriptor.

    What is in the way is replaced, a directory by a directory excepted, which is kept with its
    content; with ``keep_kinds`` a directory does not replace anything else, nor the reverse.
    ``owner`` overrules the owners in the archive.

    Raises:
        BadParameter: a name leads outside.
        EngineError: a directory would have replaced something else, or the reverse.
        TarError: the archive is damaged.
        OSError: the file system refuses; ``filename`` says where.
    """
    extraction = _Extraction(root, destination.rstrip("/"), keep_kinds)
    try:
        for entry in reader:
            if owner is not None:
                entry.uid, entry.gid = owner
            extraction.apply(entry, reader)
        extraction.finish()
    finally:
        extraction.close()


class _Extraction:
    def __init__(self, root: int, destination: str, keep_kinds: bool) -> None:
        self._root = root
        self._destination = destination
        self._keep_kinds = keep_kinds
        self._parent = -1
        self._parent_parts: list[str] | None = None
        self._times: dict[str, int] = {}

    def close(self) -> None:
        if self._parent >= 0:
            os.close(self._parent)

    def apply(self, entry: Entry, reader: TarReader) -> None:
        parts = clean(entry.name)
        if not parts:
            return  # the directory itself stays as it is
        name = parts[-1]
        parent = self._open_parent(parts[:-1])
        path = f"{self._destination}/{'/'.join(parts)}"
        try:
            self._make(parent, name, path, entry, reader)
        except OSError as error:
            error.filename = path
            raise
        if entry.type == tar.DIRECTORY:
            self._times["/".join(parts)] = entry.mtime

    def finish(self) -> None:
        """Set the times of directories, which every file put into them has changed."""
        for path, mtime in self._times.items():
            try:
                found = open_beneath(
                    self._root, f"{self._destination}/{path}", os.O_PATH | os.O_DIRECTORY
                )
            except OSError:
                continue  # a later entry, or the container, has replaced it
            try:
                os.utime(f"/proc/self/fd/{found}", ns=(mtime, mtime))
            finally:
                os.close(found)

    def _make(self, parent: int, name: str, path: str, entry: Entry, reader: TarReader) -> None:
        directory = entry.type == tar.DIRECTORY
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            status = None
        if status is not None:
            is_directory = stat.S_ISDIR(status.st_mode)
            if self._keep_kinds and is_directory != directory:
                self._refuse(path, is_directory)
            if is_directory and directory:
                members.describe(parent, name, entry)
                return
            if is_directory:
                self._forget_parent()
                parent = self._open_parent(clean(entry.name)[:-1])
                shutil.rmtree(name, dir_fd=parent)
            else:
                os.unlink(name, dir_fd=parent)
        if entry.type == tar.LINK:
            self._link(parent, name, entry)
            return
        members.create(parent, name, entry, reader)
        if entry.type != tar.REGULAR:
            members.describe(parent, name, entry)

    def _refuse(self, path: str, is_directory: bool) -> None:
        there, new = "directory", "non-directory"
        if not is_directory:
            there, new = new, there
        destination = self._destination or "/"
        raise EngineError(f'cannot overwrite {there} "{path}" with {new} "{destination}"')

    def _link(self, parent: int, name: str, entry: Entry) -> None:
        target = clean(entry.link)
        if not target:
            raise BadParameter(f'invalid hardlink "{entry.name}" -> "{entry.link}"')
        place = "/".join([self._destination, *target[:-1]]) or "/"
        directory = open_beneath(self._root, place, os.O_PATH | os.O_DIRECTORY)
        try:
            os.link(
                target[-1], name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False
            )
        finally:
            os.close(directory)

    def _forget_parent(self) -> None:
        self._parent_parts = None

    def _open_parent(self, parts: list[str]) -> int:
        """A descriptor of the directory, made where it is missing; good until the next call."""
        if parts == self._parent_parts:
            return self._parent
        place = "/".join([self._destination, *parts]) or "/"
        try:
            found = open_beneath(self._root, place, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            found = self._make_parents(parts)
        if self._parent >= 0:
            os.close(self._parent)
        self._parent, self._parent_parts = found, parts
        return found

    def _make_parents(self, parts: list[str]) -> int:
        walked = self._destination or "/"
        directory = open_beneath(self._root, walked, os.O_PATH | os.O_DIRECTORY)
        try:
            for part in parts:
                walked = f"{walked.rstrip('/')}/{part}"
                try:
                    following = open_beneath(self._root, walked, os.O_PATH | os.O_DIRECTORY)
                except FileNotFoundError:
                    os.mkdir(part, 0o755, dir_fd=directory)
                    following = open_beneath(directory, part, os.O_PATH | os.O_DIRECTORY)
                os.close(directory)
                directory = following
        except OSError as error:
            os.close(directory)
            error.filename = walked
            raise
        return directory
