"""Files in and out of containers: the archive API, `docker diff` and `docker export`.

A container's lock is held while its files are read or written, as dockerd does it: it cannot be
started, removed or changed in the meantime, and it may well end.
"""

from __future__ import annotations

import io
import os
import posixpath
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from wherry.engine.container import users
from wherry.engine.container.container import Container
from wherry.engine.container.extract import extract
from wherry.engine.container.init_layer import prepare
from wherry.engine.container.lifecycle import Lifecycle
from wherry.engine.container.units import timestamp
from wherry.engine.container.view import Plan, View
from wherry.engine.container.view import plan as make_plan
from wherry.engine.errors import BadParameter, Conflict, EngineError, NotFound
from wherry.engine.image import linkwalk
from wherry.engine.image.changeset import Change, changes
from wherry.engine.image.compression import BUFFER, Bounds, CompressionError, expand
from wherry.engine.image.store import ImageStore
from wherry.engine.image.tar import TarError, TarReader
from wherry.engine.image.threads import ThreadReader, in_thread, stream_from
from wherry.engine.image.tree import archive_directory, archive_member, in_pieces
from wherry.host.beneath import open_beneath

_Result = TypeVar("_Result")

# Go's os.FileMode: where its bits differ from the kernel's.
_GO_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_GO_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


@dataclass(frozen=True, slots=True)
class PathStat:
    """What is at a path of a container; ``link_target`` is where a symbolic link ends up."""

    name: str
    status: os.stat_result
    link_target: str = ""

    def to_api(self) -> Mapping[str, Any]:
        """ContainerPathStat of the API."""
        return {
            "name": self.name,
            "size": self.status.st_size,
            "mode": go_mode(self.status.st_mode),
            "mtime": timestamp(self.status.st_mtime_ns),
            "linkTarget": self.link_target,
        }


class Files:
    """The files of one engine's containers."""

    def __init__(self, lifecycle: Lifecycle, images: ImageStore) -> None:
        self._lifecycle = lifecycle
        self._images = images

    async def stat(self, container: Container, path: str) -> PathStat:
        """What is at ``path``; a link is not followed unless ``path`` ends in a slash.

        Raises:
            FileNotFoundError: nothing.
            EngineError: it cannot be looked at.
        """
        return await self._with_view(container, lambda view: stat_path(view, path))

    @asynccontextmanager
    async def archive(
        self, container: Container, path: str
    ) -> AsyncIterator[tuple[PathStat, AsyncIterator[bytes]]]:
        """What is at ``path``, and a tar archive of it.

        Raises:
            FileNotFoundError: there is nothing.
            EngineError: it cannot be looked at.
        """
        async with self._planned(container, mounts=True) as plan:
            view = await in_thread(View, plan)
            try:
                found = await in_thread(stat_path, view, path)
                pieces = archive_path(view, path, found)
                self._lifecycle.publish(container, "archive-path")
                try:
                    yield found, stream_from(pieces)
                finally:
                    await in_thread(cast(Any, pieces).close)
            finally:
                await in_thread(view.close)

    async def extract(
        self,
        container: Container,
        path: str,
        stream: AsyncIterator[bytes],
        *,
        keep_kinds: bool,
        copy_owner: bool,
    ) -> None:
        """Unpack a tar archive, packed or not, into the directory ``path``.

        Raises:
            FileNotFoundError: there is no such directory.
            BadParameter: it is none, or may not be written to.
            EngineError: the archive cannot be unpacked; what was unpacked stays.
        """
        reader = ThreadReader(stream)
        user = container.config["User"] if copy_owner else ""

        def work(view: View) -> None:
            destination = _destination(view, container, path)
            owner = None
            if user:
                account = users.resolve(Path(f"/proc/self/fd/{view.root}"), user).user
                owner = account.uid, account.gid
            packed = io.BufferedReader(reader, BUFFER)
            try:
                _, plain = expand(packed, Bounds(container.home))
                buffered = io.BufferedReader(cast(io.RawIOBase, plain), BUFFER)
                options = {"keep_kinds": keep_kinds, "owner": owner}
                extract(TarReader(buffered), view.root, destination, **cast(Any, options))
                while buffered.read(BUFFER):
                    pass  # the client is not to be cut off while it writes the end
            except (TarError, CompressionError) as error:
                raise EngineError(f"Error processing tar file: {error}") from error
            except OSError as error:
                where = error.filename or destination
                reason = (error.strerror or str(error)).lower()
                raise EngineError(f"{where}: {reason}") from error

        await self._with_view(container, work, abort=reader.abort)
        self._lifecycle.publish(container, "extract-to-dir")

    async def changes(self, container: Container) -> list[Change]:
        """What it has changed of its image."""
        layers = self._layers(container)

        def work() -> list[Change]:
            upper = container.layers / "upper"
            if not upper.exists():
                return []  # it was never started
            return changes(upper, [prepare(container.init_layer, layers), *layers])

        return await in_thread(work)

    @asynccontextmanager
    async def export(self, container: Container) -> AsyncIterator[AsyncIterator[bytes]]:
        """An archive of its root file system, without what is mounted in it.

        Raises:
            Conflict: it is being removed.
        """
        state = container.state
        if state.dead:
            raise Conflict(f"You cannot export container {container.id} which is dead")
        if state.removing:
            raise Conflict(f"You cannot export container {container.id} which is being removed")
        async with self._planned(container, mounts=False) as plan:
            view = await in_thread(View, plan)
            try:
                pieces = in_pieces(_whole(view))
                try:
                    yield stream_from(pieces)
                finally:
                    await in_thread(cast(Any, pieces).close)
                self._lifecycle.publish(container, "export")
            finally:
                await in_thread(view.close)

    # ---- views

    async def _with_view(
        self,
        container: Container,
        work: Callable[[View], _Result],
        abort: Callable[[], None] | None = None,
    ) -> _Result:
        async with self._planned(container, mounts=True) as plan:

            def whole() -> _Result:
                with View(plan) as view:
                    return work(view)

            return await in_thread(whole, abort=abort)

    @asynccontextmanager
    async def _locked(self, container: Container) -> AsyncIterator[None]:
        async with container.lock:
            if self._lifecycle.store.find(container.id) is not container:
                raise NotFound(f"No such container: {container.id}")
            run = container.run
            if run is not None and not container.state.running:
                await run.settled.wait()  # its root file system is about to be unmounted
            yield

    @asynccontextmanager
    async def _planned(self, container: Container, *, mounts: bool) -> AsyncIterator[Plan]:
        async with self._locked(container):
            layers = self._layers(container)
            if not mounts:
                yield make_plan(container, layers)
                return
            async with self._lifecycle.sources.borrowed(container) as sources:
                yield make_plan(container, layers, sources)

    def _layers(self, container: Container) -> list[Path]:
        return list(self._images.layers(self._images.by_id(container.image_id)))


def go_mode(mode: int) -> int:
    """The kernel's mode in the bits of Go's ``os.FileMode``."""
    value = mode & 0o777 | _GO_KINDS.get(stat.S_IFMT(mode), 0)
    return value | sum(bit for mask, bit in _GO_BITS.items() if mode & mask)


def absolute(path: str) -> str:
    """``path`` as from the root, cleaned, with its trailing ``/`` or ``/.`` kept."""
    clean = posixpath.normpath(f"/{path}")
    clean = "/" + clean.lstrip("/")
    last = path.rpartition("/")[2]
    if last == ".":
        return f"{clean.rstrip('/')}/."
    return f"{clean.rstrip('/')}/" if path.endswith("/") else clean


def base(path: str) -> str:
    """The last component of what ``absolute`` returned."""
    return path.rstrip("/").rpartition("/")[2] or "/"


def stat_path(view: View, path: str) -> PathStat:
    """See ``Files.stat`` (blocking)."""
    whole = absolute(path)
    followed = f"{whole}." if whole.endswith("/") else whole
    flags = os.O_PATH if followed.endswith("/.") else os.O_PATH | os.O_NOFOLLOW
    try:
        found = open_beneath(view.root, followed, flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise EngineError(f"lstat {whole}: {(error.strerror or '').lower()}") from error
    try:
        status = os.fstat(found)
    finally:
        os.close(found)
    target = follow(view.root, whole) if stat.S_ISLNK(status.st_mode) else ""
    return PathStat(base(whole), status, target)


def follow(root: int, path: str) -> str:
    """Where ``path`` leads beneath ``root``, all links resolved as far as there is something.

    Raises:
        EngineError: the links go round in circles.
    """
    try:
        return "/" + linkwalk.resolve(path, lambda parts: _read_link(root, "/".join(parts)))
    except linkwalk.TooManyLinks:
        raise EngineError(f"too many links in {path}") from None


def _read_link(root: int, path: str) -> str | None:
    try:
        found = open_beneath(root, path, os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return os.readlink("", dir_fd=found)
    except OSError:
        return None
    finally:
        os.close(found)


def archive_path(view: View, path: str, found: PathStat) -> Iterator[bytes]:
    """The archive of what ``stat_path`` has found, in pieces (blocking)."""
    return in_pieces(_archive_path(view, absolute(path), found))


def _archive_path(view: View, path: str, found: PathStat) -> Iterator[bytes]:
    if stat.S_ISDIR(found.status.st_mode):
        directory = open_beneath(view.root, path, os.O_RDONLY | os.O_DIRECTORY)
    else:
        directory = open_beneath(view.root, posixpath.dirname(path), os.O_PATH | os.O_DIRECTORY)
    try:
        if stat.S_ISDIR(found.status.st_mode):
            yield from archive_directory(directory, found.name, itself=True)
        else:
            yield from archive_member(directory, posixpath.basename(path), found.name)
    finally:
        os.close(directory)


def _whole(view: View) -> Iterator[bytes]:
    directory = open_beneath(view.root, "/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield from archive_directory(directory, "", itself=False)
    finally:
        os.close(directory)


def _destination(view: View, container: Container, path: str) -> str:
    """The directory to unpack into, as the container calls it, with all links resolved."""
    whole = absolute(path)
    try:
        found = open_beneath(view.root, whole, os.O_PATH)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise EngineError(f"lstat {whole}: {(error.strerror or '').lower()}") from error
    try:
        if not stat.S_ISDIR(os.fstat(found).st_mode):
            raise BadParameter("extraction point is not a directory")
        resolved = view.path_of(found)
    finally:
        os.close(found)
    check_writable(container, resolved)
    return resolved


def check_writable(container: Container, path: str) -> None:
    """Whether files may be put into ``path``, which has no links in it.

    Raises:
        BadParameter: no.
    """
    over = [
        point
        for point in container.mounts
        if path == point.destination or path.startswith(f"{point.destination.rstrip('/')}/")
    ]
    if over:
        if not max(over, key=lambda point: len(point.destination)).writable:
            raise BadParameter("mounted volume is marked read-only")
    elif container.host_config["ReadonlyRootfs"]:
        raise BadParameter("container rootfs is marked read-only")
