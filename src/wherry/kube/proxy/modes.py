"""The ways of leading clients to endpoints, one a mode of kube-proxy's configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Protocol

from wherry.net.routes import link_to
from wherry.net.service_map import ServiceMap
from wherry.net.service_ports import Key, ServicePort
from wherry.net.stale_flows import Change, end_stale

NFTABLES, IPTABLES, USERSPACE = "nftables", "iptables", "userspace"
MODES = (NFTABLES, IPTABLES, USERSPACE)

Wanted = Mapping[Key, ServicePort]
Changes = Mapping[Key, ServicePort | None]


class Mode(Protocol):
    """How what is served becomes so."""

    async def start(self, wanted: Wanted) -> None:
        """Serve ``wanted``, whatever was served before."""

    async def change(self, changes: Changes) -> None:
        """Serve something else from now on; None ends it. After an error ``start`` must follow."""


class NftablesMode:
    """By elements of nftables' maps (``net.service_map``)."""

    def __init__(self, services: ServiceMap, bridge: str) -> None:
        self._map = services
        self._bridge = bridge
        self._current: dict[Key, ServicePort] = {}
        self._links: dict[str, str] = {}  # by an endpoint's address
        self._opened: set[str] = set()

    async def start(self, wanted: Wanted) -> None:
        """Serve ``wanted``.

        Raises:
            NftError, OSError: the kernel refuses.
        """
        await self._map.start(wanted)
        self._current = dict(wanted)
        self._links, self._opened = {}, set()
        await self._accept_loopback(wanted.values())
        await _forget([(None, served) for served in wanted.values()])

    async def change(self, changes: Changes) -> None:
        """Serve something else.

        Raises:
            NftError, OSError: the kernel refuses.
        """
        done: list[Change] = [(self._current.get(key), served) for key, served in changes.items()]
        await self._map.change(changes)
        for key, served in changes.items():
            if served is None:
                self._current.pop(key, None)
            else:
                self._current[key] = served
        await self._accept_loopback(served for _, served in done if served is not None)
        await _forget(done)

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
            await self._map.accept_loopback(sorted(new))
            self._opened |= new


def _links_to(addresses: Iterable[str]) -> dict[str, str]:
    return {address: link_to(address) for address in addresses}


async def _forget(changes: list[Change]) -> None:
    await asyncio.to_thread(end_stale, changes)
