"""``RUN --mount``: what of the host a command sees while it runs."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import IO, Any, cast

from wherry.engine.build.dockerfile.mounts import RunMount
from wherry.engine.build.running import Script
from wherry.engine.build.settings import Scope
from wherry.engine.build.sources import Source
from wherry.engine.container.extract import extract
from wherry.engine.errors import BadParameter
from wherry.engine.image.layers import spool
from wherry.engine.image.tar import TarReader
from wherry.engine.image.tar_writer import END, header, padding
from wherry.engine.image.threads import in_thread
from wherry.host.files import make_private

# Opens the tree that ``from=`` means, empty for the context.
Open = Callable[[str], Coroutine[Any, Any, Source | None]]


class CacheDirectories:
    """The directories of ``type=cache``, which stay from build to build, below ``root``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._locks: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def use(self, mount: RunMount) -> AsyncIterator[Path]:
        """The directory of ``mount``, for one user at a time where that is wanted."""
        name = hashlib.sha256((mount.id or mount.target).encode()).hexdigest()[:32]
        lock = self._locks.setdefault(name, asyncio.Lock())
        if mount.sharing == "shared":
            yield self._directory(name, mount)
            return
        if mount.sharing == "private" and lock.locked():
            number = 1
            while self._locks.setdefault(f"{name}-{number}", asyncio.Lock()).locked():
                number += 1
            name, lock = f"{name}-{number}", self._locks[f"{name}-{number}"]
        async with lock:
            yield self._directory(name, mount)

    def _directory(self, name: str, mount: RunMount) -> Path:
        directory = self._root / name
        if not directory.exists():
            make_private(self._root)
            directory.mkdir()
            os.chown(directory, mount.uid, mount.gid)
            directory.chmod(0o755 if mount.mode is None else mount.mode)
        return directory


@asynccontextmanager
async def mounted(
    mounts: Sequence[RunMount],
    script: Script | None,
    scope: Scope,
    workdir: Callable[[str], str],
    caches: CacheDirectories,
    open_: Open,
    scratch: Path,
) -> AsyncIterator[list[Mapping[str, Any]]]:
    """The ``Mounts`` of HostConfig for a command, as long as they are needed.

    Raises:
        BadParameter: a mount cannot be had.
    """

    async with AsyncExitStack() as stack:
        made: list[Mapping[str, Any]] = []
        for number, mount in enumerate(mounts):
            target = workdir(scope.expand(mount.target)) if mount.target else ""
            match mount.type:
                case "tmpfs":
                    options = {"SizeBytes": mount.size} if mount.size else {}
                    made.append({"Type": "tmpfs", "Target": target, "TmpfsOptions": options})
                case "cache":
                    directory = await stack.enter_async_context(caches.use(mount))
                    made.append(_bind(directory, target, mount.readonly))
                case "bind":
                    source = await open_(scope.expand(mount.origin))
                    path = scope.expand(mount.source).strip("/")
                    place = scratch / f"bind-{number}"
                    found = await in_thread(_lay_out, source, path, place)
                    made.append(_bind(found, target, mount.readonly))
                case _:
                    if mount.required:
                        what = mount.id or mount.target
                        raise BadParameter(f"{mount.type} {what}: not found")
        if script is not None:
            file = scratch / "script"
            file.write_text(script.content)
            file.chmod(0o755)
            made.append(_bind(file, f"/dev/pipes/{script.name}", True))
        yield made


def _bind(source: Path, target: str, readonly: bool) -> Mapping[str, Any]:
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": readonly}


def _lay_out(source: Source | None, path: str, place: Path) -> Path:
    """Files of a source as a directory (or a file) of the host."""
    if source is None or source.lookup(path) is None:
        raise BadParameter(f"failed to compute cache key: {path or '/'}: not found")

    def pieces() -> Any:
        for item in source.items(path):
            name = f"top/{item.path}".rstrip("/")
            item.entry.name, former = name, item.entry.name
            yield header(item.entry)
            item.entry.name = former
            if item.entry.size:
                yield from item.pieces()
                yield padding(item.entry.size)
        yield END

    place.mkdir()
    packed, _, _ = spool(cast(IO[bytes], _Joined(pieces())), place.parent)
    root = os.open(place, os.O_PATH | os.O_DIRECTORY)
    try:
        with packed.open("rb") as file:
            extract(TarReader(file), root, "/")
    finally:
        os.close(root)
        packed.unlink()
    return place / "top"


class _Joined:
    """Pieces as a file to read from."""

    def __init__(self, pieces: Any) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            self._rest += piece
        data, self._rest = self._rest[:size], self._rest[size:]
        return data
