"""Ask other name servers what ours does not know.

A query goes on byte for byte, by the transport it came by: EDNS0 and truncation stay between the
client and who knows the answer. Nothing is kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from wherry.net import name_sockets
from wherry.net.name_query import ask

log = logging.getLogger(__name__)

TIMEOUT = 4.0  # seconds for each server
MAX_SERVERS = 3
PORT = 53
_NOERROR, _NXDOMAIN = 0, 3


@dataclass(frozen=True, slots=True)
class Upstream:
    """A name server; ``from_host`` where only this machine reaches it (its own loopback)."""

    address: str
    from_host: bool = False
    port: int = PORT


async def forward(
    query: bytes,
    upstreams: Sequence[Upstream],
    namespace: Path | None,
    *,
    datagram: bool,
    timeout: float = TIMEOUT,
) -> bytes | None:
    """The best answer of ``upstreams``, asked one after the other from inside ``namespace``.

    As in Docker, the first that knows the name is believed, and an authority that says there is no
    such name; other refusals count only when nobody says better. None where nobody answers.
    """
    best: bytes | None = None
    for upstream in upstreams[:MAX_SERVERS]:
        place = None if upstream.from_host else namespace
        opened = partial(name_sockets.client, namespace=place)
        server = upstream.address, upstream.port
        try:
            async with asyncio.timeout(timeout):
                reply = await ask(query, server, datagram=datagram, opened=opened)
        except (OSError, EOFError, TimeoutError) as error:
            log.debug("name server %s: %s", upstream.address, error or type(error).__name__)
            continue
        if _final(reply):
            return reply
        best = reply
    return best


def _final(reply: bytes) -> bool:
    code, authoritative = reply[3] & 0xF, bool(reply[2] & 0x4)
    return code == _NOERROR or (code == _NXDOMAIN and authoritative)
