"""The runtime: containers by their ids, from creation to deletion, across the daemon's restarts.

Directories: ``<run_dir>/<id>`` is a container's bundle with its monitor's files, ``<run_dir>/oci``
the OCI runtime's state; both are worthless after a reboot. ``<state_dir>/exits/<id>`` holds the
exit code of a container that has ended, from the moment its monitor wrote it until ``delete``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal as signals
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import orjson

from wherry.host.files import make_private
from wherry.host.process import Child
from wherry.host.readiness import readable
from wherry.runtime import (
    bundle,
    capabilities,
    cgroups,
    conmon,
    exec,
    features,
    oci,
    seccomp,
    usage,
)
from wherry.runtime.features import Features
from wherry.runtime.held import Held, read_exit_file
from wherry.runtime.rootfs import mounts_below, unmount
from wherry.runtime.streams import ContainerStream, ExecProcess, control
from wherry.runtime.types import (
    ContainerSpec,
    ExitStatus,
    Limits,
    ProcessSpec,
    RuntimeFailure,
    Usage,
)
from wherry.runtime.workspace import Workspace, end

log = logging.getLogger(__name__)

# How many containers are removed at a time; each costs a short process.
_PARALLEL = 8


class Runtime:
    """All contained processes of one instance.

    ``cgroup_root`` is the group, such as ``/wherry0``, that holds all of them; ``on_exit`` is
    called on the event loop when a container ends, once for each ``create`` (and each recovery).
    ``program`` names the OCI runtime, which otherwise is crun, else runc.
    """

    def __init__(
        self,
        *,
        state_dir: Path,
        run_dir: Path,
        cgroup_root: str,
        on_exit: Callable[[ExitStatus], None],
        program: str | None = None,
    ) -> None:
        self._cgroup_root = "/" + cgroup_root.strip("/")
        self._state_dir = state_dir
        self._run_dir = run_dir
        self._on_exit = on_exit
        self._program = program
        self._held: dict[str, Held] = {}
        self._opened = False
        self.features = Features()  # what can be limited here, once it is open

    async def open(self) -> None:
        """Find the programs, look at the machine, make the directories and the monitors' group.

        Raises:
            RuntimeFailure: a program, or the kernel's cgroups, are missing.
        """
        exits = self._state_dir / "exits"
        for directory in (exits, self._run_dir, self._run_dir / "oci"):
            make_private(directory)
        layout = cgroups.discover()
        if not layout.trees:
            raise RuntimeFailure(f"no cgroups are mounted at {cgroups.ROOT}")
        privileges = capabilities.effective()
        preference = oci.preference(is_v2=layout.is_v2, privileges=privileges)
        program = oci.find((self._program,) if self._program else preference)
        if program.name == "crun":
            try:
                layout = cgroups.claim_hugetlb(layout)
            except OSError as error:
                log.warning("cannot mount hugetlb as a v1 hierarchy (%s); using runc", error)
                program = oci.find(("runc",))
        self._conmon = oci.find_monitor()
        runtime = oci.OCIRuntime(program, self._run_dir / "oci")
        self._space = space = Workspace(self._run_dir, exits, self._cgroup_root, layout, runtime)
        cgroups.make(layout, space.monitors)
        self.features = features.look(layout, space.monitors)
        self._host = bundle.this_host(self.features)
        self._filters = seccomp.CompiledFilters(self._run_dir / "seccomp", program)
        self._opened = True

    async def close(self) -> None:
        """Let go of everything; the containers live on under their monitors."""
        for held in self._held.values():
            held.release()
        self._held.clear()

    def _get(self, id: str) -> Held:
        try:
            return self._held[id]
        except KeyError:
            raise RuntimeFailure(f"container {id} does not run") from None

    async def create(self, spec: ContainerSpec, *, log_path: Path | None) -> int:
        """Make the container up to the point where its program is about to be executed.

        Returns the pid of its first process in the host's namespace. Output goes to ``log_path`` in
        CRI's log format.

        Raises:
            RuntimeFailure: with Docker's exit code; nothing is left behind.
        """
        cgroup = self._space.cgroup(spec.id, spec.cgroup_parent)
        directory = self._space.bundle(spec.id)
        directory.mkdir(mode=0o700)
        try:
            config = bundle.config(spec, self._host, cgroup)
            if spec.seccomp is not None:
                config["annotations"] |= self._filters.annotations(spec.seccomp)
            (directory / "config.json").write_bytes(orjson.dumps(config))
            child, monitor, pid = await self._start_monitor(spec, directory, cgroup, log_path)
        except BaseException:
            await asyncio.shield(self._space.remove(spec.id))
            raise
        self._hold(spec.id, monitor).watch(pid, child)
        if spec.seccomp is not None:
            self._filters.learn(spec.seccomp, self._space.oci.root / spec.id)
        return pid

    def _hold(self, id: str, monitor: conmon.Monitor) -> Held:
        space = self._space
        files = space.bundle(id), space.exit_file(id)
        held = self._held[id] = Held(id, *files, monitor, space.layout, self._on_exit)
        return held

    async def _start_monitor(
        self, spec: ContainerSpec, directory: Path, cgroup: str, log_path: Path | None
    ) -> tuple[Child, conmon.Monitor, int]:
        command = conmon.arguments(
            self._conmon,
            self._space.oci,
            id=spec.id,
            bundle=directory,
            exits=self._space.exits,
            log_path=log_path,
            terminal=spec.process.terminal,
            stdin_open=spec.stdin_open,
            stdin_once=spec.stdin_once,
        )
        with contextlib.ExitStack() as stack:
            sync, their_sync = _pipe(stack)
            their_start, start = _pipe(stack)
            environment = conmon.environment(
                their_sync.fileno(), their_start.fileno(), os.environ.get("PATH", os.defpath)
            )
            passed = (their_sync.fileno(), their_start.fileno())
            # It leaves the mark of an out-of-memory kill in its working directory.
            child = Child(command, pass_fds=passed, env=environment, cwd=directory)
            their_sync.close()
            their_start.close()
            try:
                # It waits for the start pipe, so all it starts is in the monitors' group.
                cgroups.add(self._space.layout, self._space.monitors, child.pid)
                monitor = conmon.Monitor(
                    pid=child.pid,
                    cgroup=cgroup,
                    terminal=spec.process.terminal,
                    stdin_open=spec.stdin_open,
                    stdin_once=spec.stdin_once,
                    shares_pids=spec.pid_namespace is not None,
                    command=list(spec.process.args),
                    rootfs=str(spec.rootfs),
                )
                os.write(start.fileno(), b"\0")
                pid, complaint = conmon.parse_sync(await _read_line(sync.fileno()))
                if pid <= 0:
                    await child.wait()
                    raise oci.failure(complaint, spec.process.args, spec.rootfs)
                # Only now: what a crash leaves without it was not made to the end.
                monitor.save(directory)
            except BaseException:
                child.kill()
                await asyncio.shield(child.wait())
                raise
        return child, monitor, pid

    async def start(self, id: str) -> None:
        """Execute the program of a created container.

        Raises:
            RuntimeFailure: it could not be executed.
        """
        held = self._get(id)
        await self._space.oci.call("start", id, command=held.monitor.command)

    async def kill(self, id: str, signal: int) -> None:
        """Send ``signal`` to the container's first process; nothing where it has ended.

        Raises:
            RuntimeFailure: there is no such container.
        """
        held = self._get(id)
        held.signal(signal)
        if signal == signals.SIGKILL and held.paused:
            cgroups.thaw(self._space.layout, held.monitor.cgroup)

    async def delete(self, id: str) -> None:
        """Remove every trace of a container, running or half made; nothing where there is none."""
        held = self._held.get(id)
        if held is not None and not held.ended.done():
            held.signal(signals.SIGKILL)
            cgroups.kill(self._space.layout, held.monitor.cgroup)
            await asyncio.shield(held.ended)
        await self._space.remove(id)
        self._held.pop(id, None)

    async def pause(self, id: str) -> None:
        """Freeze all processes of the container.

        Raises:
            RuntimeFailure: with the runtime's reason.
        """
        held = self._get(id)
        await self._space.oci.call("pause", id)
        held.paused = True

    async def resume(self, id: str) -> None:
        """Let frozen processes go on.

        Raises:
            RuntimeFailure: with the runtime's reason.
        """
        held = self._get(id)
        await self._space.oci.call("resume", id)
        held.paused = False

    async def update(self, id: str, limits: Limits) -> None:
        """Change those limits that are given; the others stay.

        Raises:
            RuntimeFailure: with the runtime's reason.
        """
        held = self._get(id)
        if limits.pids is not None and limits.pids < 0:
            # Of the runtimes one takes -1 for a number.
            cgroups.unlimit_processes(self._space.layout, held.monitor.cgroup)
            limits = replace(limits, pids=None)
        changes = bundle.resources(limits, self._host)
        if changes:
            await self._space.oci.call("update", "--resources=-", id, input=changes)

    async def attach(self, id: str, *, stdin: bool = True) -> ContainerStream:
        """Connect to the container's streams; ``stdin=False`` promises to send nothing.

        Between ``create`` and ``start`` nothing of the output is missed.

        Raises:
            RuntimeFailure: it does not run.
        """
        held = self._get(id)
        try:
            return held.attach(stdin=stdin)
        except OSError as error:
            raise RuntimeFailure(f"container {id} does not run") from error

    async def reopen_log(self, id: str) -> None:
        """Go on in a new file under the log's name; whoever rotates has moved the old one away.

        Raises:
            RuntimeFailure: the container does not run.
        """
        if not control(self._get(id).bundle, conmon.REOPEN_LOG):
            raise RuntimeFailure(f"container {id} does not run")

    async def exec(self, id: str, process: ProcessSpec, *, stdin: bool) -> ExecProcess:
        """Execute one more process in the container.

        Raises:
            RuntimeFailure: it could not be executed.
        """
        held = self._get(id)
        return await exec.execute(
            self._space.oci,
            id,
            bundle.process(process, self._host),
            stdin=stdin,
            directory=held.bundle,
            rootfs=Path(held.monitor.rootfs),
        )

    async def usage(self, id: str) -> Usage:
        """What the container's processes have used.

        Raises:
            RuntimeFailure: there is no such container.
        """
        return usage.read(self._space.layout, self._get(id).monitor.cgroup)

    async def processes(self, id: str) -> list[int]:
        """The pids, in the host's namespace, of all processes of the container.

        Raises:
            RuntimeFailure: there is no such container.
        """
        return cgroups.processes(self._space.layout, self._get(id).monitor.cgroup)

    def pid(self, id: str) -> int | None:
        """The pid of the container's first process while it lives."""
        held = self._held.get(id)
        return held.pid if held is not None and not held.ended.done() else None

    async def recover(self, ids: Iterable[str]) -> Mapping[str, int | ExitStatus | None]:
        """Take up, after a restart of the daemon, what an earlier one left.

        For each id: the pid where the container runs (its end will be told by ``on_exit``), its
        exit status where it ended meanwhile (``on_exit`` is not called), or None where it is gone
        or was never started. Containers not among ``ids`` are removed.
        """
        found = {id: await self._recover(id) for id in ids}
        for id in self._space.ids():
            if id not in found:
                log.info("removing container %s, which nobody knows", id)
                await self._space.remove(id)
        return found

    async def _recover(self, id: str) -> int | ExitStatus | None:
        space = self._space
        monitor = conmon.Monitor.load(space.bundle(id))
        if monitor is None or space.oci.waits_for_start(id):
            left = read_exit_file(space.exit_file(id))
            await space.remove(id, keep_exit=left is not None)
            return left and ExitStatus(id, left[0], False, left[1])
        held = self._hold(id, monitor)
        pid = None if held.has_exit_code else space.pid(id)
        if pid is not None and space.monitor_pids(id):
            with contextlib.suppress(ProcessLookupError):
                held.watch(pid, None)
                held.paused = cgroups.frozen(space.layout, monitor.cgroup)
                return pid
        # It has ended: its monitor is about to leave the exit code, or has, or was killed.
        await end(space.monitor_pids(id), None)
        cgroups.kill(space.layout, monitor.cgroup)
        del self._held[id]
        return held.exit_status()

    async def destroy_all(self, grace: float) -> None:
        """End and remove all containers, their mounts and groups; no daemon must be using them.

        They get SIGTERM, and SIGKILL after ``grace`` seconds.
        """
        if not self._opened:
            await self.open()
        await self._space.terminate(self._space.ids(), grace)
        for id in tuple(self._held):
            await self.delete(id)
        limit = asyncio.Semaphore(_PARALLEL)

        async def remove(id: str) -> None:
            async with limit:
                await self._space.remove(id, keep_exit=True)

        await asyncio.gather(*map(remove, self._space.ids()))
        for root in (self._run_dir, self._state_dir):
            for point in mounts_below(root):
                unmount(point)
        self.remove_cgroup_root()

    def remove_cgroup_root(self) -> None:
        """Remove the instance's groups, and the hugetlb tree where no other instance uses it."""
        if not cgroups.remove(self._space.layout, self._cgroup_root):
            log.warning("processes are left in the cgroup %s", self._cgroup_root)
        cgroups.release_hugetlb()


def _pipe(stack: contextlib.ExitStack) -> tuple[_End, _End]:
    ends = tuple(map(_End, os.pipe()))
    for one in ends:
        stack.callback(one.close)
    return ends[0], ends[1]


class _End:
    """One end of a pipe, closed once."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


async def _read_line(descriptor: int) -> bytes:
    """All up to a newline or the end."""
    os.set_blocking(descriptor, False)
    data = b""
    while b"\n" not in data:
        try:
            more = os.read(descriptor, 65536)
        except BlockingIOError:
            await readable(descriptor)
            continue
        if not more:
            break
        data += more
    return data
