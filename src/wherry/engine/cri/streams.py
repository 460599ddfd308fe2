"""Streams into containers: a command run to its end, one that somebody watches, a port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

from wherry.engine.cri.types import CRIError, ExecResult
from wherry.net import namespaces
from wherry.runtime.streams import ExecProcess

# No more of the output of a synchronous exec is kept, as in other runtimes.
EXEC_LIMIT = 16 << 20


class KilledAtClose:
    """An exec that does not outlive its client."""

    def __init__(self, inner: ExecProcess) -> None:
        self._inner = inner
        # By descriptor: the number may be another process's by the time of the close.
        try:
            self._pidfd = os.pidfd_open(inner.pid)
        except ProcessLookupError:
            self._pidfd = -1
        self.read = inner.read
        self.write = inner.write
        self.close_stdin = inner.close_stdin
        self.resize = inner.resize
        self.wait = inner.wait

    async def close(self) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            os.close(self._pidfd)
            self._pidfd = -1
        await self._inner.close()


async def run_to_end(started: KilledAtClose, cmd: Sequence[str], timeout: float) -> ExecResult:
    """What ``cmd`` says, and how it ends; killed after ``timeout`` seconds (0: never).

    Raises:
        CRIError: it was.
    """
    output = {1: bytearray(), 2: bytearray()}
    try:
        async with asyncio.timeout(timeout or None):
            while (piece := await started.read())[0]:
                kept = output[piece[0]]
                kept += piece[1][: EXEC_LIMIT - len(kept)]
            code = await started.wait()
    except TimeoutError:
        raise CRIError(
            f'command "{" ".join(cmd)}" timed out: timeout {timeout:g}s exceeded',
            "DeadlineExceeded",
        ) from None
    finally:
        await started.close()
    return ExecResult(code, bytes(output[1]), bytes(output[2]))


async def connect(sandbox_id: str, namespace: Path | None, port: int) -> int:
    """A TCP connection to ``port`` of a sandbox's loopback; the caller closes it. Its network
    namespace None is the host's.

    Raises:
        CRIError: nobody listens there.
    """
    connection = await asyncio.to_thread(_socket_in, namespace)
    try:
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, ("127.0.0.1", port))
    except OSError as error:
        connection.close()
        reason = os.strerror(error.errno or 0).lower()
        raise CRIError(
            f"failed to connect to localhost:{port} inside namespace {sandbox_id}: {reason}"
        ) from None
    return connection.detach()


def _socket_in(namespace: Path | None) -> socket.socket:
    """A TCP socket that belongs to a network namespace; None is the host's. Blocks."""
    if namespace is None:
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with namespaces.enter(namespace):
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
