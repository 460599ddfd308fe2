"""The runtime: containers by their ids, from creation to deletion, across the daemon's restarts.

Directories: ``<run_dir>/<id>`` is a container's bundle with its monitor's files, ``<run_dir>/oci``
the OCI runtime's state; both are worthless after a reboot. ``<state_dir>/exits/<id>`` holds the
exit code of a container that has ended, from the moment its monitor wrote it until ``delete``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal as signals
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import orjson

from wherry.host.files import make_private
from wherry.runtime import (
    bundle,
    capabilities,
    cgroups,
    exec,
    features,
    oci,
    recovery,
    seccomp,
    usage,
)
from wherry.runtime.features import Features
from wherry.runtime.groups import Groups
from wherry.runtime.held import Held
from wherry.runtime.hub import ContainerStream, Mark
from wherry.runtime.monitor.client import Holding, MonitorLost
from wherry.runtime.monitors import Monitors
from wherry.runtime.record import Record
from wherry.runtime.rootfs import mounts_below, unmount
from wherry.runtime.sealed import SealedProgram
from wherry.runtime.streams import ExecProcess
from wherry.runtime.types import (
    ContainerSpec,
    ExitStatus,
    Limits,
    LogSink,
    ProcessSpec,
    RuntimeFailure,
    Usage,
)
from wherry.runtime.workspace import Workspace

_log = logging.getLogger(__name__)

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
        on_oom: Callable[[str], None] = lambda id: None,
        program: str | None = None,
    ) -> None:
        self._cgroup_root = "/" + cgroup_root.strip("/")
        self._state_dir = state_dir
        self._run_dir = run_dir
        self._on_exit = on_exit
        self._on_oom = on_oom
        self._program = program
        self._held: dict[str, Held] = {}
        # How those ended that did so before we could hold them; None for those that have not.
        self._making: dict[str, tuple[int, int] | None] = {}
        self._sealed: SealedProgram | None = None
        self._opened = False
        self.features = Features()  # what can be limited here, once it is open

    async def open(self, *, monitor: bool = True) -> None:
        """Find the programs, look at the machine, make the directories and the monitor's group.

        ``monitor`` is whether to start one where there is none.

        Raises:
            RuntimeFailure: a program, or the kernel's cgroups, are missing.
        """
        exits = self._state_dir / "exits"
        for directory in (exits, self._run_dir, self._run_dir / "oci"):
            make_private(directory)
        with cgroups.settled():
            layout, program = self._choose()
            if program.name == "crun":
                self._sealed = SealedProgram(program, self._run_dir)
            executed = self._sealed.path if self._sealed else program
            runtime = oci.OCIRuntime(executed, self._run_dir / "oci")
            self._space = space = Workspace(
                self._run_dir, exits, self._cgroup_root, layout, runtime
            )
            cgroups.make(layout, space.monitors)
        self.groups = Groups(space)
        self.features = features.look(layout, space.monitors)
        self._host = bundle.this_host(self.features)
        # Streams are many; containers get what we had (see ``bundle``).
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self._monitors = Monitors(space, self._process_ended, self._held.values)
        await self._monitors.open(start=monitor)
        self._filters = seccomp.CompiledFilters(self._run_dir / "seccomp", program)
        self._opened = True

    def _choose(self) -> tuple[cgroups.Layout, Path]:
        """The trees of the machine, and the OCI runtime that works with them."""
        layout = cgroups.discover()
        if not layout.trees:
            raise RuntimeFailure(f"no cgroups are mounted at {cgroups.ROOT}")
        privileges = capabilities.effective()
        preference = oci.preference(is_v2=layout.is_v2, privileges=privileges)
        program = oci.find((self._program,) if self._program else preference)
        try:
            # Only crun needs it. But another instance may mount it at any time, and take it away
            # at its end: a runtime that finds it there makes groups in it, which we must know of.
            return cgroups.claim_hugetlb(layout), program
        except OSError as error:
            if program.name != "crun":
                _log.info("hugetlb is no v1 hierarchy here: %s", error)
                return layout, program
            _log.warning("cannot mount hugetlb as a v1 hierarchy (%s); using runc", error)
            return layout, oci.find(("runc",))

    async def close(self) -> None:
        """Let go of everything; the containers live on under the monitor."""
        if self._opened:
            await asyncio.gather(*(held.release() for held in self._held.values()))
            self._held.clear()
            await self._monitors.close()
            if self._sealed:
                self._sealed.close()

    def _get(self, id: str) -> Held:
        try:
            return self._held[id]
        except KeyError:
            raise RuntimeFailure(f"container {id} does not run") from None

    async def create(self, spec: ContainerSpec, *, log: LogSink | None) -> int:
        """Make the container up to the point where its program is about to be executed.

        Returns the pid of its first process in the host's namespace. Output goes to ``log``, which
        is closed at the container's end, also where it could not be made.

        Raises:
            RuntimeFailure: with Docker's exit code; nothing is left behind.
        """
        cgroup = self._space.cgroup(spec.id, spec.cgroup_parent)
        directory = self._space.bundle(spec.id)
        try:
            directory.mkdir(mode=0o700)
            self._making[spec.id] = None
            try:
                config = bundle.config(spec, self._host, cgroup)
                if spec.seccomp is not None:
                    config["annotations"] |= self._filters.annotations(spec.seccomp)
                (directory / "config.json").write_bytes(orjson.dumps(config))
                holding = await self._make(spec, directory)
                try:
                    record = _record(spec, holding.pid, cgroup)
                    if spec.streams_owner is not None and not spec.process.terminal:
                        for descriptor in holding.ends.values():
                            os.fchown(descriptor, *spec.streams_owner)
                    # Only now: what a crash leaves without it was not made to the end.
                    record.save(directory)
                except BaseException:
                    holding.close()
                    raise
            except BaseException:
                await asyncio.shield(self._space.remove(spec.id, self._monitors.forget))
                raise
            finally:
                ended = self._making.pop(spec.id)
        except BaseException:
            if log is not None:
                await log.close()
            raise
        held = self._hold(spec.id, record, holding, log, self._on_exit)
        if spec.process.console_size is not None:
            held.hub.resize(*spec.process.console_size)
        if ended is not None:
            held.process_ended(*ended)
        if spec.seccomp is not None:
            self._filters.learn(spec.seccomp, self._space.oci.root / spec.id)
        return holding.pid

    async def _make(self, spec: ContainerSpec, directory: Path) -> Holding:
        pid_file = directory / "pid"
        argv = self._space.oci.command("create", "--bundle", directory, "--pid-file", pid_file)
        monitor = await self._monitors.get()
        try:
            return await monitor.create(
                spec.id,
                directory,
                argv,
                terminal=spec.process.terminal,
                stdin=spec.stdin_open,
            )
        except MonitorLost:
            raise
        except RuntimeFailure as failure:
            raise oci.failure(failure.message, spec.process.args, spec.rootfs) from None

    def _hold(
        self,
        id: str,
        record: Record,
        holding: Holding,
        sink: LogSink | None,
        on_exit: Callable[[ExitStatus], None],
    ) -> Held:
        space = self._space
        held = self._held[id] = Held(
            id,
            space.bundle(id),
            record,
            holding,
            space.layout,
            sink=sink,
            claim_stdin=lambda: self._monitors.drop_stdin(id),
            on_exit=on_exit,
            on_oom=self._on_oom,
        )
        return held

    def _process_ended(self, id: str, code: int, finished_at: int) -> None:
        """The monitor tells that a container's first process has ended."""
        if (held := self._held.get(id)) is not None:
            held.process_ended(code, finished_at)
        elif id in self._making:
            self._making[id] = code, finished_at

    async def start(self, id: str) -> None:
        """Execute the program of a created container.

        Raises:
            RuntimeFailure: it could not be executed.
        """
        held = self._get(id)
        await self._space.oci.start(id, held.record.command, held.ended)

    async def kill(self, id: str, signal: int) -> None:
        """Send ``signal`` to the container's first process; nothing where it has ended.

        Raises:
            RuntimeFailure: there is no such container.
        """
        held = self._get(id)
        held.signal(signal)
        if signal == signals.SIGKILL and held.paused:
            cgroups.thaw(self._space.layout, held.record.cgroup)

    async def delete(self, id: str, *, keep_exit: bool = False) -> None:
        """Remove every trace of a container, running or half made; nothing where there is none.

        ``keep_exit`` leaves the exit code for a later daemon.
        """
        held = self._held.get(id)
        if held is not None and not held.ended.done():
            held.signal(signals.SIGKILL)
            cgroups.kill(self._space.layout, held.record.cgroup)
            await self._monitors.get()  # (which tells of the end)
            await asyncio.shield(held.ended)
        await self._space.remove(id, self._monitors.forget, keep_exit=keep_exit)
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
        if limits.cpu_quota is not None and limits.cpu_quota < 0:
            cgroups.unlimit_cpu(self._space.layout, held.record.cgroup)
        if limits.pids is not None and limits.pids < 0:
            # Of the runtimes one takes -1 for a number.
            cgroups.unlimit_processes(self._space.layout, held.record.cgroup)
            limits = replace(limits, pids=None)
        changes = bundle.resources(limits, self._host)
        if changes:
            await self._space.oci.call("update", "--resources=-", id, input=changes)

    def cgroup(self, id: str) -> str:
        """The path of a running container's group in the kernel's trees.

        Raises:
            RuntimeFailure: it does not run.
        """
        return self._get(id).record.cgroup

    async def attach(
        self, id: str, *, stdin: bool = True, at: Mark | None = None
    ) -> ContainerStream:
        """Become a client of the container's streams; ``stdin=False`` promises to send nothing.

        Between ``create`` and ``start`` nothing of the output is missed. ``at`` is called when the
        log has all that came before this moment, and nothing after it.

        Raises:
            RuntimeFailure: it does not run.
        """
        held = self._get(id)
        if not held.runs:
            raise RuntimeFailure(f"container {id} does not run")
        return held.attach(stdin=stdin, at=at)

    def resize(self, id: str, width: int, height: int) -> None:
        """Tell the container's terminal, if it has one, its size in characters.

        Raises:
            RuntimeFailure: it does not run.
        """
        self._get(id).hub.resize(width, height)

    async def exec(self, id: str, process: ProcessSpec, *, stdin: bool) -> ExecProcess:
        """Execute one more process in the container.

        Raises:
            RuntimeFailure: it could not be executed.
        """
        held = self._get(id)
        try:
            return await exec.execute(
                self._space.oci,
                id,
                bundle.process(process, self._host),
                stdin=stdin,
                directory=held.bundle,
                rootfs=Path(held.record.rootfs),
                owner=held.outside(process.user) if held.record.remapped else None,
            )
        except RuntimeFailure:
            if held.lives:
                raise
            raise RuntimeFailure(f"container {id} is not running") from None

    async def usage(self, id: str) -> Usage:
        """What the container's processes have used.

        Raises:
            RuntimeFailure: there is no such container.
        """
        return usage.read(self._space.layout, self._get(id).record.cgroup)

    async def processes(self, id: str) -> list[int]:
        """The pids, in the host's namespace, of all processes of the container.

        Raises:
            RuntimeFailure: there is no such container.
        """
        return cgroups.processes(self._space.layout, self._get(id).record.cgroup)

    def pid(self, id: str) -> int | None:
        """The pid of the container's first process while it lives."""
        held = self._held.get(id)
        return held.pid if held is not None and held.runs else None

    def exit_status(self, id: str) -> ExitStatus | None:
        """How the container has ended, as ``on_exit`` was told; None while it runs."""
        held = self._held.get(id)
        return held.ended.result() if held is not None and held.ended.done() else None

    async def recover(
        self, ids: Iterable[str], *, log: Callable[[str], LogSink | None]
    ) -> Mapping[str, int | ExitStatus | None]:
        """Take up, after a restart of the daemon, what an earlier one left.

        ``log`` gives the sink for the output of a container. For each id: the pid where the
        container runs (its end will be told by ``on_exit``), its exit status where it ended
        meanwhile (``on_exit`` is not called), or None where it is gone or was never started.
        Containers not among ``ids`` are removed.
        """
        found = {id: await self._recover(id, log) for id in ids}
        for id in self._space.ids():
            if id not in found:
                _log.info("removing container %s, which nobody knows", id)
                await self._space.remove(id, self._monitors.forget)
        return found

    async def _recover(
        self, id: str, log: Callable[[str], LogSink | None]
    ) -> int | ExitStatus | None:
        left = await recovery.look(id, self._space, self._monitors)
        if not isinstance(left, recovery.Left):
            return left
        if left.holding.ended is None:
            self._hold(id, left.record, left.holding, log(id), self._on_exit)
            return left.holding.pid
        # What it wrote last is still in its pipes.
        held = self._hold(id, left.record, left.holding, log(id), lambda status: None)
        held.process_ended(*left.holding.ended)
        status = await held.ended
        del self._held[id]
        return status

    async def destroy_all(self, grace: float, *, log: Callable[[str], LogSink | None]) -> None:
        """End and remove all containers, their mounts and groups; no daemon must be using them.

        They get SIGTERM, and SIGKILL after ``grace`` seconds. ``log`` is as for ``recover``.
        """
        if not self._opened:
            await self.open(monitor=False)
        await self.recover([id for id in self._space.ids() if id not in self._held], log=log)
        await self._terminate(grace)
        limit = asyncio.Semaphore(_PARALLEL)

        async def remove(id: str) -> None:
            async with limit:
                await self.delete(id, keep_exit=True)

        await asyncio.gather(*map(remove, self._space.ids()))
        await self._monitors.wait_ended()
        for root in (self._run_dir, self._state_dir):
            for point in mounts_below(root):
                unmount(point)
        self.remove_cgroup_root()

    async def _terminate(self, grace: float) -> None:
        running = [held for held in self._held.values() if held.runs]
        for held in running:
            held.signal(signals.SIGTERM)
            cgroups.thaw(self._space.layout, held.record.cgroup)
        if running:
            await asyncio.wait([held.ended for held in running], timeout=grace)

    def remove_cgroup_root(self) -> None:
        """Remove the instance's groups, and the hugetlb tree where no other instance uses it."""
        if not cgroups.remove(self._space.layout, self._cgroup_root):
            _log.warning("processes are left in the cgroup %s", self._cgroup_root)
        cgroups.release_hugetlb()


def _record(spec: ContainerSpec, pid: int, cgroup: str) -> Record:
    return Record(
        pid=pid,
        cgroup=cgroup,
        stdin_once=spec.stdin_once,
        shares_pids=spec.pid_namespace is not None,
        remapped=spec.user_namespace is not None,
        command=list(spec.process.args),
        rootfs=str(spec.rootfs),
    )
