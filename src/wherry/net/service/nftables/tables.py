"""The tables as they are in the kernel, and the way to another state of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from wherry.net.nftables.elements import Element, Table
from wherry.net.nftables.expressions import Chain
from wherry.net.nftables.nft import Runner
from wherry.net.service import local_routing
from wherry.net.service.nftables import rules
from wherry.net.service.nftables.maps import CONTAINERS, Maps, Place, place
from wherry.net.service.ports import FAMILIES, Key, ServicePort, family_of, of_family

_LINKS = "loopback-links"


class Elements(Protocol):
    """What changes elements: ``net.nftables.elements.Table``."""

    def change(
        self,
        deleted: Iterable[Element],
        added: Iterable[Element],
        chains: Iterable[Chain] = (),
    ) -> None:
        """As one transaction, blocking."""

    def read(self, family: str, container: str) -> list[Element]:
        """What is in a set, blocking."""

    def chains(self, family: str) -> set[str]:
        """The chains there are, blocking."""


class NftablesServices:
    """Services in the tables of one name, a table a family.

    Args:
        runner: applies scripts.
        table: the name of the tables.
        services: ranges of cluster IPs, of either family.
        pods: ranges of all pods of the cluster, of either family.
        elements: changes elements, where not the kernel's.
    """

    def __init__(
        self,
        runner: Runner,
        table: str,
        *,
        services: Sequence[str],
        pods: Sequence[str],
        elements: Elements | None = None,
    ) -> None:
        self._runner = runner
        self._table = table
        self._services = services
        self._pods = pods
        self._elements = Table(table) if elements is None else elements
        self._maps: Maps | None = None  # what the tables say, where we know
        self._doubtful = False

    async def start(self, wanted: Mapping[Key, ServicePort]) -> None:
        """Make the kernel's tables say ``wanted``, whatever a former process left in them.

        Raises:
            NftError, OSError: the kernel refused; the next call begins from empty tables.
        """
        maps = Maps()
        with self._doubted_after_an_error():
            present = await self._adopt(maps, self._families(wanted.values()))
            after = maps.whole(wanted)
            deleted = [e for at, e in present.items() if after.get(at) != e]
            added = [e for at, e in after.items() if present.get(at) != e]
            await self._change(maps, deleted, added)
        self._maps, self._doubtful = maps, False

    async def change(self, changes: Mapping[Key, ServicePort | None]) -> None:
        """Change what is served; None ends it. One transaction.

        Raises:
            NftError, OSError: the kernel refused, nothing was changed; ``start`` must follow.
        """
        maps = self._maps
        if maps is None:
            raise RuntimeError("start comes first")
        with self._doubted_after_an_error():
            new = [served for served in changes.values() if served is not None]
            for family in self._families(new):
                if family not in maps.families:
                    await self._make(maps, family)
            await self._change(maps, *maps.difference(changes))

    async def use(self, services: Sequence[str]) -> None:
        """Let cluster IPs be of these ranges from now on; what is served stays as it is.

        Raises:
            NftError, OSError: the kernel refused; ``start`` must follow.
        """
        self._services = services
        if self._maps is not None:
            with self._doubted_after_an_error():
                for family in self._maps.families:
                    await self._say_ranges(family)

    async def remove(self) -> None:
        """Take the tables away; no error where there are none."""
        self._maps = None
        for family in FAMILIES:
            await self._remove(family)

    async def accept_loopback(self, links: Sequence[str]) -> None:
        """Let connections from 127.0.0.1 leave by ``links``, and none come in for it by them.

        Others use them, too: the table says which they are.

        Raises:
            NftError, OSError: the kernel refused.
        """
        await asyncio.to_thread(self._elements.change, (), [_link(name) for name in links])
        for name in links:
            await asyncio.to_thread(local_routing.accept_loopback, name)

    async def refuse_loopback(self, keep: Iterable[str] = ()) -> None:
        """Undo ``accept_loopback``, except at links to ``keep``; before ``remove``."""
        for element in await asyncio.to_thread(self._elements.read, "ip", _LINKS):
            name = element.key.rstrip(b"\0").decode()
            if name not in keep:
                await asyncio.to_thread(local_routing.refuse_loopback, name)

    @contextlib.contextmanager
    def _doubted_after_an_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._maps, self._doubtful = None, True
            raise

    def _families(self, ports: Iterable[ServicePort]) -> list[str]:
        wanted = {*(served.family for served in ports), *map(family_of, self._services)}
        return [family for family in FAMILIES if family in wanted]

    async def _adopt(self, maps: Maps, families: Sequence[str]) -> dict[Place, Element]:
        """What lies in the tables, which are made where they are not what they should be."""
        found: dict[Place, Element] = {}
        for family in FAMILIES:
            chains = await asyncio.to_thread(self._elements.chains, family)
            if family not in families:
                if chains:
                    await self._remove(family)
                continue
            marker = rules.version(family, of_family(family, self._pods))
            if self._doubtful or marker not in chains:
                await self._make(maps, family)
                continue
            await self._say_ranges(family)
            maps.begin(family, await asyncio.to_thread(self._elements.read, family, "classes"))
            for container in CONTAINERS:
                for element in await asyncio.to_thread(self._elements.read, family, container):
                    found[place(element)] = element
        maps.adopt(found)
        return found

    async def _make(self, maps: Maps, family: str) -> None:
        services, pods = of_family(family, self._services), of_family(family, self._pods)
        await self._runner.run(rules.whole(self._table, family, services, pods))
        maps.begin(family)

    async def _say_ranges(self, family: str) -> None:
        services = of_family(family, self._services)
        await self._runner.run(rules.ranges(self._table, family, services))

    async def _remove(self, family: str) -> None:
        table = f"table {family} {self._table}"
        await self._runner.run(f"{table}\ndelete {table}\n")

    async def _change(self, maps: Maps, deleted: list[Element], added: list[Element]) -> None:
        chains, leading = maps.fresh()
        added += leading
        if deleted or added:
            await asyncio.to_thread(self._elements.change, deleted, added, chains)


def _link(name: str) -> Element:
    return Element("ip", _LINKS, name.encode().ljust(16, b"\0"))
