"""The live ends of a contained process: reached through its monitor, or held directly by exec.

Both kinds offer what ``engine.cri.types.ProcessStream`` asks for. Nothing is buffered here while
the process lives: a client that does not read stops the process at its pipe, as it should be.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import socket
import struct
import termios
from collections import deque
from collections.abc import Callable
from pathlib import Path

from wherry.host.process import Child, exit_status
from wherry.host.readiness import writable
from wherry.runtime import conmon

_CHUNK = 1 << 18
_STREAMS = {2: 1, 3: 2}  # conmon's numbers of stdout and stderr, and ours


def control(bundle: Path, command: bytes) -> bool:
    """Give the monitor of ``bundle`` a command; False where it has ended.

    Raises:
        OSError: for any other reason.
    """
    try:
        descriptor = os.open(bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO):
            return False
        raise
    try:
        os.write(descriptor, command)
    except BrokenPipeError:
        return False
    finally:
        os.close(descriptor)
    return True


class ContainerStream:
    """A connection to a container's monitor (conmon's attach socket).

    ``exit_code`` gives the code when the container ends; ``half_close`` is whether an end of input
    is passed on (conmon then closes the container's standard input).
    """

    def __init__(
        self,
        connection: socket.socket,
        bundle: Path,
        exit_code: asyncio.Future[int],
        *,
        half_close: bool,
    ) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._bundle = bundle
        self._exit_code = exit_code
        self._half_close = half_close
        self._buffer = bytearray(_CHUNK + conmon.OUTPUT_PACKET)
        self._view = memoryview(self._buffer)
        self._tag = bytearray(1)
        self._ready: deque[tuple[int, bytes]] = deque()
        self._ended = False
        self._absorbing = False
        self._wake: asyncio.Future[None] | None = None
        # Says whether the connection must stay although its user has gone.
        self.on_close: Callable[[ContainerStream], bool] | None = None

    async def read(self) -> tuple[int, bytes]:
        """The next output as (1 for stdout or 2 for stderr, data); ``(0, b"")`` at the end."""
        while True:
            if self._ready:
                return self._ready.popleft()
            if self._ended or self._socket.fileno() < 0:
                return 0, b""
            if self._absorbing or not self._pull():
                await self._wait()

    async def _wait(self) -> None:
        """Until the socket has something, or ``absorb`` has put something aside."""
        loop = asyncio.get_running_loop()
        self._wake = loop.create_future()
        if not self._absorbing:
            loop.add_reader(self._socket.fileno(), self._on_readable)
        try:
            await self._wake
        finally:
            self._wake = None
            if not self._absorbing and self._socket.fileno() >= 0:
                loop.remove_reader(self._socket.fileno())

    def _on_readable(self) -> None:
        if self._absorbing:
            while not self._ended and self._pull():
                pass
            if self._ended:
                asyncio.get_running_loop().remove_reader(self._socket.fileno())
            if not self._ready and not self._ended:
                return
        self._wake_reader()

    def _wake_reader(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _pull(self) -> bool:
        """Take what is there, up to a chunk; whether there was anything, the end included.

        Packets of one stream are received one behind the other into one buffer, the byte that
        names the stream aside, so that many small packets make one large piece of data.
        """
        filled, stream = 0, 0
        while filled < _CHUNK:
            try:
                size = self._socket.recvmsg_into([self._tag, self._view[filled:]])[0]
            except BlockingIOError:
                break
            except ConnectionResetError:
                continue  # it went with input of ours unread; its last words are still to come
            if size == 0:
                self._ended = True
                break
            tag = _STREAMS.get(self._tag[0], 1)
            if stream not in (0, tag):
                self._ready.append((stream, bytes(self._view[:filled])))
                self._ready.append((tag, bytes(self._view[filled : filled + size - 1])))
                return True
            stream, filled = tag, filled + size - 1
        if filled:
            self._ready.append((stream, bytes(self._view[:filled])))
        return filled > 0 or self._ended

    def absorb(self) -> None:
        """Take all that comes from now on into memory, whether or not anybody reads.

        The container has ended: what its monitor still has is little, and the monitor cannot tell
        of the end before it has handed it over. A client that stopped reading must not keep it.
        """
        if self._absorbing or self._ended or self._socket.fileno() < 0:
            return
        self._absorbing = True
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._on_readable)
        self._wake_reader()

    async def write(self, data: bytes) -> None:
        """Send ``data`` to the standard input.

        Raises:
            BrokenPipeError: the container has ended.
        """
        view = memoryview(data)
        while view:
            try:
                sent = self._socket.send(view[: conmon.STDIN_PACKET])
            except BlockingIOError:
                await writable(self._socket.fileno())
                continue
            except OSError as error:
                raise BrokenPipeError(errno.EPIPE, "the container has ended") from error
            view = view[sent:]

    async def close_stdin(self) -> None:
        """End the standard input, where the container was made to end with its first client."""
        if self._half_close:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    async def resize(self, width: int, height: int) -> None:
        """Tell the terminal its size in characters."""
        control(self._bundle, conmon.resize_command(width, height))

    async def wait(self) -> int:
        """The container's exit code, when it has ended."""
        return await asyncio.shield(self._exit_code)

    async def close(self) -> None:
        """Detach; the container goes on."""
        if self._socket.fileno() < 0:
            return
        if self.on_close is None or not self.on_close(self):
            self.disconnect()

    def disconnect(self) -> None:
        """Close the connection at once; a reader that waits sees the end."""
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
        self._wake_reader()

    def discard_until_end(self) -> None:
        """Keep the connection but throw away what comes, until the container's end."""
        self._ready.clear()
        descriptor = self._socket.fileno()
        loop = asyncio.get_running_loop()

        def drop() -> None:
            while self._pull():
                self._ready.clear()
                if self._ended:
                    loop.remove_reader(descriptor)
                    self._socket.close()
                    return

        loop.add_reader(descriptor, drop)


class ExecProcess:
    """A process that ``exec`` added to a container: our child runs it, we hold its ends.

    ``outputs`` maps a descriptor to 1 (stdout) or 2 (stderr); ``stdin`` is one to write to, or -1.
    A ``terminal`` is one descriptor for both. All are closed by this object.
    """

    def __init__(
        self, child: Child, pid: int, *, outputs: dict[int, int], stdin: int, terminal: bool
    ) -> None:
        self.pid = pid
        self._child = child
        self._outputs = outputs
        self._stdin = stdin
        self._terminal = terminal
        self._turn = 0
        self._closed = False
        self._wake: asyncio.Future[None] | None = None
        child.when_ended(self._wake_reader)

    async def read(self) -> tuple[int, bytes]:
        """The next output as (1 for stdout or 2 for stderr, data); ``(0, b"")`` at the end.

        The end is when the outputs are closed, or when the process has ended and nothing more is
        there: what it left in the background may hold the outputs open for ever.
        """
        while self._outputs:
            ended = not self._child.running
            if (found := self._read_some()) is not None:
                return found
            if ended or not self._outputs:
                break
            await self._wait()
        return 0, b""

    async def _wait(self) -> None:
        """Until an output has something, or the process has ended."""
        loop = asyncio.get_running_loop()
        self._wake = loop.create_future()
        for descriptor in self._outputs:
            loop.add_reader(descriptor, self._wake_reader)
        try:
            await self._wake
        finally:
            self._wake = None
            for descriptor in self._outputs:
                loop.remove_reader(descriptor)

    def _wake_reader(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _read_some(self) -> tuple[int, bytes] | None:
        """Data of one output, each getting its turn; outputs that have ended are dropped."""
        descriptors = list(self._outputs)
        for offset in range(len(descriptors)):
            descriptor = descriptors[(self._turn + offset) % len(descriptors)]
            try:
                data = os.read(descriptor, _CHUNK)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno != errno.EIO:  # a terminal whose last user has gone
                    raise
                data = b""
            if data:
                self._turn += offset + 1
                return self._outputs[descriptor], data
            self._drop(descriptor)
        return None

    def _drop(self, descriptor: int) -> None:
        del self._outputs[descriptor]
        if descriptor == self._stdin:
            self._stdin = -1
        os.close(descriptor)

    async def write(self, data: bytes) -> None:
        """Send ``data`` to the standard input.

        Raises:
            BrokenPipeError: the process has closed it, or was started without one.
        """
        view = memoryview(data)
        while view:
            if self._stdin < 0:
                raise BrokenPipeError(errno.EPIPE, "the standard input is closed")
            try:
                view = view[os.write(self._stdin, view) :]
            except BlockingIOError:
                await writable(self._stdin)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                raise BrokenPipeError(errno.EPIPE, "the terminal is closed") from error

    async def close_stdin(self) -> None:
        """End the standard input; a terminal stays open, its end of input is a key."""
        if self._stdin >= 0 and not self._terminal:
            os.close(self._stdin)
            self._stdin = -1

    async def resize(self, width: int, height: int) -> None:
        """Tell the terminal its size in characters."""
        if self._terminal and self._outputs:
            descriptor = next(iter(self._outputs))
            size = struct.pack("HHHH", height, width, 0, 0)
            with contextlib.suppress(OSError):
                fcntl.ioctl(descriptor, termios.TIOCSWINSZ, size)
            # A runtime that relays to a terminal of its own is not told by the kernel.
            self._child.kill(signal.SIGWINCH)

    async def wait(self) -> int:
        """The exit code, 128 + n for signal n."""
        return exit_status(await self._child.wait())

    async def close(self) -> None:
        """Let go of the streams; the process goes on."""
        if self._closed:
            return
        self._closed = True
        if self._stdin >= 0 and self._stdin not in self._outputs:
            os.close(self._stdin)
        self._stdin = -1
        loop = asyncio.get_running_loop()
        for descriptor in self._outputs:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        self._outputs.clear()
        self._wake_reader()
