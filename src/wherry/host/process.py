"""Start children cheaply and await them without signals, threads or polling.

``subprocess.Popen`` starts a child by vfork, so a large daemon pays no more than a small one. The
event loop learns of the child's end from a pidfd (pidfd_open(2), Linux 5.3): no SIGCHLD handler,
which could belong to one library only, and no pid that might be another process by now.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal as signals
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class Child:
    """A child of ours. Must be made on a running event loop.

    ``stdin``, ``stdout`` and ``stderr`` are file descriptors, ``subprocess.DEVNULL`` by default;
    nothing else is inherited but ``pass_fds``.

    Raises:
        OSError: the program does not exist or cannot be executed.
    """

    def __init__(
        self,
        args: Sequence[str | Path],
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
        stderr: int = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._process = subprocess.Popen(
            args,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            env=env,
            cwd=cwd,
        )
        self.pid = self._process.pid
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        code = self._process.poll()
        if code is None:
            return
        self._forget()
        if not self._ended.done():
            self._ended.set_result(code)

    def _forget(self) -> None:
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    @property
    def running(self) -> bool:
        """Whether its end has not been seen yet."""
        return not self._ended.done()

    def when_ended(self, callback: Callable[[], object]) -> None:
        """Have ``callback`` called once it has ended (soon, where it has already)."""
        self._ended.add_done_callback(lambda _: callback())

    async def wait(self) -> int:
        """Its exit code, negative for the signal that ended it; any number of callers may wait."""
        return await asyncio.shield(self._ended)

    def kill(self, signal: int = signals.SIGKILL) -> None:
        """Send ``signal`` to it; nothing happens where it has ended."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signals.pidfd_send_signal(self._pidfd, signal)

    def release(self) -> None:
        """Stop watching a child that shall outlive us; ``wait`` must not be under way."""
        self._forget()
        self._ended.cancel()
        # Popen complains of a child that was never awaited; this one is left alone on purpose.
        self._process.returncode = 0


@dataclass(frozen=True, slots=True)
class Completed:
    """How a program ended: its exit code (negative for a signal) and what it wrote."""

    exit_code: int
    stdout: bytes
    stderr: bytes


async def run(
    args: Sequence[str | Path],
    *,
    input: bytes | None = None,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Completed:
    """Run a program to its end.

    Input and output go through memory files (memfd_create(2)), not pipes: nothing has to be pumped
    while it runs, nothing can block, and what it left running in the background cannot hold us up.
    ``timeout`` is seconds; the program is killed at its end, and when the caller is cancelled.

    Raises:
        OSError: the program does not exist or cannot be executed.
        TimeoutError: it ran longer than ``timeout``.
    """
    with contextlib.ExitStack() as stack:

        def memory_file(name: str) -> int:
            descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
            stack.callback(os.close, descriptor)
            return descriptor

        stdin = subprocess.DEVNULL
        if input is not None:
            stdin = memory_file("stdin")
            _write_all(stdin, input)
            os.lseek(stdin, 0, os.SEEK_SET)
        stdout, stderr = memory_file("stdout"), memory_file("stderr")
        child = Child(args, stdin=stdin, stdout=stdout, stderr=stderr, env=env, cwd=cwd)
        try:
            async with asyncio.timeout(timeout):
                code = await child.wait()
        except BaseException:
            child.kill()
            await asyncio.shield(child.wait())
            raise
        return Completed(code, _contents(stdout), _contents(stderr))


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _contents(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0) if size else b""


def exit_status(code: int) -> int:
    """A shell's number for an exit code as ``Child.wait`` gives it: 128 + n for signal n."""
    return 128 - code if code < 0 else code
