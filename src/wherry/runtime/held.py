"""A container this daemon watches: its monitor, its first process, those attached to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal as signals
import socket
import time
from collections.abc import Callable
from pathlib import Path

from wherry.host.process import Child
from wherry.runtime import cgroups
from wherry.runtime.cgroups import Layout
from wherry.runtime.conmon import Monitor
from wherry.runtime.streams import ContainerStream
from wherry.runtime.types import ExitStatus
from wherry.runtime.usage import oom_kills

# Docker's word for a container whose shim was killed.
_KILLED = 128 + signals.SIGKILL


class Held:
    """One container from its creation, or its recovery, to its end.

    The end is the monitor's end, seen by its pidfd: by then it has handed over all output and left
    the exit code in ``exit_file``. A monitor that ends without leaving one was killed; its
    container has then nobody to hold its streams and is killed too.
    """

    def __init__(
        self,
        id: str,
        bundle: Path,
        exit_file: Path,
        monitor: Monitor,
        layout: Layout,
        on_exit: Callable[[ExitStatus], None],
    ) -> None:
        self.id = id
        self.bundle = bundle
        self.monitor = monitor
        self.pid = 0
        self.paused = False
        self.ended: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        self._exit_code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._exit_file = exit_file
        self._layout = layout
        self._on_exit = on_exit
        self._pidfd = -1
        self._monitor_pidfd = -1
        self._child: Child | None = None
        self._streams: set[ContainerStream] = set()
        self._process_gone = False

    def watch(self, pid: int, monitor: Child | None) -> None:
        """Begin to watch; ``monitor`` is our child, or None where an earlier daemon started it.

        Raises:
            ProcessLookupError: the container's process, or the monitor, has gone.
        """
        loop = asyncio.get_running_loop()
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        if monitor is not None:
            self._child = monitor
            monitor.when_ended(self._monitor_ended)
        else:
            try:
                self._monitor_pidfd = os.pidfd_open(self.monitor.pid)
            except ProcessLookupError:
                os.close(self._pidfd)
                self._pidfd = -1
                raise
            loop.add_reader(self._monitor_pidfd, self._monitor_ended)
        loop.add_reader(self._pidfd, self._process_ended)

    def _process_ended(self) -> None:
        """The container's process has gone; free its monitor from clients that do not read."""
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self._process_gone = True
        for stream in self._streams:
            stream.absorb()

    def _monitor_ended(self) -> None:
        if self.ended.done():
            return
        self._forget()
        # A monitor that was killed leaves a container that nobody holds; one in the pid namespace
        # of others leaves what it started.
        if not self.has_exit_code or self.monitor.shares_pids:
            cgroups.kill(self._layout, self.monitor.cgroup)
        status = self.exit_status()
        self.ended.set_result(status)
        self._exit_code.set_result(status.exit_code)
        self._on_exit(status)

    @property
    def has_exit_code(self) -> bool:
        """Whether the monitor has left an exit code."""
        return self._exit_file.exists()

    def exit_status(self) -> ExitStatus:
        """How it ended, as its monitor left it, or as killed where that was killed."""
        code, finished = read_exit_file(self._exit_file) or (_KILLED, time.time_ns())
        return ExitStatus(self.id, code, self._oom_killed(), finished)

    def _oom_killed(self) -> bool:
        return (self.bundle / "oom").exists() or oom_kills(self._layout, self.monitor.cgroup) > 0

    def signal(self, number: int) -> None:
        """Send a signal to the container's process; nothing where it has ended."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signals.pidfd_send_signal(self._pidfd, number)

    def attach(self, *, stdin: bool) -> ContainerStream:
        """A new connection to the monitor.

        Raises:
            OSError: the monitor has gone.
        """
        connection = connect(self.bundle / "attach")
        # The monitor takes any client's end for the end of input where input ends with a client.
        ends_input = self.monitor.stdin_once and not self.monitor.terminal
        stream = ContainerStream(
            connection, self.bundle, self._exit_code, half_close=stdin and ends_input
        )
        self._streams.add(stream)

        def closed(stream: ContainerStream) -> bool:
            self._streams.discard(stream)
            keep = not stdin and ends_input and not self.ended.done()
            if keep:
                stream.discard_until_end()
            return keep

        stream.on_close = closed
        if self._process_gone:
            stream.absorb()
        return stream

    def release(self) -> None:
        """Stop watching; the container lives on under its monitor."""
        if self._child is not None and self._child.running:
            self._child.release()
        self._forget()
        for stream in tuple(self._streams):
            stream.disconnect()
        self._exit_code.cancel()
        self.ended.cancel()

    def _forget(self) -> None:
        loop = asyncio.get_running_loop()
        for descriptor in (self._pidfd, self._monitor_pidfd):
            if descriptor >= 0:
                loop.remove_reader(descriptor)
                os.close(descriptor)
        self._pidfd = self._monitor_pidfd = -1


def read_exit_file(path: Path) -> tuple[int, int] | None:
    """The exit code, and when it was written in nanoseconds since the epoch; None without file."""
    try:
        with path.open() as file:
            code = int(file.read() or -1)
            return (code if code >= 0 else 255), os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None


def connect(path: Path) -> socket.socket:
    """Connect to a sequenced-packet socket however long its path is.

    Raises:
        OSError: nobody listens there.
    """
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{directory}/{path.name}")
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(directory)
    return connection
