"""What a writable layer of overlay has changed: as a list, and as the archive of a new layer.

Overlay marks a deleted name by a character device 0:0, and a directory that hides what lower layers
have in it by the attribute ``trusted.overlay.opaque`` (kernel documentation,
filesystems/overlayfs). In an archive of a layer these are ``.wh.<name>`` and ``.wh..wh..opq`` (OCI
image specification, "Layer Filesystem Changeset"). ``unpack`` goes the other way.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from wherry.engine.image import tar
from wherry.engine.image.merged import find_status, is_opaque_open, is_whiteout
from wherry.engine.image.tar import NSEC, Entry
from wherry.engine.image.tar_writer import END, header
from wherry.engine.image.tree import Archiver, Found, in_pieces, walk
from wherry.engine.image.unpack import OPAQUE_MARKER, WHITEOUT
from wherry.host.beneath import open_without_links


class Kind(IntEnum):
    """What happened to a path, in the numbers of the Engine API."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2


@dataclass(frozen=True, slots=True)
class Change:
    """One path, from the root, and what happened to it."""

    path: str
    kind: Kind


def layer_archive(upper: Path, *, without: Sequence[str] = ()) -> Iterator[bytes]:
    """The changes in ``upper`` as the archive of a layer, in pieces (blocking).

    The same content gives the same bytes. What is empty among the paths in ``without``, places that
    something was mounted over, is left out.
    """
    return in_pieces(_layer_archive(upper, frozenset(without)))


def _layer_archive(upper: Path, without: frozenset[str]) -> Iterator[bytes]:
    top = os.open(upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        archiver = Archiver(sparse=True)
        if is_opaque_open(top):
            yield header(_marker(OPAQUE_MARKER, os.fstat(top)))
        for found in walk(top):
            head, slash, name = found.path.rpartition("/")
            if found.path in without and _is_empty(top, found):
                continue
            if is_whiteout(found.status):
                yield header(_marker(f"{head}{slash}{WHITEOUT}{name}", found.status))
            elif stat.S_ISDIR(found.status.st_mode):
                yield from archiver.add(found, f"{found.path}/")
                if _is_opaque(top, found):
                    yield header(_marker(f"{found.path}/{OPAQUE_MARKER}", found.status))
            else:
                yield from archiver.add(found, found.path)
        yield END
    finally:
        os.close(top)


def _is_empty(top: int, found: Found) -> bool:
    if stat.S_ISDIR(found.status.st_mode):
        return not _names(top, found.path)
    return stat.S_ISREG(found.status.st_mode) and not found.status.st_size


def _marker(name: str, status: os.stat_result) -> Entry:
    mtime = status.st_mtime_ns // NSEC * NSEC
    return Entry(name=name, type=tar.REGULAR, mode=0, uid=0, gid=0, size=0, mtime=mtime)


def changes(upper: Path, lower: Sequence[Path]) -> list[Change]:
    """What ``upper`` changes of ``lower`` (topmost first), in the order of ``docker diff``.

    A directory counts as modified where something was added to it or deleted from it, or where it
    is different itself, not where overlay has only copied it up on the way to something below.
    """
    top = os.open(upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listed: dict[str, Kind] = {}
        hidden: set[str] = set()  # directories of which the lower layers' content is not seen
        for found in walk(top):
            _judge(top, found, lower, listed, hidden)
    finally:
        os.close(top)
    ordered = sorted(listed, key=lambda path: path.split("/"))
    return [Change(f"/{path}", listed[path]) for path in ordered]


def _judge(
    top: int, found: Found, lower: Sequence[Path], listed: dict[str, Kind], hidden: set[str]
) -> None:
    path = found.path
    parent = path.rpartition("/")[0]
    below = find_status(lower, path) if parent not in hidden else None
    directory = stat.S_ISDIR(found.status.st_mode)
    kind: Kind | None
    if is_whiteout(found.status):
        kind = Kind.DELETED if below is not None else None
    elif below is None:
        kind = Kind.ADDED
    elif directory and stat.S_ISDIR(below.st_mode):
        kind = Kind.MODIFIED if _differs(found.status, below) else None
    else:
        kind = Kind.MODIFIED
    if directory:
        was_directory = below is not None and stat.S_ISDIR(below.st_mode)
        opaque = _is_opaque(top, found)
        if opaque and was_directory:
            for name in _merged_names(lower, path) - _names(top, path):
                listed[f"{path}/{name}"] = Kind.DELETED
                kind = kind or Kind.MODIFIED
        # What is hidden by an opaque directory counts as added anew only where it was not there
        # before, so an opaque directory is looked through.
        if not was_directory:
            hidden.add(path)
    if kind is None:
        return
    if kind is not Kind.MODIFIED and parent and parent not in listed:
        listed[parent] = Kind.MODIFIED
    listed[path] = kind


def _differs(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_mode, one.st_uid, one.st_gid, one.st_mtime_ns) != (
        *(other.st_mode, other.st_uid, other.st_gid, other.st_mtime_ns),
    )


def _is_opaque(top: int, found: Found) -> bool:
    directory = open_without_links(top, found.path, os.O_PATH | os.O_DIRECTORY)
    try:
        return is_opaque_open(directory)
    finally:
        os.close(directory)


def _names(top: int, path: str) -> set[str]:
    directory = open_without_links(top, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return set(os.listdir(directory))  # noqa: PTH208  a descriptor
    finally:
        os.close(directory)


def _merged_names(lower: Sequence[Path], path: str) -> set[str]:
    """The names in a directory as overlay would merge the layers."""
    candidates: set[str] = set()
    for layer in lower:
        top = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            candidates |= _names(top, path)
        except OSError:
            continue  # it is not in this layer, or something else there
        finally:
            os.close(top)
    return {name for name in candidates if find_status(lower, f"{path}/{name}") is not None}
