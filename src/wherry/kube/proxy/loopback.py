"""Node ports at ::1, which rules cannot serve: whatever is sent to ::1 never leaves the machine.

So this process listens there, and asks the node port of the machine's other address in its turn.
(At 127.0.0.1 the rules serve: IPv4 lets connections of that address leave where one asks for it.)
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence

from wherry.kube.proxy.modes import Changes, Mode, Wanted
from wherry.net.relay import Address, Relay
from wherry.net.service.ports import Key, ServicePort

log = logging.getLogger(__name__)

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class _Held:
    """A node port at ::1."""

    def __init__(self, protocol: str, port: int, target: Address) -> None:
        self._socket = socket.socket(socket.AF_INET6, _KINDS[protocol])
        try:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if protocol == "tcp":
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(("::1", port))
            if protocol == "tcp":
                self._socket.listen(1024)
        except BaseException:
            self._socket.close()
            raise
        self.port = port
        self._relay = Relay(self._socket, lambda _client: (target,))

    async def open(self) -> None:
        await self._relay.open()

    def close(self) -> None:
        self._relay.close()
        self._socket.close()


class WithLoopback:
    """A mode, and node ports at ::1 besides.

    ``address`` is the machine's own of IPv6, at which the mode serves node ports.
    """

    def __init__(self, mode: Mode, address: str) -> None:
        self.name = mode.name
        self.protocols = mode.protocols
        self._mode = mode
        self._address = address
        self._held: dict[Key, _Held] = {}

    async def start(self, wanted: Wanted) -> None:
        """As the mode's."""
        await self._mode.start(wanted)
        gone = dict.fromkeys(self._held.keys() - wanted.keys())
        await self._hold({**gone, **wanted})

    async def change(self, changes: Changes) -> None:
        """As the mode's."""
        await self._mode.change(changes)
        await self._hold(changes)

    async def use(self, services: Sequence[str]) -> None:
        """As the mode's."""
        await self._mode.use(services)

    async def stop(self) -> None:
        """Serve no more there."""
        for held in self._held.values():
            held.close()
        self._held.clear()
        await self._mode.stop()

    async def _hold(self, changes: Changes) -> None:
        for key, served in changes.items():
            wanted = _port(served)
            held = self._held.get(key)
            if held is not None and held.port != wanted:
                del self._held[key]
                held.close()
                held = None
            if held is None and wanted:
                await self._open(key, wanted)

    async def _open(self, key: Key, port: int) -> None:
        name, protocol, _ = key
        try:
            held = _Held(protocol, port, (self._address, port))
        except OSError as error:
            log.warning("node port %d of %s is not served at ::1: %s", port, name, error)
            return
        self._held[key] = held
        await held.open()


def _port(served: ServicePort | None) -> int:
    """The node port at ::1; 0 for none, or for one without endpoints: listening is no refusal."""
    if served is None or served.family != "ip6" or served.protocol not in _KINDS:
        return 0
    return served.node_port if served.outside or served.everywhere else 0
