"""Where the API is reached: the unix socket, and TCP for clients that prove who they are."""

from __future__ import annotations

import asyncio
import grp
import logging
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wherry.engine.errors import EngineError
from wherry.host.tls import TLSServerProtocol, mutual

log = logging.getLogger(__name__)

SOCKET_GROUP = "docker"
BACKLOG = 128


@dataclass(frozen=True, slots=True)
class TLSAddress:
    """A TCP address, the keys to serve it with, and the authority whose clients are let in."""

    host: str
    port: int
    authority: Path
    certificate: Path
    key: Path

    def __str__(self) -> str:
        return f"tcp://[{self.host}]:{self.port}" if ":" in self.host else self._plain()

    def _plain(self) -> str:
        return f"tcp://{self.host}:{self.port}"


def bind_unix(path: Path) -> socket.socket:
    """A listening place at ``path`` that nobody can reach before its mode is right."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Linux makes the name with the socket's own mode (``unix_bind_bsd`` of the kernel). A umask
    # would hold for all threads: also for those that make directories of containers meanwhile.
    os.fchmod(listener.fileno(), 0o600)
    listener.bind(str(path))
    try:
        os.chown(path, -1, grp.getgrnam(SOCKET_GROUP).gr_gid)
    except KeyError:
        log.debug("there is no group %s; the socket is for root alone", SOCKET_GROUP)
    path.chmod(0o660)
    return listener


class TLSListener:
    """Serves at a ``TLSAddress``; without a certificate of its authority nobody gets in."""

    def __init__(self, address: TLSAddress, factory: Callable[[], asyncio.Protocol]) -> None:
        self._address = address
        self._factory = factory
        self._context = _context(address)
        self._server: asyncio.AbstractServer | None = None

    async def listen(self) -> None:
        """Begin to serve.

        Raises:
            EngineError: the address is not to be had.
        """
        loop = asyncio.get_running_loop()
        address = self._address
        try:
            self._server = await loop.create_server(
                lambda: TLSServerProtocol(self._context, self._factory),
                address.host or None,
                address.port,
                backlog=BACKLOG,
                reuse_address=True,
            )
        except OSError as error:
            raise EngineError(f"cannot listen on {address}: {error}") from error
        log.info("the Engine API listens on %s, with TLS", address)

    def reload(self) -> None:
        """Use the keys as they are now for connections to come; broken ones change nothing."""
        try:
            self._context = _context(self._address)
        except EngineError as error:
            log.error("%s; the former keys stay", error.message)

    def close(self) -> None:
        """Take no more connections."""
        if self._server is not None:
            self._server.close()


def _context(address: TLSAddress) -> ssl.SSLContext:
    try:
        return mutual(address.authority, address.certificate, address.key)
    except (OSError, ssl.SSLError) as error:
        raise EngineError(f"the keys for {address} cannot be used: {error}") from error
