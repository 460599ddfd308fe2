"""The driver ``journald``: messages with fields, to the journal of systemd where there is one.

A message is one datagram of lines ``NAME=value``; a value with a newline stands behind its length
instead (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/). One that is too large for a datagram is
handed over in a sealed memory file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from wherry.engine.logs import options
from wherry.engine.logs.files import LogFile
from wherry.engine.logs.info import Info
from wherry.engine.logs.types import Piece
from wherry.host.readiness import writable
from wherry.wire.docker_stream import STDERR

NAME = "journald"
OPTIONS = frozenset(("labels", "labels-regex", "env", "env-regex", "tag"))
SOCKET = Path("/run/systemd/journal/socket")

_ERROR, _INFORMATION = "3", "6"


def check(config: Mapping[str, str]) -> None:
    """Whether the driver knows all options.

    Raises:
        BadParameter: it does not.
    """
    options.check_known(config, OPTIONS, "unknown log opt '{}' for journald log driver")


def field_name(text: str) -> str:
    """``text`` as the name of a field: capital letters, digits and underscores, but not first."""
    return re.sub(r"[^A-Z0-9]", "_", re.sub(r"[a-z]", lambda m: m[0].upper(), text)).lstrip("_")


def encode(fields: Mapping[str, bytes]) -> bytes:
    """A message of the journal's native protocol."""
    output = bytearray()
    for name, value in fields.items():
        output += name.encode()
        if b"\n" in value:
            output += b"\n" + struct.pack("<Q", len(value))
        else:
            output += b"="
        output += value + b"\n"
    return bytes(output)


class Writer:
    """Sends the log of one run.

    Raises:
        ValueError: an option makes no sense, or there is no journal.
    """

    file: LogFile | None = None

    def __init__(self, info: Info, path: Path | None = None) -> None:
        self._path = path or SOCKET
        if not self._path.is_socket():
            raise ValueError("journald is not enabled on this host")
        tag = info.tag("{{.ID}}")
        fields = {
            "CONTAINER_ID": info.id[:12],
            "CONTAINER_ID_FULL": info.id,
            "CONTAINER_NAME": info.name,
            "CONTAINER_TAG": tag,
            "IMAGE_NAME": info.image_name,
            "SYSLOG_IDENTIFIER": tag,
            **info.attributes(field_name),
        }
        self._fields = {name: value.encode() for name, value in fields.items() if name}
        self._socket: socket.socket | None = None

    async def connect(self) -> None:
        """Find the journal, or find it again after its restart.

        Raises:
            OSError: it is not there.
        """
        await self.close()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._socket.connect(str(self._path))

    async def write(self, pieces: Sequence[Piece]) -> None:
        """Send ``pieces``.

        Raises:
            OSError: the journal does not take them.
        """
        for piece in pieces:
            for line in piece.lines:
                await self._send(encode(self._message(piece, line)))

    def _message(self, piece: Piece, line: bytes) -> dict[str, bytes]:
        priority = _ERROR if piece.stream == STDERR else _INFORMATION
        fields = {"PRIORITY": priority.encode(), "MESSAGE": line, **self._fields}
        if (partial := piece.partial) is not None:
            fields["CONTAINER_PARTIAL_ID"] = partial.id.encode()
            fields["CONTAINER_PARTIAL_ORDINAL"] = str(partial.ordinal).encode()
            fields["CONTAINER_PARTIAL_LAST"] = b"true" if partial.last else b"false"
            if not partial.last:
                fields["CONTAINER_PARTIAL_MESSAGE"] = b"true"
        return fields

    async def _send(self, message: bytes) -> None:
        if self._socket is None:
            await self.connect()
        for attempt in range(2):
            assert self._socket is not None
            try:
                await _send(self._socket, message)
                return
            except (ConnectionError, FileNotFoundError):
                if attempt:
                    raise
                await self.connect()

    async def settle(self) -> None:
        """Nothing waits here."""

    async def close(self) -> None:
        """Close the socket."""
        self.abandon()

    def abandon(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


async def _send(connected: socket.socket, message: bytes) -> None:
    while True:
        try:
            connected.send(message)
            return
        except BlockingIOError:
            await writable(connected.fileno())
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            _send_file(connected, message)
            return


def _send_file(connected: socket.socket, message: bytes) -> None:
    file = os.memfd_create("message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(file, message)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
        socket.send_fds(connected, [b""], [file])
    finally:
        os.close(file)
