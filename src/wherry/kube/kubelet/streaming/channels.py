"""What a remote command needs of the connection to its client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from wherry.wire.remotecommand import Channel

PATIENCE = 3600.0
"""Seconds in which a client that is still there may take the last of what it was sent (it may show
it page by page). It tells that it has by closing the connection; whoever closed it before would cut
off what is on its way."""


class ClientGone(Exception):
    """The client has closed the connection."""


class Channels(Protocol):
    """The five channels of one command."""

    def stdin(self) -> AsyncIterator[bytes]:
        """What the client sends to the command; ends when the client ends it, or goes away."""

    def sizes(self) -> AsyncIterator[tuple[int, int]]:
        """Sizes of the client's terminal (width, height), as they change."""

    async def write(self, channel: Channel, data: bytes) -> None:
        """Send output.

        Raises:
            ClientGone: nobody is there to read it.
        """

    async def wait_gone(self) -> None:
        """Return when the client has closed the connection."""

    async def finish(self, status: Mapping[str, Any]) -> None:
        """Tell how the command ended, and close the connection once the client has taken all."""
