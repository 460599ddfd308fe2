"""The socket on which an OCI runtime hands over the pseudo terminal that it made in a container.

https://github.com/opencontainers/runc/blob/main/docs/terminals.md ("Detached")
"""

import contextlib
import os
import socket


class ConsoleSocket:
    """A listening socket in ``directory``; ``path`` names it for the OCI runtime.

    That path is short whatever ``directory`` is called: the runtime sees it through our descriptor.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._name = f"console.{os.urandom(6).hex()}"
        self.path = f"/proc/{os.getpid()}/fd/{self._directory}/{self._name}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.bind(f"/proc/self/fd/{self._directory}/{self._name}")
            self._socket.listen(1)
            self._socket.setblocking(False)
        except BaseException:
            self.close()
            raise

    def receive(self) -> int:
        """The terminal's master, which the runtime sent before it said that all was well.

        Raises:
            OSError: it has not.
        """
        with self.accept() as connection:
            return receive_terminal(connection)

    def fileno(self) -> int:
        """Readable when the runtime has connected."""
        return self._socket.fileno()

    def accept(self) -> socket.socket:
        """The runtime's connection, on which the terminal comes."""
        connection, _ = self._socket.accept()
        connection.setblocking(False)
        return connection

    def close(self) -> None:
        """Remove the socket."""
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._directory)
        os.close(self._directory)


def receive_terminal(connection: socket.socket) -> int:
    """The master that has come on ``connection``.

    Raises:
        OSError: none has.
    """
    _, descriptors, _, _ = socket.recv_fds(connection, 4096, 1, socket.MSG_CMSG_CLOEXEC)
    if not descriptors:
        raise ConnectionError("no terminal came with the runtime's message")
    os.set_blocking(descriptors[0], False)
    return descriptors[0]
