"""Services answered by this process: each port of one listens here and passes on what it is sent.

That is mode ``userspace`` of a service proxy. The kernel leads clients to these ports
(by the maps of ``nftables``, to which a Service has no other endpoints than these); here each of
them is given an endpoint: one after the other, or the one it had before where the Service keeps its
clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from wherry.net.relay import Relay
from wherry.net.service.ports import Endpoint, Key, ServicePort, family_of

_ROLES = ("inside", "outside", "everywhere")
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
PROTOCOLS = frozenset(_KINDS)
# Seconds in which a datagram may be answered: every one of a name server's clients has a socket.
_IDLE = 5.0


class Clients:
    """Which endpoint the clients of a Service were given. Pure.

    ``seconds`` is how long one is kept after the client's last connection; 0: not at all.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = 0
        self._clock = clock
        self._given: dict[str, tuple[Endpoint, float]] = {}
        self._swept = 0.0

    def given(self, client: str) -> Endpoint | None:
        """What ``client`` is to keep."""
        endpoint, used = self._given.get(client, (None, 0.0))
        return endpoint if self._clock() - used < self.seconds else None

    def give(self, client: str, endpoint: Endpoint) -> None:
        """``client`` is led to ``endpoint`` now."""
        now = self._clock()
        if not self.seconds:
            self._given.clear()
            return
        if now - self._swept > self.seconds:
            self._given = {c: g for c, g in self._given.items() if now - g[1] < self.seconds}
            self._swept = now
        self._given[client] = endpoint, now


class Balancer:
    """Endpoints, of which each client is given one in turn."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._endpoints: tuple[Endpoint, ...] = ()
        self._next = 0

    def set(self, endpoints: Sequence[Endpoint]) -> None:
        """These answer from now on."""
        self._endpoints = tuple(endpoints)

    def choose(self, client: str) -> list[Endpoint]:
        """Whom to ask for ``client``, one after the other until somebody answers."""
        if not self._endpoints:
            return []
        kept = self._clients.given(client)
        if kept in self._endpoints:
            start = self._endpoints.index(kept)
        else:
            start = self._next % len(self._endpoints)
            self._next = start + 1
        order = [*self._endpoints[start:], *self._endpoints[:start]]
        self._clients.give(client, order[0])
        return order


class _Port:
    """A port that listens here for one kind of a Service's clients."""

    def __init__(self, family: str, protocol: str, address: str, clients: Clients) -> None:
        version = socket.AF_INET6 if family == "ip6" else socket.AF_INET
        self.balancer = Balancer(clients)
        with contextlib.ExitStack() as stack:
            self._socket = stack.enter_context(socket.socket(version, _KINDS[protocol]))
            self._socket.setblocking(False)
            self._socket.bind((address, 0))
            if protocol == "tcp":
                self._socket.listen(1024)
            stack.pop_all()
        self.place: Endpoint = (address, self._socket.getsockname()[1])
        self._relay = Relay(self._socket, self.balancer.choose, idle=_IDLE)

    async def open(self) -> None:
        await self._relay.open()

    def set(self, endpoints: Sequence[Endpoint]) -> None:
        self.balancer.set(endpoints)
        self._relay.keep(endpoints)

    def close(self) -> None:
        self._relay.close()
        self._socket.close()


class Balancers:
    """Every port that listens here.

    Args:
        addresses: this machine's, where clients are led: at most one a family.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = {family_of(at): at for at in addresses}
        self._clients: dict[Key, Clients] = {}
        self._ports: dict[tuple[Key, str], _Port] = {}

    async def serve(self, served: ServicePort) -> ServicePort | None:
        """Listen for ``served``; returns the same with this machine in the place of endpoints.

        None: this machine has no address of the family, or cannot balance the protocol. What
        nobody asks for any more listens until ``close``, for clients still come.

        Raises:
            OSError: there is no port left.
        """
        address = self._addresses.get(served.family)
        if address is None or served.protocol not in PROTOCOLS:
            return None
        clients = self._clients.setdefault(served.key, Clients())
        clients.seconds = served.affinity
        led: dict[str, tuple[Endpoint, ...]] = {}
        for role in _ROLES:
            endpoints: tuple[Endpoint, ...] = getattr(served, role)
            port = self._ports.get((served.key, role))
            if endpoints and port is None:
                port = _Port(served.family, served.protocol, address, clients)
                self._ports[served.key, role] = port
                port.set(endpoints)
                await port.open()
            elif port is not None:
                port.set(endpoints)
            led[role] = (port.place,) if port is not None and endpoints else ()
        return replace(
            served,
            inside=led["inside"],
            outside=led["outside"],
            everywhere=led["everywhere"],
            affinity=0,
            # We are to see who asks; endpoints see this machine anyway.
            masquerade=False,
        )

    def close(self, key: Key) -> None:
        """Listen no more for that port of a Service."""
        self._clients.pop(key, None)
        for role in _ROLES:
            port = self._ports.pop((key, role), None)
            if port is not None:
                port.close()

    @property
    def keys(self) -> set[Key]:
        """The Services' ports that are listened for."""
        return {key for key, _ in self._ports}

    async def stop(self) -> None:
        """Listen no more at all."""
        for key in self.keys:
            self.close(key)
        await asyncio.sleep(0)
