"""Readiness, told by the daemon to whoever started it, in the words of sd_notify(3)."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

_address = ""


def claim() -> None:
    """Take ``$NOTIFY_SOCKET`` out of the environment: it is for this daemon, not for its children.

    An OCI runtime that inherits it would wait for the container to send READY=1.
    """
    global _address
    _address = os.environ.pop("NOTIFY_SOCKET", "")


def give_back() -> None:
    """Put it there again: the daemon is about to begin anew, maybe before it was ready."""
    if _address:
        os.environ["NOTIFY_SOCKET"] = _address


def notify(state: str) -> None:
    """Send ``state`` (``READY=1``, ``STATUS=…``) to the claimed socket; without one, do nothing."""
    if not _address:
        return
    address = "\0" + _address[1:] if _address.startswith("@") else _address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        try:
            sender.connect(address)
            sender.sendall(state.encode())
        except OSError:
            return  # whoever started us no longer listens; that is no fault of the daemon


class NotifyListener:
    """The other end: a datagram socket at ``path`` that hears what a child says of itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        path.chmod(0o600)

    async def receive(self) -> dict[str, str]:
        """The next message, as its assignments."""
        data = await asyncio.get_running_loop().sock_recv(self._socket, 4096)
        lines = data.decode(errors="replace").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def close(self) -> None:
        """Stop listening and remove the socket."""
        self._socket.close()
        self.path.unlink(missing_ok=True)
