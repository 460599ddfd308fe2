"""The daemon's side of the monitor: starts it where there is none, and asks it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wherry.host.process import Child
from wherry.host.readiness import readable
from wherry.runtime.monitor import protocol
from wherry.runtime.types import RuntimeFailure

log = logging.getLogger(__name__)

_PROGRAM = Path(__file__).with_name("__main__.py")


class MonitorLost(RuntimeFailure):
    """The monitor ended before it could answer."""

    def __init__(self) -> None:
        super().__init__("the containers' monitor was killed")


@dataclass(frozen=True, slots=True)
class Holding:
    """What the monitor holds of one container; the descriptors are ours to close.

    ``ends`` are ``stdin``, ``stdout`` and ``stderr``, or ``terminal``. ``ended`` is the exit code
    and the time in nanoseconds since the epoch, None while it runs.
    """

    pid: int
    pidfd: int
    ends: Mapping[str, int]
    ended: tuple[int, int] | None = None

    def close(self) -> None:
        """Let go of all descriptors, where nobody has taken them."""
        _close((self.pidfd, *self.ends.values()))


class MonitorClient:
    """A connection to the monitor of one instance.

    ``on_exit`` is called with id, exit code and time when a container has ended, ``on_lost`` when
    the monitor has, with whether it ever answered: both on the event loop.
    """

    def __init__(
        self,
        connection: socket.socket,
        on_exit: Callable[[str, int, int], None],
        on_lost: Callable[[bool], None],
    ) -> None:
        self.pid = 0
        self._connection = connection
        self._on_exit = on_exit
        self._on_lost = on_lost
        self._serials = map(str, itertools.count(1))
        self._waiting: dict[str, asyncio.Future[tuple[list[str], list[int]]]] = {}
        self._greeted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pidfd = -1
        self._superseded = False
        self._child: Child | None = None
        self._sending = asyncio.Lock()
        self._blocked: asyncio.Future[None] | None = None
        asyncio.get_running_loop().add_reader(connection.fileno(), self._receive)

    @classmethod
    async def connect(
        cls,
        directory: Path,
        on_exit: Callable[[str, int, int], None],
        on_lost: Callable[[bool], None],
    ) -> MonitorClient | None:
        """Connect to the monitor that serves ``directory``; None where there is none."""
        try:
            connection = _connect(directory)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
                return None
            raise
        client = cls(connection, on_exit, lambda served: None)
        if not await client._greeted:
            return None  # it was about to end
        client._on_lost = on_lost
        return client

    @classmethod
    async def start(
        cls,
        directory: Path,
        exits: Path,
        on_exit: Callable[[str, int, int], None],
        on_lost: Callable[[bool], None],
        place: Callable[[int], None],
    ) -> MonitorClient:
        """Start a monitor for ``directory``, which has none; exit files go to ``exits``.

        ``place`` is given its pid before it has started anything. It can be asked at once; that it
        could not begin is told as its loss.
        """
        (directory / protocol.SOCKET).unlink(missing_ok=True)
        listener = _listen(directory)
        environment = {"PATH": os.environ.get("PATH", os.defpath)}
        with listener, (directory / "monitor.log").open("ab") as messages:
            # Connected before it runs: it ends when it has served nobody that needs it.
            client = cls(_connect(directory), on_exit, on_lost)
            command = [sys.executable, "-I", "-S", str(_PROGRAM)]
            command += [str(directory), str(exits), str(listener.fileno())]
            client._child = Child(
                command,
                stdout=subprocess.DEVNULL,
                stderr=messages.fileno(),
                pass_fds=(listener.fileno(),),
                env=environment,
            )
            client.pid = client._child.pid
            place(client.pid)
        return client

    # ---- requests

    async def create(
        self, id: str, bundle: Path, argv: Sequence[str], *, terminal: bool, stdin: bool
    ) -> Holding:
        """Run the OCI runtime's ``create``, ``argv`` without the id, which comes last.

        Raises:
            RuntimeFailure: with what it said, unparsed.
        """
        flags = "1" if terminal else "0", "1" if stdin else "0"
        return _holding(*await self._ask("create", id, str(bundle), *flags, *argv))

    async def take(self, id: str) -> Holding | None:
        """What is held of a container; None where it is not known."""
        try:
            return _holding(*await self._ask("take", id))
        except MonitorLost:
            raise
        except RuntimeFailure:
            return None

    async def drop_stdin(self, id: str) -> None:
        """From now on the daemon alone holds the container's standard input open."""
        await self._ask("drop-stdin", id)

    async def forget(self, id: str) -> None:
        """Let go of a container, known or not, and leave no exit file any more."""
        await self._ask("forget", id)

    async def adopt(self, id: str, held: Mapping[str, int]) -> None:
        """Hand over a running container of a monitor that was killed: ``pidfd`` and the ends."""
        await self._ask("adopt", id, ",".join(held), descriptors=list(held.values()))

    async def _ask(
        self, verb: str, *fields: str, descriptors: Sequence[int] = ()
    ) -> tuple[list[str], list[int]]:
        serial = next(self._serials)
        answer: asyncio.Future[tuple[list[str], list[int]]]
        answer = asyncio.get_running_loop().create_future()
        self._waiting[serial] = answer
        try:
            await self._send(protocol.pack(verb, serial, *fields), descriptors)
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                _close(answer.result()[1])  # it came just before
            raise
        finally:
            self._waiting.pop(serial, None)

    async def _send(self, data: bytes, descriptors: Sequence[int]) -> None:
        async with self._sending:
            while self._connection.fileno() >= 0:
                try:
                    socket.send_fds(self._connection, [data], descriptors)
                    return
                except BlockingIOError:
                    await self._room()
                except (BrokenPipeError, ConnectionResetError):
                    break
        raise MonitorLost

    async def _room(self) -> None:
        """Wait until the monitor takes more, or is lost."""
        loop = asyncio.get_running_loop()
        self._blocked = loop.create_future()
        loop.add_writer(self._connection.fileno(), self._unblock)
        try:
            await self._blocked
        finally:
            self._blocked = None
            if self._connection.fileno() >= 0:
                loop.remove_writer(self._connection.fileno())

    def _unblock(self) -> None:
        if self._blocked is not None and not self._blocked.done():
            self._blocked.set_result(None)

    # ---- what it says

    def _receive(self) -> None:
        try:
            fields, descriptors = protocol.receive(self._connection)
        except BlockingIOError:
            return
        except OSError:
            fields, descriptors = [], []
        match fields:
            case []:
                self._lost()
            case ["superseded"]:
                self._superseded = True
            case ["hello", pid]:
                self.pid = int(pid)
                self._pidfd = descriptors[0]
                self._greeted.set_result(True)
            case ["exit", id, code, finished_at]:
                self._on_exit(id, int(code), int(finished_at))
            case [verdict, serial, *rest]:
                self._answered(verdict, serial, rest, descriptors)

    def _answered(
        self, verdict: str, serial: str, fields: list[str], descriptors: list[int]
    ) -> None:
        waiting = self._waiting.get(serial)
        if waiting is None or waiting.done():  # whoever asked has been cancelled
            _close(descriptors)
        elif verdict == "done":
            waiting.set_result((fields, descriptors))
        else:
            waiting.set_exception(RuntimeFailure(fields[0]))

    def _lost(self) -> None:
        served = self._greeted.done()
        self._disconnect()
        if not served:
            self._greeted.set_result(False)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(MonitorLost())
        if self._superseded:
            log.error("another daemon has taken the containers over")
        else:
            self._on_lost(served)

    async def ended(self) -> None:
        """Wait for the end of a monitor that nobody needs any more; closes the connection."""
        await self._greeted
        if self._pidfd < 0:
            return
        pidfd = os.dup(self._pidfd)
        self._disconnect()
        try:
            await readable(pidfd)
        finally:
            os.close(pidfd)

    def close(self) -> None:
        """Leave it to itself, with its containers."""
        self._disconnect()
        if self._child is not None and self._child.running:
            self._child.release()

    def _disconnect(self) -> None:
        if self._connection.fileno() >= 0:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._connection.fileno())
            loop.remove_writer(self._connection.fileno())
            self._connection.close()
            self._unblock()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _holding(fields: Sequence[str], descriptors: Sequence[int]) -> Holding:
    pid, names, *ended = fields
    ends = dict(zip(names.split(","), descriptors, strict=True))
    status = (int(ended[0]), int(ended[1])) if ended else None
    return Holding(int(pid), ends.pop("pidfd"), ends, status)


@contextlib.contextmanager
def _short(directory: Path) -> Iterator[tuple[int, str]]:
    """A descriptor of ``directory``, and a path of the socket in it that is never too long."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor, f"/proc/self/fd/{descriptor}/{protocol.SOCKET}"
    finally:
        os.close(descriptor)


def _connect(directory: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        with _short(directory) as (_, path):
            connection.connect(path)
    except BaseException:
        connection.close()
        raise
    connection.setblocking(False)
    return connection


def _listen(directory: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        with _short(directory) as (descriptor, path):
            listener.bind(path)
            os.chmod(protocol.SOCKET, 0o600, dir_fd=descriptor)
        listener.listen(8)
    except BaseException:
        listener.close()
        raise
    return listener
