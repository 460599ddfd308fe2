"""The monitor process: a loop over the daemon's requests and the ends of its children.

It never waits for anyone but in that loop, and never polls. A daemon that connects takes the place
of the one before. Without a daemon and without containers nobody needs it, so it ends.
"""

import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
import struct
import sys
import time

from wherry.runtime.monitor import exits
from wherry.runtime.monitor.creation import CreateFailed, Creation
from wherry.runtime.monitor.protocol import PACKET, pack, receive

_PR_SET_CHILD_SUBREAPER = 36


class _Container:
    """What is held of one container: the ends of its streams, and how it ended."""

    __slots__ = ("ends", "id", "pid", "pidfd", "status")

    def __init__(self, id: str, pid: int, pidfd: int, ends: dict[str, int]) -> None:
        self.id = id
        self.pid = pid
        self.pidfd = pidfd
        self.ends = ends
        self.status: tuple[int, int] | None = None  # exit code, nanoseconds since the epoch

    def close(self) -> None:
        for descriptor in (self.pidfd, *self.ends.values()):
            os.close(descriptor)


class Monitor:
    """Everything the process holds. ``listener`` is where daemons connect; ``directory`` takes the
    exit files.
    """

    def __init__(self, listener: socket.socket, directory: str) -> None:
        self._listener = listener
        self._directory = directory
        self._daemon: socket.socket | None = None
        self._unsent: list[tuple[bytes, list[int]]] = []
        self._containers: dict[str, _Container] = {}
        self._by_pid: dict[int, _Container] = {}
        self._adopted: dict[int, _Container] = {}  # by pidfd; they are no children of ours
        self._creations: dict[int, Creation] = {}  # by the OCI runtime's pid
        # What ended while a ``create`` was under way may be what it was about to tell us of.
        self._orphans: dict[int, int] = {}
        self._epoll = select.epoll()
        self._children, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        listener.setblocking(False)
        for descriptor in (listener.fileno(), self._children):
            self._epoll.register(descriptor, select.EPOLLIN)

    def run(self) -> None:
        """Serve until nobody needs us: at least the daemon that started us."""
        while True:
            for descriptor, events in self._epoll.poll():
                if descriptor == self._listener.fileno():
                    self._accept()
                elif descriptor == self._children:
                    self._reap()
                elif descriptor in self._adopted:
                    self._adopted_ended(descriptor)
                elif self._daemon is not None and descriptor == self._daemon.fileno():
                    self._serve(events)
            if self._daemon is None and not self._containers and not self._creations:
                return

    # ---- the daemon

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # it has left again
        if not _is_ours(connection):
            connection.close()
            return
        self._send(pack("superseded"))
        self._disconnect()
        connection.setblocking(False)
        self._daemon = connection
        self._epoll.register(connection.fileno(), select.EPOLLIN)
        pidfd = os.pidfd_open(os.getpid())
        self._send(pack("hello", os.getpid()), [pidfd])
        os.close(pidfd)

    def _disconnect(self) -> None:
        if self._daemon is None:
            return
        self._epoll.unregister(self._daemon.fileno())
        self._daemon.close()
        self._daemon = None
        for _, descriptors in self._unsent:
            _close(descriptors)
        self._unsent.clear()
        for creation in self._creations.values():
            creation.serial = ""
            creation.called_off_by = "" if creation.called_off_by is not None else None

    def _serve(self, events: int) -> None:
        assert self._daemon is not None
        if events & select.EPOLLOUT:
            self._flush()
        if not events & ~select.EPOLLOUT or self._daemon is None:
            return
        try:
            fields, descriptors = receive(self._daemon)
        except BlockingIOError:
            return
        except OSError:
            fields, descriptors = [], []
        if not fields:
            self._disconnect()
            return
        verb, serial, *arguments = fields
        try:
            _REQUESTS[verb](self, serial, arguments, descriptors)
        except (OSError, LookupError, ValueError) as error:
            _close(descriptors)
            self._send(pack("failed", serial, f"the monitor cannot {verb}: {error!r}"))

    def _send(self, data: bytes, descriptors: list[int] | None = None) -> None:
        """Send now or, to a daemon that does not read just now, later; to none, never."""
        if self._daemon is None:
            return
        if not self._unsent and self._send_now(data, descriptors or []):
            return
        self._unsent.append((data, [os.dup(descriptor) for descriptor in descriptors or []]))
        self._epoll.modify(self._daemon.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _send_now(self, data: bytes, descriptors: list[int]) -> bool:
        assert self._daemon is not None
        try:
            socket.send_fds(self._daemon, [data[:PACKET]], descriptors)
        except BlockingIOError:
            return False
        except OSError:
            pass  # it has gone, and the next one asks for itself; the loop is about to see that
        return True

    def _flush(self) -> None:
        while self._unsent and self._send_now(*self._unsent[0]):
            _close(self._unsent.pop(0)[1])
        if not self._unsent and self._daemon is not None:
            self._epoll.modify(self._daemon.fileno(), select.EPOLLIN)

    # ---- its requests

    def _create(self, serial: str, arguments: list[str], descriptors: list[int]) -> None:
        id, bundle, terminal, stdin, *argv = arguments
        creation = Creation(serial, id, bundle, terminal == "1", stdin == "1", argv)
        self._creations[creation.pid] = creation

    def _take(self, serial: str, arguments: list[str], descriptors: list[int]) -> None:
        self._send_held(serial, self._containers[arguments[0]])

    def _send_held(self, serial: str, container: _Container) -> None:
        held = {"pidfd": container.pidfd, **container.ends}
        pid, status = container.pid, container.status or ()
        data = pack("done", serial, 0 if status else pid, ",".join(held), *status)
        self._send(data, list(held.values()))

    def _drop_stdin(self, serial: str, arguments: list[str], descriptors: list[int]) -> None:
        descriptor = self._containers[arguments[0]].ends.pop("stdin", -1)
        if descriptor >= 0:
            os.close(descriptor)
        self._send(pack("done", serial))

    def _forget(self, serial: str, arguments: list[str], descriptors: list[int]) -> None:
        id = arguments[0]
        for creation in self._creations.values():
            if creation.id == id:
                os.kill(creation.pid, signal.SIGKILL)
                creation.called_off_by = serial
                return  # the answer comes with its end
        container = self._containers.pop(id, None)
        if container is not None:
            self._by_pid.pop(container.pid, None)
            self._disown(container)
            container.close()
        self._send(pack("done", serial))

    def _adopt(self, serial: str, arguments: list[str], descriptors: list[int]) -> None:
        id, names = arguments
        ends = dict(zip(names.split(","), descriptors, strict=True))
        pidfd = ends.pop("pidfd")
        container = _Container(id, exits.pid_behind(pidfd), pidfd, ends)
        self._containers[id] = self._adopted[pidfd] = container
        self._epoll.register(pidfd, select.EPOLLIN)
        self._send(pack("done", serial))

    # ---- the ends of processes

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._children, 4096)
        ended: dict[int, int] = {}
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                ended[found[0]] = found[1]
        # Creations first: they say which of the others are containers.
        for pid in [pid for pid in ended if pid in self._creations]:
            self._finish(self._creations.pop(pid), ended.pop(pid), ended)
        for pid, status in ended.items():
            if pid in self._by_pid:
                self._note(self._by_pid.pop(pid), exits.code_of(status))
            elif self._creations:
                self._orphans[pid] = status
        if not self._creations:
            self._orphans.clear()

    def _finish(self, creation: Creation, status: int, ended: dict[int, int]) -> None:
        """The OCI runtime has ended; ``ended`` are others that have, which may be its container."""
        if creation.called_off_by is not None:
            creation.close()
            self._refuse(creation, "the creation was called off")
            if creation.called_off_by:
                self._send(pack("done", creation.called_off_by))
            return
        try:
            pid = creation.finish(status)
            self._hold(creation, pid, ended)
        except (CreateFailed, OSError) as error:
            creation.close()
            self._refuse(creation, str(error))

    def _hold(self, creation: Creation, pid: int, ended: dict[int, int]) -> None:
        if pid in ended or pid in self._orphans:
            # (A process that has been reaped has left its number to others.)
            raise CreateFailed("the container's process was killed before it was started")
        container = _Container(creation.id, pid, os.pidfd_open(pid), creation.ends)
        creation.tidy()
        self._containers[container.id] = self._by_pid[pid] = container
        if creation.serial:
            self._send_held(creation.serial, container)

    def _refuse(self, creation: Creation, reason: str) -> None:
        if creation.serial:
            self._send(pack("failed", creation.serial, reason))

    def _adopted_ended(self, pidfd: int) -> None:
        container = self._adopted[pidfd]
        self._disown(container)
        self._note(container, exits.code_behind(pidfd))

    def _disown(self, container: _Container) -> None:
        if self._adopted.pop(container.pidfd, None) is not None:
            self._epoll.unregister(container.pidfd)

    def _note(self, container: _Container, code: int) -> None:
        """Write down the end before telling it."""
        container.status = code, time.time_ns()
        try:
            exits.write(self._directory, container.id, *container.status)
        except OSError as error:
            # (Where that disk is full, this may be as well.)
            with contextlib.suppress(OSError):
                print(f"exit file of {container.id}: {error}", file=sys.stderr, flush=True)
        self._send(pack("exit", container.id, *container.status))


_REQUESTS = {
    "create": Monitor._create,
    "take": Monitor._take,
    "drop-stdin": Monitor._drop_stdin,
    "forget": Monitor._forget,
    "adopt": Monitor._adopt,
}


def _is_ours(connection: socket.socket) -> bool:
    """Whether the user at the other end is the one that we are."""
    size = struct.calcsize("3i")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return bool(struct.unpack("3i", credentials)[1] == os.geteuid())


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def main(directory: str, exit_files: str, descriptor: str) -> None:
    """Be the monitor of the instance of ``directory``, whose socket is the inherited one."""
    os.setsid()
    os.chdir(directory)
    listener = socket.socket(fileno=int(descriptor))
    listener.set_inheritable(False)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # What loses its parent in a container is ours to bury, the containers' first processes too.
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise SystemExit("prctl(PR_SET_CHILD_SUBREAPER) failed")
    monitor = Monitor(listener, exit_files)
    gc.freeze()
    monitor.run()
