"""What an instance's containers leave on the machine, and how it is found again and removed.

Works from the files alone, so it serves a daemon that starts after a crash as well as an offline
clean-up.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import posixpath
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from wherry.host.readiness import readable
from wherry.runtime import cgroups
from wherry.runtime.cgroups import Layout
from wherry.runtime.oci import OCIRuntime
from wherry.runtime.record import Record
from wherry.runtime.rootfs import mounts_below, unmount


@dataclass(frozen=True, slots=True)
class Workspace:
    """The directories, the groups and the OCI runtime of one instance."""

    run_dir: Path
    exits: Path
    cgroup_root: str
    layout: Layout
    oci: OCIRuntime

    @property
    def monitors(self) -> str:
        """The group of the monitor, and of containers in the making: apart from the daemon's, whose
        limits are not theirs.
        """
        return f"{self.cgroup_root}/monitors"

    def cgroup(self, id: str, parent: str) -> str:
        """The group of a container whose parent group, below the root, is ``parent``.

        A parent cannot lead out of the root, however many ``..`` it has.
        """
        parent = posixpath.normpath(f"/{parent}").strip("/")
        return "/".join(part for part in (self.cgroup_root, parent, id) if part)

    def bundle(self, id: str) -> Path:
        """The directory of a container's bundle."""
        return self.run_dir / id

    def exit_file(self, id: str) -> Path:
        """Where its monitor leaves the exit code."""
        return self.exits / id

    def ids(self) -> list[str]:
        """All containers that have a bundle."""
        with os.scandir(self.run_dir) as entries:
            return sorted(entry.name for entry in entries if len(entry.name) == 64)

    async def remove(
        self, id: str, forget: Callable[[str], Awaitable[None]], *, keep_exit: bool = False
    ) -> None:
        """Remove every trace of a container, running or half made; nothing where there is none.

        ``forget`` has the monitor, if there is one, let go of it and end its creation, if that is
        under way. ``keep_exit`` keeps the exit
        code, for the daemon that will ask for it.
        """
        bundle = self.bundle(id)
        if bundle.exists():
            cgroup = self._recorded_cgroup(bundle)
            if Record.load(bundle) is None:
                # The group is not yet theirs, and they would fill it again once it was empty. What
                # one of them has started before it was killed is found by the next look.
                await forget(id)
                while makers := _makers(bundle):
                    await end(makers, signal.SIGKILL)
            if cgroup:
                await self._kill_group(cgroup)
            await forget(id)
            if cgroup:
                await self._remove_group(cgroup)
        # All that is left of an ended container whose group is gone is the runtime's own note of
        # it; its ``delete`` would do no more, but take a process for it.
        for directory in (self.oci.root / id, bundle):
            _remove_tree(directory)
        if not keep_exit:
            self.exit_file(id).unlink(missing_ok=True)

    def _recorded_cgroup(self, bundle: Path) -> str:
        try:
            config = json.loads((bundle / "config.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return ""
        return str(config["linux"]["cgroupsPath"])

    async def _kill_group(self, cgroup: str) -> None:
        pids = cgroups.processes(self.layout, cgroup)
        if cgroups.kill(self.layout, cgroup):
            await end(pids, None)

    async def _remove_group(self, cgroup: str) -> None:
        while not cgroups.remove(self.layout, cgroup):
            pids = cgroups.processes(self.layout, cgroup)
            if not pids:
                break  # what is left goes with the instance's root
            cgroups.kill(self.layout, cgroup)
            await end(pids, None)
        cgroups.prune(self.layout, cgroup, self.cgroup_root)


def _remove_tree(directory: Path) -> None:
    """Remove a directory, if it is there; runc mounts itself in its own for a moment, and leaves
    that when it is killed then.
    """
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        for mount in mounts_below(directory):
            unmount(mount)
        shutil.rmtree(directory)


async def end(pids: Iterable[int], number: int | None, *, timeout: float | None = None) -> None:
    """Send a signal (or none) to processes and wait until they have ended, seconds at most."""
    descriptors = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            descriptors.append(os.pidfd_open(pid))
    try:
        for descriptor in descriptors:
            if number is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, number)
        deadline = None if timeout is None else time.monotonic() + timeout
        for descriptor in descriptors:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await readable(descriptor)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _makers(bundle: Path) -> set[int]:
    """The processes that are at making the container of ``bundle``.

    These are the OCI runtime's ``create``, which names the bundle, and what it has started and may
    have left behind when it was killed.
    """
    children: dict[int, list[int]] = {}
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*"):
        # A process that we may not look at is none of ours.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            # proc_pid_stat(5): the name may have spaces and parentheses; state and parent follow.
            stat = (path / "stat").read_text(errors="replace")
            state, parent = stat.rsplit(")", 1)[1].split()[:2]
            if state not in "ZX":
                children.setdefault(int(parent), []).append(int(path.name))
                if _names_bundle(path, bundle):
                    found.append(int(path.name))
    makers: set[int] = set()
    while found:
        pid = found.pop()
        if pid not in makers:
            makers.add(pid)
            found += children.get(pid, ())
    return makers


def _names_bundle(process: Path, bundle: Path) -> bool:
    arguments = (process / "cmdline").read_bytes().split(b"\0")
    return b"--bundle" in arguments and os.fsencode(bundle) in arguments
