"""All volumes of one engine: making, finding, using and removing them.

Who uses a volume follows from the containers: each names its volumes in its document, and
``open`` counts them again. A container counts from the moment its creation claims the volume; so
``claim`` comes before the document is written, and what a creation that never came to its document
has made for itself alone is removed (``Claims``).

A volume with options is mounted at its first use and unmounted at its last. Which containers hold
it is known before it is mounted, from their documents: after a kill, ``settle`` unmounts what none
of those that run still holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import orjson

from wherry.engine.errors import Conflict, EngineError, NotFound
from wherry.engine.events import EventBus
from wherry.engine.image.threads import in_thread
from wherry.engine.volume import local
from wherry.engine.volume.copy import copy_tree
from wherry.engine.volume.volume import (
    ANONYMOUS_LABEL,
    DATA,
    DOCUMENT,
    DRIVER,
    Volume,
    check_name,
)
from wherry.host.beneath import hold_within
from wherry.host.files import directory_size, make_private, sync_directory, write_atomic
from wherry.runtime.rootfs import mounts_below, unmount

log = logging.getLogger(__name__)

# No volume's name begins with a dot.
_NEW, _GONE, _CLAIM = ".new-", ".gone-", ".claim-"
_COPY = "_copy"  # beside _data: its content to be, half copied


class Volumes:
    """The volumes below ``root``."""

    def __init__(self, root: Path, events: EventBus) -> None:
        self.root = root
        self._events = events
        self._volumes: dict[str, Volume] = {}
        self._users: dict[str, set[str]] = {}  # volume name → ids of containers
        self._holders: dict[str, dict[str, int]] = {}  # volume name → container id → mounts
        self._locks: dict[str, asyncio.Lock] = {}
        self._pruning = False

    # ---- opening

    def open(self, users: Mapping[str, Iterable[str]]) -> None:
        """Read the volumes; ``users`` are the names of the volumes of each container, by its id.

        What a killed daemon left half made or half removed is removed.
        """
        make_private(self.root)
        claims = []
        for home in self.root.iterdir():
            if home.name.startswith(_CLAIM):
                claims.append(home)
            elif home.name.startswith("."):
                _erase(home)
            else:
                self._read(home)
        for id, names in users.items():
            for name in names:
                self._users.setdefault(name, set()).add(id)
        for claim in claims:
            self._undo_claim(claim, made=claim.name.removeprefix(_CLAIM) in users)

    def _read(self, home: Path) -> None:
        try:
            volume = Volume.decode((home / DOCUMENT).read_bytes(), home)
        except (OSError, ValueError, TypeError) as error:
            log.error("not a volume, left alone: %s: %s", home, error)
            return
        shutil.rmtree(home / _COPY, ignore_errors=True)
        self._volumes[volume.name] = volume

    def _undo_claim(self, claim: Path, *, made: bool) -> None:
        """The daemon was killed while it made a container; ``made`` is whether it came to be."""
        if not made:
            with contextlib.suppress(ValueError):  # cut short: no volume was made yet
                for name in orjson.loads(claim.read_bytes()):
                    if volume := self._volumes.get(name):
                        log.info("removing volume %s of a container that was not made", name)
                        _erase(self._take_away(volume))
        claim.unlink()

    def settle(self) -> None:
        """When the containers that run have been held: unmount what no container holds."""
        mounted = set(mounts_below(self.root))
        for volume in self._volumes.values():
            if volume.path in mounted and volume.name not in self._holders:
                local.unmount(volume.path)

    # ---- looking

    def all(self) -> list[Volume]:
        """Every volume, by name."""
        return [self._volumes[name] for name in sorted(self._volumes)]

    def find(self, name: str) -> Volume | None:
        """The volume called ``name``."""
        return self._volumes.get(name)

    def get(self, name: str) -> Volume:
        """The volume called ``name``.

        Raises:
            NotFound: there is none.
        """
        volume = self._volumes.get(name)
        if volume is None:
            raise NotFound(f"get {name}: no such volume")
        return volume

    def users(self, name: str) -> list[str]:
        """The ids of the containers that have the volume, running or not."""
        return sorted(self._users.get(name, ()))

    # ---- making and removing

    def create(
        self,
        name: str = "",
        driver: str = "",
        *,
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Volume:
        """The volume called ``name``: the one there is, or a new one; on disk when this returns.

        Without a name it gets a random one and is anonymous. What is there already keeps its
        labels and options.

        Raises:
            BadParameter: the name or an option cannot be.
            NotFound: there is no such driver.
            EngineError: the disk refuses.
        """
        if not name:
            name = new_name()
            labels = {**(labels or {}), ANONYMOUS_LABEL: ""}
        if driver not in ("", DRIVER):
            raise NotFound(
                f"create {name}: error looking up volume plugin {driver}: "
                f'plugin "{driver}" not found'
            )
        if found := self._volumes.get(name):
            return found
        check_name(name)
        try:
            local.check_options(options or {})
        except EngineError as error:
            raise type(error)(f"create {name}: {error.message}") from None
        volume = Volume(name, self.root / name, labels, options, time.time_ns())
        try:
            self._make(volume)
        except OSError as error:
            raise EngineError(f"create {name}: {error}") from error
        self._volumes[name] = volume
        self._events.publish("volume", "create", name, {"driver": volume.driver})
        return volume

    def _make(self, volume: Volume) -> None:
        new = self.root / f"{_NEW}{secrets.token_hex(8)}"
        try:
            new.mkdir(mode=0o700)
            (new / DATA).mkdir(mode=0o755)
            (new / DATA).chmod(0o755)
            write_atomic(new / DOCUMENT, volume.encode())
            new.rename(volume.home)
        except OSError:
            shutil.rmtree(new, ignore_errors=True)
            raise
        sync_directory(self.root)

    async def remove(self, name: str) -> None:
        """Remove a volume and what is in it.

        Raises:
            NotFound: there is none.
            Conflict: a container has it.
        """
        volume = self.get(name)
        async with self._lock(name):
            try:
                if volume.is_mounted_on_use and not self.users(name):
                    # A failed clean-up may have left it.
                    await asyncio.to_thread(local.unmount, volume.path)
                # From here on nobody can take it in between.
                if users := self.users(name):
                    raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
                if self._volumes.get(name) is not volume:
                    raise NotFound(f"get {name}: no such volume")
                gone = self._take_away(volume)
            except OSError as error:
                raise EngineError(f"remove {name}: {error}") from error
        self._locks.pop(name, None)
        self._events.publish("volume", "destroy", name, {"driver": volume.driver})
        await asyncio.to_thread(_erase, gone)

    def _take_away(self, volume: Volume) -> Path:
        """Make it no volume any more; returns where its files are."""
        gone = self.root / f"{_GONE}{secrets.token_hex(8)}"
        volume.home.rename(gone)
        del self._volumes[volume.name]
        return gone

    def discard(self, name: str) -> None:
        """Undo ``create`` for a container that could not be made; nobody else knows the volume."""
        volume = self._volumes.get(name)
        if volume is not None and not self._users.get(name):
            _erase(self._take_away(volume))
            self._events.publish("volume", "destroy", name, {"driver": volume.driver})

    async def prune(self, chosen: Iterable[Volume]) -> tuple[list[str], int]:
        """Remove those of ``chosen`` that no container has and that are plain directories.

        Returns their names, and how many bytes became free.

        Raises:
            Conflict: this is being done already.
        """
        if self._pruning:
            raise Conflict("a prune operation is already running")
        self._pruning = True
        removed, freed = [], 0
        try:
            for volume in chosen:
                if not volume.is_plain or self._users.get(volume.name):
                    continue
                size = await asyncio.to_thread(directory_size, volume.path)
                try:
                    await self.remove(volume.name)
                except (Conflict, NotFound):
                    continue  # someone has just taken or removed it
                except EngineError as error:
                    log.warning("not pruned: volume %s: %s", volume.name, error.message)
                    continue
                removed.append(volume.name)
                freed += size
        finally:
            self._pruning = False
        self._events.publish("volume", "prune", "", {"reclaimed": str(freed)})
        return removed, freed

    # ---- containers that have volumes

    def use(self, name: str, container: str) -> None:
        """From now on ``container`` (an id) has the volume: it cannot be removed."""
        self._users.setdefault(name, set()).add(container)

    def drop(self, name: str, container: str) -> None:
        """``container`` has it no more."""
        users = self._users.get(name, set())
        users.discard(container)
        if not users:
            self._users.pop(name, None)

    def begin_claim(self, container: str, names: Iterable[str]) -> None:
        """Say which volumes are about to be made for ``container`` alone.

        Should the daemon die before the container's document is written, the next one removes them.
        """
        path = self.root / f"{_CLAIM}{container}"
        write_atomic(path, orjson.dumps(list(names)), durable=False)

    def end_claim(self, container: str) -> None:
        """The container is written down, or its volumes have been removed again."""
        (self.root / f"{_CLAIM}{container}").unlink(missing_ok=True)

    # ---- containers that run

    def hold(self, name: str, container: str) -> None:
        """A daemon that has just started finds ``container`` running with the volume."""
        holders = self._holders.setdefault(name, {})
        holders[container] = holders.get(container, 0) + 1

    async def mount(self, name: str, container: str) -> Path:
        """Make the volume ready for ``container``, at its first holder; returns its path.

        A container may hold it several times, and lets it go as often.

        Raises:
            NotFound: there is no such volume.
            EngineError: it cannot be mounted.
        """
        volume = self.get(name)
        async with self._lock(name):
            first = name not in self._holders
            self.hold(name, container)
            if first and volume.is_mounted_on_use:
                try:
                    # To its end also when nobody waits for it any more.
                    await in_thread(_mount_fresh, volume)
                except BaseException:
                    await self._let_go(name, container)
                    raise
        return volume.path

    async def unmount(self, name: str, container: str) -> bool:
        """``container`` lets it go once; whether it held it. May be repeated.

        Raises:
            OSError: it cannot be unmounted.
        """
        async with self._lock(name):
            return await self._let_go(name, container)

    async def _let_go(self, name: str, container: str) -> bool:
        holders = self._holders.get(name, {})
        if container not in holders:
            return False
        holders[container] -= 1
        if not holders[container]:
            del holders[container]
        if not holders:
            del self._holders[name]
            volume = self._volumes.get(name)
            if volume is not None and volume.is_mounted_on_use:
                await in_thread(local.unmount, volume.path)
        return True

    async def populate(
        self, name: str, container: str, root: int, source: str, *, subpath: str = ""
    ) -> None:
        """Fill an empty volume with the content of directory ``source`` beneath ``root``.

        ``root`` is a descriptor; with ``subpath`` it is that directory of the volume. What is there
        stays as it is. A kill leaves no half of it, unless somebody is looking at the volume: it is
        filled in one step.

        Raises:
            EngineError: it cannot be mounted or written, or there is no ``subpath``.
        """
        path = await self.mount(name, container)
        try:
            async with self._lock(name):
                alone = sum(self._holders[name].values()) == 1
                whole = alone and not subpath and not path.is_mount()
                await asyncio.to_thread(_fill, path, subpath, root, source, in_one_step=whole)
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise EngineError(f"cannot access path {path / subpath}: {reason}") from error
        finally:
            await self.unmount(name, container)

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())


def new_name() -> str:
    """A name for an anonymous volume."""
    return secrets.token_hex(32)


def _mount_fresh(volume: Volume) -> None:
    local.unmount(volume.path)  # a failed clean-up may have left it
    local.mount(volume)


def _fill(path: Path, subpath: str, root: int, source: str, *, in_one_step: bool) -> None:
    descriptor = hold_within(path, subpath)
    try:
        target = Path(f"/proc/self/fd/{descriptor}")
        if not target.is_dir() or any(target.iterdir()):
            return
        if not in_one_step:
            copy_tree(root, source, target)
            return
    finally:
        os.close(descriptor)
    copy = path.with_name(_COPY)
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(mode=0o700)
    try:
        copy_tree(root, source, copy)
        copy.rename(path)
    except OSError:
        shutil.rmtree(copy, ignore_errors=True)
        raise


def _erase(path: Path) -> None:
    for point in mounts_below(path):
        unmount(point)
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        log.error("what is left of a volume cannot be removed: %s: %s", path, error)
