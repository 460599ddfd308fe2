"""The archive of the layer that COPY, ADD or WORKDIR makes, written straight from its sources.

Nothing is mounted for it: what the image has already is looked up in its layers, as overlay would
merge them, and only what is added goes into the archive.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from wherry.engine.build.dockerfile import DockerfileError
from wherry.engine.build.sources import Item
from wherry.engine.image import linkwalk, tar
from wherry.engine.image.merged import find
from wherry.engine.image.tar import NSEC, Entry
from wherry.engine.image.tar_writer import END, header, padding


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who owns what is copied: ``owner``, or with None whoever does at its source.

    New directories on the way belong to ``owner`` or root. ``mode`` overrules the files' own.
    """

    owner: tuple[int, int] | None = (0, 0)
    mode: int | None = None


@dataclass(slots=True)
class LayerWriter:
    """Over ``lower``, the image's layers, topmost first. Its methods yield the archive."""

    lower: Sequence[Path]
    mtime: int  # of directories that nobody described, nanoseconds since the epoch
    _added: dict[str, str] = field(default_factory=dict)  # path: kind, or the link's target
    _names: dict[tuple[int, int], str] = field(default_factory=dict)
    # Directories as they were asked for, and where they are; all of these exist.
    _ready: dict[str, str] = field(default_factory=dict)

    def resolve(self, path: str) -> str:
        """``path`` as it is in the image with this layer, all links followed; without a slash.

        Raises:
            DockerfileError: the links go round in circles.
        """
        try:
            return linkwalk.resolve(path, lambda parts: self._look(parts)[1])
        except linkwalk.TooManyLinks:
            raise DockerfileError(f"too many links in {path}") from None

    def kind(self, path: str) -> str | None:
        """What is at ``path``, which ``resolve`` returned: a tar type; None for nothing."""
        return self._look(path.split("/"))[0] if path else tar.DIRECTORY

    def _look(self, parts: Sequence[str]) -> tuple[str | None, str | None]:
        """The type of what is there and where it leads, if it is a link."""
        path = "/".join(parts)
        if (added := self._added.get(path)) is not None:
            return (tar.SYMLINK, added[1:]) if added[0] == "@" else (added, None)
        found = find(self.lower, parts)
        if found is None:
            return None, None
        try:
            mode = os.fstat(found).st_mode
            if stat.S_ISLNK(mode):
                return tar.SYMLINK, os.readlink("", dir_fd=found)
            return tar.DIRECTORY if stat.S_ISDIR(mode) else tar.REGULAR, None
        finally:
            os.close(found)

    def directory(self, path: str, owner: tuple[int, int]) -> Iterator[bytes]:
        """Have ``path``, resolved, as a directory, and its parents.

        Raises:
            DockerfileError: something else is there.
        """
        parts = [part for part in path.split("/") if part]
        for depth in range(1, len(parts) + 1):
            here = "/".join(parts[:depth])
            kind = self.kind(here)
            if kind == tar.DIRECTORY:
                continue
            if kind is not None:
                raise DockerfileError(f"failed to copy files: /{here}: not a directory")
            self._added[here] = tar.DIRECTORY
            yield header(
                Entry(
                    name=f"{here}/",
                    type=tar.DIRECTORY,
                    mode=0o755,
                    uid=owner[0],
                    gid=owner[1],
                    size=0,
                    mtime=self.mtime // NSEC * NSEC,
                )
            )

    def _have(self, path: str, owner: tuple[int, int]) -> Iterator[bytes]:
        if path not in self._ready:
            place = self.resolve(path)
            yield from self.directory(place, owner)
            self._ready[path] = place

    def add(self, item: Item, path: str, ownership: Ownership) -> Iterator[bytes]:
        """``item`` at ``path``, whose parent may be reached by links; parents are made."""
        head, _, name = path.strip("/").rpartition("/")
        yield from self._have(head, ownership.owner or (0, 0))
        parent = self._ready[head]
        place = f"{parent}/{name}" if parent else name
        entry = replace(item.entry, mtime=item.entry.mtime // NSEC * NSEC)
        if ownership.owner is not None:
            entry.uid, entry.gid = ownership.owner
        if ownership.mode is not None and entry.type != tar.SYMLINK:
            entry.mode = ownership.mode
        entry.name = f"{place}/" if entry.type == tar.DIRECTORY else place
        self._added[place] = f"@{entry.link}" if entry.type == tar.SYMLINK else entry.type
        if entry.type != tar.DIRECTORY and self._ready.keys() & {place}:
            self._ready.clear()  # a directory is one no longer
        if item.identity is not None:
            first = self._names.setdefault(item.identity, place)
            if first != place:
                entry.type, entry.link, entry.size, entry.xattrs = tar.LINK, first, 0, {}
                yield header(entry)
                return
        yield header(entry)
        if entry.type == tar.REGULAR and entry.size:
            yield from item.pieces()
            yield padding(entry.size)

    def link(self, item: Item, path: str, target: str) -> Iterator[bytes]:
        """A hard link at ``path`` to ``target``, which this layer has."""
        head, _, name = path.strip("/").rpartition("/")
        yield from self._have(head, (0, 0))
        parent = self._ready[head]
        goal, _, last = target.strip("/").rpartition("/")
        goal = self.resolve(goal)
        place = f"{parent}/{name}" if parent else name
        self._added[place] = tar.REGULAR
        yield header(
            replace(item.entry, name=place, link=f"{goal}/{last}" if goal else last, xattrs={})
        )

    @staticmethod
    def end() -> bytes:
        """What follows the last member."""
        return END
