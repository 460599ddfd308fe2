"""The ways of leading clients to endpoints, one a mode of kube-proxy's configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from wherry.net.link.routes import link_to
from wherry.net.service.ports import PROTOCOLS, Key, ServicePort
from wherry.net.service.stale_flows import end_stale
from wherry.net.service.userspace import PROTOCOLS as BALANCED
from wherry.net.service.userspace import Balancers

NFTABLES, IPTABLES, USERSPACE = "nftables", "iptables", "userspace"
MODES = (NFTABLES, IPTABLES, USERSPACE)

Wanted = Mapping[Key, ServicePort]
Changes = Mapping[Key, ServicePort | None]


class Mode(Protocol):
    """How what is served becomes so."""

    name: str
    protocols: frozenset[str]  # that it can serve

    async def start(self, wanted: Wanted) -> None:
        """Serve ``wanted``, whatever was served before, and in whichever mode."""

    async def change(self, changes: Changes) -> None:
        """Serve something else from now on; None ends it. After an error ``start`` must follow."""

    async def use(self, services: Sequence[str]) -> None:
        """Let cluster IPs be of these ranges from now on. After an error ``start`` must follow."""

    async def stop(self) -> None:
        """The process ends; what can go on without it does."""


class Rules(Protocol):
    """Rules of the kernel that serve: ``NftablesServices``, ``IptablesServices``."""

    async def start(self, wanted: Wanted) -> None:
        """Make them serve ``wanted``, whatever a former process left."""

    async def change(self, changes: Changes) -> None:
        """Change what is served."""

    async def use(self, services: Sequence[str]) -> None:
        """Let cluster IPs be of these ranges."""

    async def accept_loopback(self, links: Sequence[str]) -> None:
        """Let connections from 127.0.0.1 leave by ``links``."""

    async def refuse_loopback(self, keep: Iterable[str] = ()) -> None:
        """Undo that, except for links to ``keep``."""

    async def remove(self) -> None:
        """Take the rules away."""


class KernelMode:
    """By rules alone: elements of nftables' maps, or chains of iptables.

    ``other`` are the rules of the other of these two, which go once ours are there. By ``bridge``,
    behind which this node's pods are, connections from 127.0.0.1 leave in any mode, for host ports.
    """

    def __init__(self, name: str, rules: Rules, other: Rules, bridge: str) -> None:
        self.name = name
        self.protocols = frozenset(PROTOCOLS)
        self._rules = rules
        self._other = other
        self._bridge = bridge
        self._datagrams = _Datagrams()
        self._links: dict[str, str] = {}  # by an endpoint's address
        self._opened: set[str] = set()

    async def start(self, wanted: Wanted) -> None:
        """Serve ``wanted``.

        Raises:
            NftError, OSError: the kernel refuses.
        """
        await self._rules.start(wanted)
        self._links, self._opened = {}, set()
        await self._accept_loopback(wanted.values())
        await self._other.refuse_loopback({*self._opened, self._bridge})
        await self._other.remove()
        await self._datagrams.start(wanted)

    async def change(self, changes: Changes) -> None:
        """Serve something else.

        Raises:
            NftError, OSError: the kernel refuses.
        """
        await self._rules.change(changes)
        await self._accept_loopback(new for new in changes.values() if new is not None)
        await self._datagrams.change(changes)

    async def use(self, services: Sequence[str]) -> None:
        """Let cluster IPs be of these ranges."""
        await self._rules.use(services)

    async def stop(self) -> None:
        """Rules stay in force."""

    async def _accept_loopback(self, served: Iterable[ServicePort]) -> None:
        """Let connections from 127.0.0.1 to node ports leave by the links to their endpoints."""
        addresses = {
            address
            for port in served
            if port.node_port and port.family == "ip"
            for address, _ in port.endpoints
        }
        if unknown := addresses - self._links.keys():
            self._links |= await asyncio.to_thread(_links_to, unknown)
        links = {self._bridge, *self._links.values()} if self._links else set()
        if new := links - self._opened - {"", "lo"}:
            await self._rules.accept_loopback(sorted(new))
            self._opened |= new


class UserspaceMode:
    """By this process, to which rules lead everybody; without it nobody is served.

    ``other`` are the rules of mode ``iptables``; those of ``nftables`` are taken over. ``bridge``
    is that of ``KernelMode``.
    """

    name = USERSPACE
    protocols = BALANCED

    def __init__(self, balancers: Balancers, rules: Rules, other: Rules, bridge: str) -> None:
        self._balancers = balancers
        self._rules = rules
        self._other = other
        self._bridge = bridge
        self._datagrams = _Datagrams()

    async def start(self, wanted: Wanted) -> None:
        """Serve ``wanted``.

        Raises:
            NftError, OSError: the kernel refuses.
        """
        ours = await self._listen(wanted)
        await self._rules.start({k: new for k, new in ours.items() if new is not None})
        for key in self._balancers.keys - wanted.keys():
            self._balancers.close(key)
        for rules in (self._rules, self._other):
            await rules.refuse_loopback((self._bridge,))
        await self._other.remove()
        await self._datagrams.start(ours)

    async def change(self, changes: Changes) -> None:
        """Serve something else.

        Raises:
            NftError, OSError: the kernel refuses.
        """
        ours = await self._listen(changes)
        await self._rules.change(ours)
        for key, new in changes.items():
            if new is None:
                self._balancers.close(key)
        await self._datagrams.change(ours)

    async def use(self, services: Sequence[str]) -> None:
        """Let cluster IPs be of these ranges."""
        await self._rules.use(services)

    async def stop(self) -> None:
        """Nobody is served any more."""
        await self._balancers.stop()

    async def _listen(self, wanted: Changes) -> dict[Key, ServicePort | None]:
        return {
            key: None if served is None else await self._balancers.serve(served)
            for key, served in wanted.items()
        }


class _Datagrams:
    """Has the kernel lead datagrams as is wanted now, not as it led those before them."""

    def __init__(self) -> None:
        self._served: dict[Key, ServicePort] = {}

    async def start(self, wanted: Changes) -> None:
        """Just this is served, whatever was."""
        self._served = {}
        await self.change(wanted)

    async def change(self, changes: Changes) -> None:
        """Something else is served."""
        done = [(self._served.get(key), new) for key, new in changes.items()]
        for key, new in changes.items():
            if new is None:
                self._served.pop(key, None)
            else:
                self._served[key] = new
        await asyncio.to_thread(end_stale, done)


def _links_to(addresses: Iterable[str]) -> dict[str, str]:
    return {address: link_to(address) for address in addresses}
