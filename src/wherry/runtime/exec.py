"""``exec``: one more process in a container, as a child of ours, without a monitor.

The daemon's restart ends it, as with Docker. crun tells by way of the pid file that the program
has been executed; here the pid file and the log are one pipe, so a single read says whether it runs
and, if not, why.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wherry.host.process import Child
from wherry.host.readiness import readable
from wherry.runtime.console import ConsoleSocket, receive_terminal
from wherry.runtime.oci import OCIRuntime, failure
from wherry.runtime.streams import ExecProcess, set_size
from wherry.runtime.types import RuntimeFailure


class _Descriptors:
    """Those of one exec: all are closed when it fails, else those that nobody has taken."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def keep(self, descriptor: int) -> int:
        self._open.add(descriptor)
        return descriptor

    def pipe(self) -> tuple[int, int]:
        reading, writing = os.pipe()
        return self.keep(reading), self.keep(writing)

    def take(self, descriptor: int) -> int:
        self._open.discard(descriptor)
        return descriptor

    def close(self, *descriptors: int) -> None:
        for descriptor in descriptors or tuple(self._open):
            if descriptor in self._open:
                self._open.discard(descriptor)
                os.close(descriptor)


async def execute(
    runtime: OCIRuntime,
    id: str,
    process: Mapping[str, Any],
    *,
    stdin: bool,
    directory: Path,
    rootfs: Path,
    owner: tuple[int, int] | None = None,
) -> ExecProcess:
    """Run ``process``, an OCI process section, in container ``id``.

    Returns when the program has been executed. ``directory`` takes the few files that a pseudo
    terminal, or runc, needs. ``owner`` is whose the streams become, so that the process can open
    them by name; the runtime sees to that itself but in a user namespace, where it may not.

    Raises:
        RuntimeFailure: it could not be executed.
    """
    descriptors = _Descriptors()
    try:
        if runtime.is_crun:
            starter: _Starter = _CrunStarter(runtime, id, descriptors)
        else:
            starter = _RuncStarter(runtime, id, descriptors, directory)
        try:
            if process["terminal"] and runtime.is_crun:
                return await _with_terminal(starter, process, directory, rootfs)
            if process["terminal"]:
                return await _with_relayed_terminal(starter, process, rootfs)
            return await _with_pipes(starter, process, stdin, rootfs, owner)
        finally:
            starter.clean()
    finally:
        descriptors.close()


class _Starter:
    """What differs between the runtimes: how to learn that the program runs."""

    def __init__(self, runtime: OCIRuntime, id: str, descriptors: _Descriptors) -> None:
        self.runtime = runtime
        self.id = id
        self.descriptors = descriptors

    def start(
        self,
        process: Mapping[str, Any],
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
        stderr: int = subprocess.DEVNULL,
        console: str = "",
    ) -> Child:
        spec = self.descriptors.keep(os.memfd_create("process", os.MFD_CLOEXEC))
        os.write(spec, json.dumps(process).encode())
        os.lseek(spec, 0, os.SEEK_SET)
        options = [f"--process=/proc/self/fd/{spec}"]
        if console:
            options.append(f"--console-socket={console}")
        return self.spawn(options, spec, stdin, stdout, stderr)

    def spawn(
        self, options: Sequence[str], spec: int, stdin: int, stdout: int, stderr: int
    ) -> Child:
        raise NotImplementedError

    async def started(self, child: Child) -> tuple[int, str]:
        """The program's pid and "", or 0 and why there is none."""
        raise NotImplementedError

    def clean(self) -> None:
        """Remove what was needed for the start alone."""


class _CrunStarter(_Starter):
    def __init__(self, runtime: OCIRuntime, id: str, descriptors: _Descriptors) -> None:
        super().__init__(runtime, id, descriptors)
        self._status, self._report = descriptors.pipe()
        os.set_blocking(self._status, False)

    def spawn(
        self, options: Sequence[str], spec: int, stdin: int, stdout: int, stderr: int
    ) -> Child:
        report = f"/proc/self/fd/{self._report}"
        command = [str(self.runtime.program), *self.runtime.global_arguments]
        command += [f"--log=file:{report}", "exec", f"--pid-file={report}", *options, self.id]
        passed = (self._report, spec)
        child = Child(command, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=passed)
        self.descriptors.close(self._report)
        return child

    async def started(self, child: Child) -> tuple[int, str]:
        complaint = b""
        while True:
            try:
                data = os.read(self._status, 65536)
            except BlockingIOError:
                await readable(self._status)
                continue
            if data.isdigit():
                return int(data), ""
            complaint += data
            if not data:
                return 0, complaint.decode(errors="replace")


class _RuncStarter(_Starter):
    """runc writes its pid file under another name first, so it wants a real one to watch for."""

    def __init__(
        self, runtime: OCIRuntime, id: str, descriptors: _Descriptors, directory: Path
    ) -> None:
        super().__init__(runtime, id, descriptors)
        self._directory = Path(tempfile.mkdtemp(prefix="exec.", dir=directory))
        self._pid_file = self._directory / "pid"
        self._log = self._directory / "log"

    def spawn(
        self, options: Sequence[str], spec: int, stdin: int, stdout: int, stderr: int
    ) -> Child:
        command = [str(self.runtime.program), *self.runtime.global_arguments]
        command += [f"--log={self._log}", "exec", f"--pid-file={self._pid_file}", *options, self.id]
        return Child(command, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=(spec,))

    async def started(self, child: Child) -> tuple[int, str]:
        from wherry.host.inotify import Directory

        with Directory(self._directory) as watch:
            ended = asyncio.ensure_future(child.wait())
            while not self._pid_file.exists() and not ended.done():
                await watch.changed_or(ended)
        with contextlib.suppress(FileNotFoundError):
            return int(self._pid_file.read_text()), ""
        await child.wait()
        return 0, self._log.read_text(errors="replace") if self._log.exists() else ""

    def clean(self) -> None:
        for path in (*self._directory.iterdir(), self._directory):
            path.rmdir() if path.is_dir() else path.unlink()


async def _refuse(
    child: Child, complaint: str, process: Mapping[str, Any], rootfs: Path
) -> RuntimeFailure:
    await child.wait()
    return failure(complaint, process["args"], rootfs)


async def _with_pipes(
    starter: _Starter,
    process: Mapping[str, Any],
    stdin: bool,
    rootfs: Path,
    owner: tuple[int, int] | None,
) -> ExecProcess:
    descriptors = starter.descriptors
    theirs_in, ours_in = descriptors.pipe() if stdin else (subprocess.DEVNULL, -1)
    out, theirs_out = descriptors.pipe()
    err, theirs_err = descriptors.pipe()
    if owner is not None:
        for descriptor in (theirs_in, theirs_out, theirs_err):
            if descriptor >= 0:
                os.fchown(descriptor, *owner)
    child = starter.start(process, stdin=theirs_in, stdout=theirs_out, stderr=theirs_err)
    descriptors.close(theirs_in, theirs_out, theirs_err)
    pid, complaint = await _started(starter, child)
    if not pid:
        raise await _refuse(child, complaint, process, rootfs)
    for descriptor in (out, err, ours_in):
        if descriptor >= 0:
            os.set_blocking(descriptors.take(descriptor), False)
    return ExecProcess(child, pid, outputs={out: 1, err: 2}, stdin=ours_in, terminal=False)


async def _started(starter: _Starter, child: Child) -> tuple[int, str]:
    """``started``; a caller that is cancelled leaves no process behind."""
    try:
        return await starter.started(child)
    except BaseException:
        child.kill()
        raise


async def _with_terminal(
    starter: _Starter, process: Mapping[str, Any], directory: Path, rootfs: Path
) -> ExecProcess:
    console = ConsoleSocket(directory)
    try:
        child = starter.start(process, console=console.path)
    except BaseException:
        console.close()
        raise
    receiving = asyncio.create_task(_received(console, process.get("consoleSize")))
    # Not before: see host/readiness.py.
    receiving.add_done_callback(lambda _: console.close())
    try:
        pid, complaint = await _started(starter, child)
        if not pid:
            raise await _refuse(child, complaint, process, rootfs)
        master = await receiving
    except BaseException as error:
        # It may have come although the program could not be executed.
        receiving.cancel()
        receiving.add_done_callback(_close)
        if isinstance(error, OSError):
            raise RuntimeFailure("the OCI runtime did not set up a terminal") from error
        raise
    return ExecProcess(child, pid, outputs={master: 1}, stdin=master, terminal=True)


def _close(receiving: asyncio.Task[int]) -> None:
    if not receiving.cancelled() and receiving.exception() is None:
        os.close(receiving.result())


async def _received(console: ConsoleSocket, size: Mapping[str, int] | None) -> int:
    """The terminal's master, with its size as soon as it can be: crun leaves that to us, and its
    program may begin at once."""
    await readable(console.fileno())
    with console.accept() as connection:
        await readable(connection.fileno())
        master = receive_terminal(connection)
    if size is not None:
        set_size(master, size["width"], size["height"])
    return master


async def _with_relayed_terminal(
    starter: _Starter, process: Mapping[str, Any], rootfs: Path
) -> ExecProcess:
    """runc hands a terminal over only to those who do not wait for it; it relays to one of ours."""
    descriptors = starter.descriptors
    master, slave = map(descriptors.keep, os.openpty())
    child = starter.start(process, stdin=slave, stdout=slave, stderr=slave)
    pid, complaint = await _started(starter, child)
    if not pid:
        raise await _refuse(child, complaint, process, rootfs)
    os.set_blocking(descriptors.take(master), False)
    return ExecProcess(child, pid, outputs={master: 1}, stdin=master, terminal=True)
