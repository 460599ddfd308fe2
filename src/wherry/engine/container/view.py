"""A container's files as the container sees them, for who works on them from outside.

Volumes and binds lie over the root file system, also while the container does not run. They are
mounted in a mount namespace of a thread of its own and copied from there as a tree of mounts that
is attached nowhere. It is reached by one descriptor, nobody else sees it, and it is gone with that
descriptor: also when the daemon is killed, so nothing can leak.

All paths are resolved beneath that descriptor by ``image.beneath``, so that no link that the
container has, or makes meanwhile, leads out of it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wherry.engine.container.container import Container, MountPoint
from wherry.engine.container.init_layer import prepare
from wherry.host import syscalls
from wherry.host.beneath import open_beneath
from wherry.runtime.rootfs import mount_overlay

_PATH = os.O_PATH | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Bind:
    """Something of the host that lies over ``destination``."""

    source: Path
    destination: str
    writable: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """What to mount. ``running`` is the pid of the container's process, 0 without one."""

    layers: Sequence[Path]
    upper: Path
    work: Path
    rootfs: Path
    readonly: bool = False
    binds: Sequence[Bind] = ()
    tmpfs: Sequence[str] = ()
    running: int = 0


def plan(
    container: Container,
    layers: Sequence[Path],
    sources: Sequence[tuple[MountPoint, Path]] | None = None,
) -> Plan:
    """How to see ``container``, whose image has ``layers``.

    ``sources`` are the mount points that have something of the host behind them, and what; without
    them, nothing is seen that is mounted.
    """
    mounts = sources is not None
    overlay = container.layers
    binds: list[Bind] = []
    tmpfs: list[str] = []
    if mounts:
        for name in ("hosts", "hostname", "resolv.conf"):
            if container.file(name).exists():
                binds.append(Bind(container.file(name), f"/etc/{name}"))
        binds += [Bind(path, point.destination, point.writable) for point, path in sources or ()]
        tmpfs = [point.destination for point in container.mounts if point.type == "tmpfs"]
    return Plan(
        layers=[prepare(container.init_layer, layers), *layers],
        upper=overlay / "upper",
        work=overlay / "work",
        rootfs=container.rootfs,
        readonly=mounts and bool(container.host_config["ReadonlyRootfs"]),
        binds=sorted(binds, key=lambda bind: bind.destination.count("/")),
        tmpfs=tmpfs if container.state.running else (),
        running=container.state.pid if container.state.running else 0,
    )


class View:
    """``root`` is the descriptor to resolve paths beneath; ``close`` lets go of everything."""

    def __init__(self, plan: Plan) -> None:
        """Mount (blocking).

        Raises:
            OSError: the kernel refuses.
        """
        self.root = -1
        self._failure: Exception | None = None
        # A thread that has entered another namespace cannot be used for anything else.
        thread = threading.Thread(target=self._open, args=(plan,), name="view", daemon=True)
        thread.start()
        thread.join()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Give it back."""
        if self.root >= 0:
            os.close(self.root)
            self.root = -1

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def path_of(self, descriptor: int) -> str:
        """Where what was opened beneath ``root`` is, as the container calls it."""
        top, path = (
            str(Path(f"/proc/self/fd/{one}").readlink()) for one in (self.root, descriptor)
        )
        return path.removeprefix(top.rstrip("/")) or "/"

    def _open(self, plan: Plan) -> None:
        try:
            self.root = _assemble(plan)
        except Exception as error:  # it belongs to the thread that waits
            self._failure = error


def _assemble(plan: Plan) -> int:
    """In a thread of its own: the root of the new tree."""
    syscalls.unshare(syscalls.CLONE_FS)
    with contextlib.ExitStack() as stack:

        def keep(descriptor: int) -> int:
            stack.callback(os.close, descriptor)
            return descriptor

        trees = [
            (destination, keep(tree))
            for destination, tree in _tmpfs_trees(plan.running, plan.tmpfs)
        ]
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        if not os.path.ismount(plan.rootfs):
            for directory in (plan.upper, plan.work, plan.rootfs):
                directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            mount_overlay(plan.layers, plan.upper, plan.work, plan.rootfs)
        root = keep(os.open(plan.rootfs, _PATH | os.O_DIRECTORY))
        for bind in plan.binds:
            _bind(root, bind)
        for destination, tree in trees:
            target = keep(open_beneath(root, destination, os.O_PATH | os.O_DIRECTORY))
            syscalls.attach_mount(tree, target)
        if plan.readonly:
            _make_readonly(str(plan.rootfs))
        return syscalls.clone_mount(root, recursive=True)


def _tmpfs_trees(pid: int, destinations: Sequence[str]) -> list[tuple[str, int]]:
    """Copies of what a running container has mounted at ``destinations``."""
    if not pid or not destinations:
        return []
    trees: list[tuple[str, int]] = []
    own = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        theirs = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(theirs, syscalls.CLONE_NEWNS)
        finally:
            os.close(theirs)
        try:
            root = os.open("/", _PATH | os.O_DIRECTORY)
            try:
                for destination in destinations:
                    found = open_beneath(root, destination, os.O_PATH | os.O_DIRECTORY)
                    try:
                        trees.append((destination, syscalls.clone_mount(found)))
                    finally:
                        os.close(found)
            finally:
                os.close(root)
        finally:
            syscalls.setns(own, syscalls.CLONE_NEWNS)
    except OSError:
        for _, tree in trees:
            os.close(tree)
        if not Path(f"/proc/{pid}").exists():
            return []  # it has just ended, and its tmpfs with it
        raise
    finally:
        os.close(own)
    return trees


def _bind(root: int, bind: Bind) -> None:
    try:
        source = os.open(bind.source, _PATH)
    except FileNotFoundError:
        return  # as long as it is missing the container could not start either
    try:
        target = _mount_point(root, bind)
        try:
            syscalls.mount(
                f"/proc/self/fd/{source}",
                f"/proc/self/fd/{target}",
                "",
                syscalls.MS_BIND | syscalls.MS_REC,
            )
        finally:
            os.close(target)
        if not bind.writable:
            target = open_beneath(root, bind.destination, os.O_PATH)
            try:
                _make_readonly(f"/proc/self/fd/{target}")
            finally:
                os.close(target)
    finally:
        os.close(source)


def _make_readonly(target: str) -> None:
    syscalls.mount("", target, "", syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_RDONLY)


def _mount_point(root: int, bind: Bind) -> int:
    """The place to mount at, made where the container has never run."""
    try:
        return open_beneath(root, bind.destination, os.O_PATH)
    except FileNotFoundError:
        pass
    directory = os.dup(root)
    *parents, last = [part for part in bind.destination.split("/") if part]
    if bind.source.is_dir():
        parents.append(last)
    try:
        walked = ""
        for part in parents:
            walked = f"{walked}/{part}"
            try:
                following = open_beneath(root, walked, os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                os.mkdir(part, 0o755, dir_fd=directory)
                following = open_beneath(root, walked, os.O_PATH | os.O_DIRECTORY)
            os.close(directory)
            directory = following
        if not bind.source.is_dir():
            flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(last, flags, 0o755, dir_fd=directory))
    finally:
        os.close(directory)
    return open_beneath(root, bind.destination, os.O_PATH)
