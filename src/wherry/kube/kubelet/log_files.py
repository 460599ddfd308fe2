"""The files of containers' logs: their links for collectors, their rotation, their end.

``<pod logs>/<namespace>_<pod>_<uid>/<container>/<attempt>.log`` is written by the runtime. When it
has reached its size the runtime asks for a rotation and writes no more until that is done, so that
what a container writes is bounded however fast it does. As with upstream's kubelet an old file has
the time of its rotation behind its name, all but the newest are packed, and
``<pod>_<namespace>_<container>-<id>.log`` in the directory of links leads to the current one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import logging
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

from wherry.engine.cri.types import ContainerStatus
from wherry.kube.api import meta
from wherry.kube.kubelet import containers

log = logging.getLogger(__name__)

Object = dict[str, Any]
MAX_NAME = 255
_PACKED, _UNFINISHED = ".gz", ".tmp"


class LogFiles:
    """All logs of a node. ``max_files`` counts the one that is written to."""

    def __init__(self, pods: Path, links: Path | None, *, max_files: int) -> None:
        self._pods = pods
        self._links = links
        self._max_files = max(max_files, 2)
        self._packing: dict[Path, asyncio.Task[None]] = {}

    def link(self, pod: Object, container: str, status: ContainerStatus) -> None:
        """Lead collectors to the log of a container that has been started."""
        if self._links is None or status.log_path is None:
            return
        name = f"{meta.name(pod)}_{meta.namespace(pod)}_{container}-{status.id}"
        link = self._links / f"{name[: MAX_NAME - 4]}.log"
        try:
            self._links.mkdir(parents=True, exist_ok=True, mode=0o755)
            link.unlink(missing_ok=True)
            link.symlink_to(status.log_path)
        except OSError as error:
            log.error("no link to the log of container %s: %s", status.id[:12], error)

    async def rotate(self, path: Path) -> None:
        """Move a log away; its writer goes on in a new file under its name.

        Raises:
            OSError: it cannot be moved.
        """
        if (packing := self._packing.get(path)) is not None:
            await asyncio.wait((packing,))
        now = datetime.now(UTC)
        target = path.with_name(f"{path.name}.{now:%Y%m%d-%H%M%S}")
        newest = rotated(path)[-1:]
        if newest and newest[0].name >= target.name:  # the second one of this second
            target = path.with_name(f"{path.name}.{now:%Y%m%d-%H%M%S.%f}")
        with contextlib.suppress(FileNotFoundError):  # moved before, by whom a new one failed
            path.rename(target)
        task = asyncio.create_task(asyncio.to_thread(_tidy, path, self._max_files - 1))
        self._packing[path] = task
        task.add_done_callback(lambda _: self._packing.pop(path, None))

    def remove_container(self, status: ContainerStatus) -> None:
        """An incarnation has been removed: its log goes, whole."""
        path = status.log_path
        if path is None:
            return
        for file in (path, *rotated(path)):
            file.unlink(missing_ok=True)
        self._unlink(lambda target: target == path)

    def remove_pod(self, uid: str, pod: Object | None) -> None:
        """A pod has gone; ``pod`` where the API still had it. Blocks.

        Raises:
            OSError: its directory cannot be removed.
        """
        if pod is not None:
            directories = [containers.log_directory(self._pods, pod)]
        elif self._pods.is_dir():
            directories = [e for e in self._pods.iterdir() if e.name.endswith(f"_{uid}")]
        else:
            return
        for directory in directories:
            _remove(directory)
        self._unlink(lambda target: any(map(target.is_relative_to, directories)))

    def _unlink(self, concerned: Callable[[Path], bool]) -> None:
        if self._links is None or not self._links.is_dir():
            return
        with os.scandir(self._links) as entries:
            links = [Path(entry.path) for entry in entries if entry.is_symlink()]
        for link in links:
            with contextlib.suppress(FileNotFoundError):
                if concerned(link.readlink()):
                    link.unlink()


def _remove(directory: Path) -> None:
    """Remove ``directory``, in which old logs may still be being packed. Raises OSError."""
    while True:
        try:
            shutil.rmtree(directory)
            return
        except FileNotFoundError:  # a file that was packed, or the directory itself
            if not directory.exists():
                return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:  # else another has come, which is the last one
                raise


def rotated(path: Path) -> list[Path]:
    """The old files of a log, oldest first."""
    try:
        with os.scandir(path.parent) as entries:
            names = [e.name for e in entries if e.name.startswith(f"{path.name}.")]
    except FileNotFoundError:
        return []
    return [path.with_name(n) for n in sorted(names, key=lambda n: n.removesuffix(_PACKED))]


def _tidy(path: Path, keep: int) -> None:
    """Of the old files keep so many, packed but for the newest."""
    try:
        files = []
        for file in rotated(path):
            packed = file.with_name(file.name + _PACKED)
            if file.suffix == _UNFINISHED or packed.exists():  # a kill has left it
                file.unlink(missing_ok=True)
            else:
                files.append(file)
        for file in files[: max(0, len(files) - keep)]:
            file.unlink(missing_ok=True)
        for file in files[-keep:-1]:
            if file.suffix != _PACKED:
                _pack(file)
    except FileNotFoundError:
        return  # the pod has gone
    except OSError as error:
        log.error("old logs beside %s: %s", path, error)


def _pack(file: Path) -> None:
    unfinished = file.with_name(file.name + _UNFINISHED)
    try:
        with file.open("rb") as plain, gzip.open(unfinished, "wb", compresslevel=4) as packed:
            shutil.copyfileobj(plain, packed, 1 << 18)
        unfinished.rename(file.with_name(file.name + _PACKED))
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    file.unlink(missing_ok=True)


def after(path: Path, current: BinaryIO) -> BinaryIO | None:
    """What follows ``current``, an open file of the log ``path``; None while it is written to.

    Raises:
        FileNotFoundError: it has been moved away, and nothing has come in its place yet.
    """
    name = str(Path(f"/proc/self/fd/{current.fileno()}").readlink())
    name = name.removesuffix(" (deleted)").removesuffix(_PACKED)
    here = os.fstat(current.fileno())
    try:
        there = path.stat()
    except FileNotFoundError:
        there = None
    if there is not None and (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
        return None
    for file in rotated(path):
        if str(file).removesuffix(_PACKED) > name and file.suffix != _UNFINISHED:
            with contextlib.suppress(FileNotFoundError):
                if file.suffix == _PACKED:
                    return cast(BinaryIO, gzip.open(file, "rb"))
                return file.open("rb", buffering=0)
    return path.open("rb", buffering=0)
