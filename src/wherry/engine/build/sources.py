"""Where COPY and ADD take files from, all seen alike (blocking).

A build's context stays the archive as which it came: indexed by path, never unpacked. So nothing in
it can reach anything, and a file costs no more than its place in the index. Files of images and
stages come from a mounted tree.
"""

from __future__ import annotations

import hashlib
import io
import os
import posixpath
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Protocol, cast

from wherry.engine.build.dockerfile.patterns import IgnoreFile, matcher
from wherry.engine.errors import BadParameter
from wherry.engine.image import linkwalk, tar
from wherry.engine.image.compression import BUFFER, Bounds, CompressionError, expand
from wherry.engine.image.layers import spool
from wherry.engine.image.tar import Entry, TarError, TarReader
from wherry.engine.image.tar_writer import END, header, padding
from wherry.engine.image.tree import describe, file_pieces, walk
from wherry.engine.image.unpack import clean
from wherry.host.beneath import open_beneath, open_without_links

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to copy. ``path`` is relative to what was asked for, empty for that itself.

    ``identity`` is the same for all names of one file, None where it has but one.
    """

    path: str
    entry: Entry
    pieces: Callable[[], Iterator[bytes]]
    identity: tuple[int, int] | None = None


class Source(Protocol):
    """A tree of files. Paths are relative and clean; the empty one is the top."""

    def lookup(self, path: str) -> Entry | None:
        """What is there, links followed; None for nothing."""

    def matches(self, pattern: str) -> list[str]:
        """The paths that a pattern of COPY means, in order."""

    def items(self, path: str) -> Iterator[Item]:
        """What is there and all below it; a link at ``path`` itself is followed, no other."""


def digest(source: Source, path: str, *, owners: bool) -> str:
    """A digest of all that copying ``path`` would bring, times excepted.

    With ``owners``, who owns the files counts as well.
    """
    total = hashlib.sha256()
    for item in source.items(path):
        entry = item.entry
        facts = [item.path, entry.type, entry.mode, entry.real_size or entry.size, entry.link]
        facts += [entry.major, entry.minor, sorted(entry.xattrs.items())]
        if owners:
            facts += [entry.uid, entry.gid]
        total.update(repr(facts).encode("utf-8", "surrogateescape"))
        if entry.type == tar.REGULAR:
            content = hashlib.sha256()
            for piece in item.pieces():
                content.update(piece)
            total.update(content.digest())
    return total.hexdigest()


# ---- the context


@dataclass(slots=True)
class _Member:
    entry: Entry
    offset: int = 0


class Context:
    """The files that a client sent for a build."""

    def __init__(self, file: IO[bytes]) -> None:
        """From a plain archive, which is closed with this.

        Raises:
            BadParameter: it is damaged.
        """
        self._file = file
        self._members: dict[str, _Member] = {}
        self._children: dict[str, list[str]] | None = None
        try:
            self._index()
        except TarError as error:
            raise BadParameter(f"Error processing tar file: {error}") from error

    @classmethod
    def receive(cls, stream: io.RawIOBase, scratch: Path) -> Context:
        """Spool what a client sends, packed or not, into ``scratch``.

        Raises:
            BadParameter: it is no archive.
        """
        packed = io.BufferedReader(stream, BUFFER)
        try:
            _, plain = expand(packed, Bounds(scratch))
            path, _, _ = spool(cast(IO[bytes], plain), scratch)
        except CompressionError as error:
            raise BadParameter(f"Error processing tar file: {error}") from error
        file = path.open("rb")
        path.unlink()
        return cls(file)

    @classmethod
    def of_pieces(cls, pieces: Iterator[bytes], scratch: Path) -> Context:
        """From the pieces of a plain archive."""
        return cls.receive(_Pieces(pieces), scratch)

    @classmethod
    def of_file(cls, name: str, data: bytes, scratch: Path) -> Context:
        """A context of a single file."""
        entry = Entry(
            name=name, type=tar.REGULAR, mode=0o644, uid=0, gid=0, size=len(data), mtime=0
        )
        return cls.of_pieces(iter((header(entry), data, padding(len(data)), END)), scratch)

    def close(self) -> None:
        """Let go of the archive."""
        self._file.close()

    def _index(self) -> None:
        reader = TarReader(self._file)
        for entry in reader:
            path = _within(entry.name)
            if not path:
                continue
            if entry.type == tar.LINK:
                target = self._members.get(_within(entry.link))
                if target is not None:
                    self._members[path] = target
                continue
            _count_data(entry)
            self._members[path] = _Member(entry, self._file.tell())
        for path in list(self._members):
            parent = path.rpartition("/")[0]
            while parent and parent not in self._members:
                self._members[parent] = _Member(_directory(parent))
                parent = parent.rpartition("/")[0]

    def without(self, excluded: IgnoreFile) -> None:
        """Forget what a .dockerignore excludes."""
        keep: dict[str, _Member] = {}
        for path, member in self._members.items():
            if not excluded.excludes(path):
                keep[path] = member
                parent = path.rpartition("/")[0]
                while parent and parent not in keep:  # an exception in an excluded directory
                    keep[parent] = self._members[parent]
                    parent = parent.rpartition("/")[0]
        self._members = keep
        self._children = None

    def read(self, path: str, limit: int = 16 << 20) -> bytes | None:
        """At most ``limit`` bytes of a file; None without one."""
        place = self._resolve(path)
        member = self._members.get(place) if place is not None else None
        if member is None or member.entry.type != tar.REGULAR:
            return None
        found = bytearray()
        for piece in self._pieces(member):
            found += piece
            if len(found) >= limit:
                break
        return bytes(found[:limit])

    def lookup(self, path: str) -> Entry | None:
        place = self._resolve(path)
        if place == "":
            return _directory("")
        member = self._members.get(place) if place is not None else None
        return member.entry if member is not None else None

    def matches(self, pattern: str) -> list[str]:
        chosen = matcher(pattern)
        return [path for path in sorted(self._members) if chosen.fullmatch(path)]

    def items(self, path: str) -> Iterator[Item]:
        place = self._resolve(path)
        if place is None:
            return
        waiting = [place]
        while waiting:
            here = waiting.pop()
            member = self._members.get(here) if here else _Member(_directory(""))
            if member is None:
                continue
            yield self._item(here[len(place) :].lstrip("/"), member)
            if member.entry.type == tar.DIRECTORY:
                names = self._names(here)
                waiting += [f"{here}/{name}" if here else name for name in reversed(names)]

    def _item(self, path: str, member: _Member) -> Item:
        return Item(path, member.entry, lambda: self._pieces(member))

    def _pieces(self, member: _Member) -> Iterator[bytes]:
        left, offset = member.entry.size, member.offset
        while left:
            data = os.pread(self._file.fileno(), min(left, _PIECE), offset)
            if not data:
                raise BadParameter("Error processing tar file: unexpected EOF")
            left -= len(data)
            offset += len(data)
            yield data

    def _names(self, directory: str) -> list[str]:
        if self._children is None:
            self._children = {}
            for path in sorted(self._members):
                parent, _, name = path.rpartition("/")
                self._children.setdefault(parent, []).append(name)
        return self._children.get(directory, [])

    def _resolve(self, path: str) -> str | None:
        """Where ``path`` leads, links followed within the context; None in circles."""

        def target_of(parts: Sequence[str]) -> str | None:
            member = self._members.get("/".join(parts))
            if member is None or member.entry.type != tar.SYMLINK:
                return None
            return member.entry.link

        try:
            return linkwalk.resolve(path, target_of)
        except linkwalk.TooManyLinks:
            return None


def _within(name: str) -> str:
    """A name in the context: what leads above its top stays in it, and reaches nothing there."""
    return posixpath.normpath(f"/{name}").lstrip("/")


def _count_data(entry: Entry) -> None:
    """Let ``size`` be that of the data alone, also where a map of it stood before."""
    if entry.sparse is not None:
        entry.size = sum(length for _, length in entry.sparse)


def _directory(path: str) -> Entry:
    return Entry(name=path, type=tar.DIRECTORY, mode=0o755, uid=0, gid=0, size=0, mtime=0)


# ---- a mounted tree


class Tree:
    """The files below a directory, given as a descriptor that stays its owner's."""

    def __init__(self, root: int) -> None:
        self._root = root

    def lookup(self, path: str) -> Entry | None:
        try:
            found = open_beneath(self._root, path or ".", os.O_PATH)
        except OSError:
            return None
        try:
            return describe(f"/proc/self/fd/{found}", path, os.fstat(found))
        finally:
            os.close(found)

    def matches(self, pattern: str) -> list[str]:
        chosen = matcher(pattern)
        return [found.path for found in walk(self._root) if chosen.fullmatch(found.path)]

    def items(self, path: str) -> Iterator[Item]:
        try:
            top = open_beneath(self._root, path or ".", os.O_PATH)
        except OSError:
            return
        try:
            status = os.fstat(top)
            itself = describe(f"/proc/self/fd/{top}", "", status)
            if itself is None:
                return
            yield Item("", itself, lambda: file_pieces(f"/proc/self/fd/{top}"), _identity(status))
            if not stat.S_ISDIR(status.st_mode):
                return
            for found in walk(top):
                where = f"/proc/self/fd/{found.parent}/{found.name}"
                entry = describe(where, found.path, found.status)
                if entry is not None:
                    yield Item(found.path, entry, _reader(top, found.path), _identity(found.status))
        finally:
            os.close(top)


def _identity(status: os.stat_result) -> tuple[int, int] | None:
    if status.st_nlink > 1 and stat.S_ISREG(status.st_mode):
        return status.st_dev, status.st_ino
    return None


def _reader(top: int, path: str) -> Callable[[], Iterator[bytes]]:
    def pieces() -> Iterator[bytes]:
        file = open_without_links(top, path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            yield from file_pieces(f"/proc/self/fd/{file}")
        finally:
            os.close(file)

    return pieces


# ---- single files


class Single:
    """One file under a name: what was downloaded, or written in the Dockerfile itself."""

    def __init__(self, name: str, data: Path | bytes, mode: int = 0o644, mtime: int = 0) -> None:
        self._data = data
        size = len(data) if isinstance(data, bytes) else data.stat().st_size
        self.entry = Entry(
            name=name, type=tar.REGULAR, mode=mode, uid=0, gid=0, size=size, mtime=mtime
        )
        self.entry.real_size = size

    def lookup(self, path: str) -> Entry | None:
        return self.entry if path == self.entry.name else None

    def matches(self, pattern: str) -> list[str]:
        return [self.entry.name]

    def items(self, path: str) -> Iterator[Item]:
        yield Item("", self.entry, self._pieces)

    def _pieces(self) -> Iterator[bytes]:
        if isinstance(self._data, bytes):
            yield self._data
        else:
            yield from file_pieces(str(self._data))


def archived(pieces: Iterator[bytes], scratch: Path) -> Iterator[Item] | None:
    """The members of an archive, packed or not, as ADD unpacks them; None where it is none.

    Each must be used before the next is asked for.
    """
    stream = io.BufferedReader(_Pieces(pieces), BUFFER)
    try:
        _, plain = expand(stream, Bounds(scratch))
        reader = TarReader(io.BufferedReader(cast(io.RawIOBase, plain), BUFFER))
        members = iter(reader)
        first = next(members, None)
    except (TarError, CompressionError):
        return None
    if first is None:
        return None
    return _members(first, members, reader)


def _members(first: Entry, rest: Iterator[Entry], reader: TarReader) -> Iterator[Item]:
    def content() -> Iterator[bytes]:
        while data := reader.read(_PIECE):
            yield data

    entry: Entry | None = first
    while entry is not None:
        path = "/".join(clean(entry.name))
        _count_data(entry)
        if entry.type == tar.LINK:
            entry = replace(entry, link="/".join(clean(entry.link)))
        yield Item(path, entry, content)
        try:
            entry = next(rest, None)
        except TarError as error:
            raise BadParameter(f"Error processing tar file: {error}") from error


class _Pieces(io.RawIOBase):
    """A file over pieces of bytes."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._piece = memoryview(piece)
        target = memoryview(cast(bytearray, buffer))
        count = min(len(target), len(self._piece))
        target[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count
