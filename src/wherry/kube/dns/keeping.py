"""The node's side of the process that answers: found or started, told of the cluster, kept there.

The node holds the sockets, too. So a process that dies is followed by another while questions wait
in them; and when the node dies the process goes on with what it knows, and gives the next node the
sockets. That one tells it everything anew; until it has, what was true before is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import wherry
from wherry.host.pidfile import running_pid
from wherry.host.process import Child
from wherry.host.readiness import readable
from wherry.kube.client.backoff import Backoff
from wherry.kube.dns import listening
from wherry.kube.dns.following import Follower
from wherry.kube.dns.listening import Pair
from wherry.kube.dns.telling import PID_FILE, SOCKET, Told, pack

log = logging.getLogger(__name__)

_GREETING = 30.0  # seconds until a process that was started must have said something
_END = 5.0  # seconds until one that was told to end must have
_UNREAD = 64 * 1024 * 1024  # bytes that a process may leave unread before it counts as hung
_MOST_SOCKETS = 8


class Keeper:
    """Keeps the cluster's name server on this node.

    Args:
        follower: what there is to tell.
        directory: for its socket and its pid file.
        port: to listen at; 0 for any.
    """

    def __init__(self, follower: Follower, directory: Path, *, port: int = 53) -> None:
        self._follower = follower
        self._directory = directory
        self._port = port
        self._sockets: list[Pair] = []
        self._child: Child | None = None

    async def run(self) -> None:
        """Have questions answered until cancelled, and after that."""
        following = asyncio.create_task(self._follower.run())
        try:
            addresses = await self._follower.addresses
            await self._follower.synced()
            backoff = Backoff(0.02, 10)
            while True:
                try:
                    connection = await self._reach(addresses)
                except (OSError, TimeoutError) as error:
                    log.error("the name server does not start: %s", error)
                    await asyncio.sleep(backoff.next())
                    continue
                began = asyncio.get_running_loop().time()
                await self._tell(connection)
                if asyncio.get_running_loop().time() - began > 1:
                    backoff.reset()
                log.warning("the name server has ended: another one is started")
                await asyncio.sleep(backoff.next())
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            if self._child is not None and self._child.running:
                self._child.release()
            listening.close(self._sockets)

    async def _tell(self, connection: socket.socket) -> None:
        """Tell everything, then each change, until there is nobody to tell."""
        loop = asyncio.get_running_loop()
        lost = asyncio.Event()
        transport, _ = await loop.create_connection(lambda: _Telling(lost), sock=connection)

        def tell(told: Told) -> None:
            transport.write(pack(told))
            if transport.get_write_buffer_size() > _UNREAD:
                log.error("the name server does not listen: it is killed")
                _signal(self._directory, signal.SIGKILL)
                transport.abort()

        try:
            self._follower.attach(tell)
            await lost.wait()
        finally:
            self._follower.attach(None)
            transport.close()

    async def _reach(self, addresses: Sequence[str]) -> socket.socket:
        """A connection to a process that has our sockets; one is started where there is none.

        Raises:
            OSError, TimeoutError: it cannot be.
        """
        if running_pid(self._directory / PID_FILE) is not None:
            with contextlib.suppress(OSError, TimeoutError):
                connection, version, sockets = await self._connect()
                fits = _addresses(sockets) == list(addresses)
                if fits:
                    listening.close(self._sockets)
                    self._sockets = sockets
                else:
                    listening.close(sockets)
                if fits and version == wherry.__version__:
                    return connection
                connection.close()
            await stop(self._directory)
        if _addresses(self._sockets) != list(addresses):
            listening.close(self._sockets)
            self._sockets = []
            self._sockets = listening.bind(addresses, self._port)
        self._start()
        connection, _, sockets = await self._connect()
        listening.close(sockets)
        return connection

    def _start(self) -> None:
        path = self._directory / SOCKET
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as control:
            control.bind(str(path))
            path.chmod(0o600)
            control.listen(1)
            passed = [
                control.fileno(),
                *(each.fileno() for each in chain.from_iterable(self._sockets)),
            ]
            argv = [
                sys.executable,
                "-m",
                "wherry.kube.dns",
                str(self._directory),
                *map(str, passed),
            ]
            self._child = Child(argv, stderr=2, pass_fds=passed, cwd=Path("/"))

    async def _connect(self) -> tuple[socket.socket, str, list[Pair]]:
        """A connection, and what the process greets with: its version, its sockets.

        Raises:
            OSError, TimeoutError: there is none, or it is silent.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connection.setblocking(False)
            connection.connect(str(self._directory / SOCKET))
            async with asyncio.timeout(_GREETING):
                await readable(connection.fileno())
            flags = socket.MSG_CMSG_CLOEXEC
            hello, descriptors, _, _ = socket.recv_fds(connection, 4096, _MOST_SOCKETS, flags)
            if not hello:
                raise ConnectionResetError("it ended before it said anything")
        except BaseException:
            connection.close()
            raise
        found = [socket.socket(fileno=number) for number in descriptors]
        pairs = list(zip(found[::2], found[1::2], strict=True))
        return connection, json.loads(hello)["version"], pairs


def _addresses(pairs: Sequence[Pair]) -> list[str]:
    return [datagrams.getsockname()[0] for datagrams, _ in pairs]


def _signal(directory: Path, number: int) -> int | None:
    """Send a signal to the process; a descriptor by which its end is seen, None without one."""
    pid = running_pid(directory / PID_FILE)
    if pid is None:
        return None
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if running_pid(directory / PID_FILE) == pid:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, number)
    return descriptor


async def stop(directory: Path) -> None:
    """End the process that answers, where one was left."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        descriptor = _signal(directory, number)
        if descriptor is None:
            return
        try:
            async with asyncio.timeout(_END):
                await readable(descriptor)
            return
        except TimeoutError:
            continue
        finally:
            os.close(descriptor)


class _Telling(asyncio.Protocol):
    def __init__(self, lost: asyncio.Event) -> None:
        self._lost = lost

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()
