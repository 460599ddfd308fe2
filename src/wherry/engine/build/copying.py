"""COPY and ADD: which files they mean, and where each goes (blocking)."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wherry.engine.build.dockerfile import DockerfileError
from wherry.engine.build.dockerfile.instructions import Copy
from wherry.engine.build.dockerfile.patterns import IgnoreFile, has_wildcards
from wherry.engine.build.layer import LayerWriter, Ownership
from wherry.engine.build.sources import Item, Single, Source, archived, digest
from wherry.engine.image import tar

_MISSING = "file not found in build context or excluded by .dockerignore: "


@dataclass(frozen=True, slots=True)
class Chosen:
    """One source of a COPY or ADD; ``unpack`` where an archive is not copied, but its content."""

    source: Source
    path: str
    name: str
    unpack: bool = False


@dataclass(frozen=True, slots=True)
class Copying:
    """A whole instruction, variables replaced; ``destination`` is absolute, its last slash kept."""

    chosen: Sequence[Chosen]
    destination: str
    ownership: Ownership
    exclude: Sequence[str] = ()
    parents: bool = False


def choose(step: Copy, sources: Sequence[str], source: Source | None) -> list[Chosen]:
    """What the paths and patterns in ``sources`` mean in ``source``, None for no context.

    Raises:
        DockerfileError: a file is not there, or outside.
    """
    word = "ADD" if step.add else "COPY"
    found: list[Chosen] = []
    for text in sources:
        if source is None:
            raise DockerfileError(f"{word} failed: missing build context")
        path = _inside(text, word)
        if has_wildcards(path):
            paths = source.matches(path)
        elif source.lookup(path) is not None:
            paths = [path]
        else:
            where = "" if step.origin else _MISSING
            raise DockerfileError(f"{word} failed: {where}stat {path}: file does not exist")
        found += [Chosen(source, one, posixpath.basename(one), step.add) for one in paths]
    found += [
        Chosen(Single(one.name, one.content.encode()), one.name, one.name) for one in step.heredocs
    ]
    return found


def check(word: str, chosen: Sequence[Chosen], destination: str) -> None:
    """Whether ``chosen`` can go to ``destination``.

    Raises:
        DockerfileError: there is nothing, or too much for one file.
    """
    if not chosen:
        raise DockerfileError(f"{word} failed: no source files were specified")
    if len(chosen) > 1 and not destination.endswith("/"):
        raise DockerfileError(
            f"When using {word} with more than one source file, the destination must be a directory"
            " and end with a /"
        )


def _inside(text: str, word: str) -> str:
    path = posixpath.normpath(text.lstrip("/") or ".")
    if path == ".." or path.startswith("../"):
        raise DockerfileError(f"{word} failed: forbidden path outside the build context: {text} ()")
    return "" if path == "." else path


def fingerprint(copying: Copying) -> str:
    """What the history calls the sources: a digest of their content."""
    owners = copying.ownership.owner is None
    each = []
    for one in copying.chosen:
        entry = one.source.lookup(one.path)
        kind = "dir" if entry is not None and entry.type == tar.DIRECTORY else "file"
        each.append(f"{kind}:{digest(one.source, one.path, owners=owners)}")
    if len(each) == 1:
        return each[0]
    return f"multi:{hashlib.sha256(','.join(each).encode()).hexdigest()}"


def layer(copying: Copying, lower: Sequence[Path], mtime: int, scratch: Path) -> Iterator[bytes]:
    """The archive of the layer over ``lower``, the image's layers, topmost first.

    Raises:
        DockerfileError: the destination cannot take it.
    """
    writer = LayerWriter(lower, mtime)
    for chosen in copying.chosen:
        yield from _one(writer, chosen, copying, scratch)
    yield writer.end()


def _one(writer: LayerWriter, chosen: Chosen, copying: Copying, scratch: Path) -> Iterator[bytes]:
    ownership = copying.ownership
    destination = copying.destination
    into = destination.endswith(("/", "/."))
    if copying.parents:
        destination, into = f"{destination}/{posixpath.dirname(chosen.path)}", True
    target = writer.resolve(destination)
    owner = ownership.owner or (0, 0)
    items = chosen.source.items(chosen.path)
    first = next(items, None)
    if first is None:
        raise DockerfileError(f"failed to copy files: {chosen.path} is gone")
    if first.entry.type == tar.DIRECTORY:
        if copying.parents:
            target = f"{target}/{chosen.name}"
        excluded = IgnoreFile(copying.exclude)
        yield from writer.directory(target, owner)
        for item in items:
            if not excluded.excludes(item.path):
                yield from writer.add(item, f"{target}/{item.path}", ownership)
        return
    if copying.exclude and IgnoreFile(copying.exclude).excludes(chosen.name):
        return
    if chosen.unpack and first.entry.type == tar.REGULAR:
        members = archived(first.pieces(), scratch)
        if members is not None:
            yield from _unpacked(writer, members, target, ownership)
            return
    if into or writer.kind(target) == tar.DIRECTORY:
        target = f"{target}/{chosen.name}"
    yield from writer.add(first, target, ownership)


def _unpacked(
    writer: LayerWriter, members: Iterator[Item], target: str, ownership: Ownership
) -> Iterator[bytes]:
    """An archive's members keep their owners, unless others were asked for."""
    if ownership.owner == (0, 0):
        ownership = Ownership(None, ownership.mode)
    yield from writer.directory(target, ownership.owner or (0, 0))
    for member in members:
        if not member.path:
            continue
        if member.entry.type == tar.LINK:
            yield from writer.link(
                member, f"{target}/{member.path}", f"{target}/{member.entry.link}"
            )
        else:
            yield from writer.add(member, f"{target}/{member.path}", ownership)
