"""Service addresses in nftables: data, not rules.

A cluster's services are elements of a few maps in tables of our own, one a family; the rules around
them (``service_frame``) never change. What a packet for a service address meets:

1. ``services`` says by (address, protocol, port) of which class it is, ``node-services`` does so by
   (protocol, port) for the machine's addresses; ``classes`` leads to the chain for services with
   that many endpoints. (Were the chains in ``services`` itself, the kernel would look through all
   of it at each change, for loops.)
   Where clients of inside are treated otherwise (they need not heed an external traffic policy
   ``Local``), maps of their own come first.
2. That chain draws an index, each in turn, and takes the endpoint from ``endpoints`` by
   (address, protocol, port, index).
3. A service with client affinity goes through ``affinity`` first, which remembers for a time the
   number of the endpoint a client was given. The number, not the address: an endpoint that leaves
   takes its number out of ``numbers``, and its clients are given another.
4. What has no endpoint is in ``refused``, or in ``dropped`` where another node may answer. What is
   still addressed to the service range behind that is refused, too.

So a change costs a few elements in one transaction, however many services there are. A chain exists
per number of endpoints, times a few: the counter that gives the turns belongs to the chain, and two
services that shared it could fall into step, each always getting the same endpoint.

What a former process left is taken over where the rules are the same: its elements are read, and
only what is wrong is changed, so that clients keep the endpoints they were given.
"""

from __future__ import annotations

import asyncio
import ipaddress
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from wherry.net import service_frame as rules
from wherry.net import service_route
from wherry.net.nft_elements import (
    Element,
    Table,
    address,
    joined,
    number,
    port,
    protocol,
    read_number,
)
from wherry.net.nft_rules import Chain
from wherry.net.service_frame import INSIDE, KINDS, LAST_NUMBER, MARKS, MASKED, NUMBERED
from wherry.net.service_ports import PROTOCOLS, Endpoint, Key, ServicePort

COUNTERS = 16  # chains (each with a counter of its own) per number of endpoints, at most
_FAMILIES = ("ip", "ip6")
_CONTAINERS = (
    "services",
    "inside-services",
    "node-services",
    "inside-node-services",
    "endpoints",
    "node-endpoints",
    "choices",
    "node-choices",
    "numbers",
    "refused",
    "dropped",
    "node-refused",
    "node-dropped",
    "hairpin",
    "guarded",
    "sources",
)
_LINKS = "loopback-links"
# Where it is, and what it leads to: an endpoint that clients may have been given.
_Owner = tuple[str, str, bytes, bytes, int]
_Place = tuple[str, str, bytes, bytes]


class Runner(Protocol):
    """What applies scripts: ``net.nft.Nftables``."""

    async def run(self, script: str) -> object:
        """Apply ``script`` as one transaction."""


class Elements(Protocol):
    """What changes elements: ``net.nft_elements.Table``."""

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


@dataclass(frozen=True, slots=True)
class Frontend:
    """Where clients knock, and who answers. Without an address: a node port."""

    family: str
    protocol: str
    port: int
    address: str
    endpoints: tuple[Endpoint, ...]
    kind: str = "open"  # how they are drawn: see ``service_frame.KINDS``
    affinity: int = 0
    elsewhere: bool = False  # without endpoints: nothing is said

    @property
    def key(self) -> bytes:
        """Where it is in the maps."""
        own = protocol(PROTOCOLS[self.protocol]) + port(self.port)
        return address(self.address) + own if self.address else own


def frontends(served: ServicePort) -> Iterator[Frontend]:
    """Everywhere that a port is reached."""
    family, transport, number_ = served.family, served.protocol, served.port
    affinity = served.affinity
    if served.cluster_ip:
        yield Frontend(
            family, transport, number_, served.cluster_ip, served.inside,
            affinity=affinity, elsewhere=served.inside_elsewhere,
        )  # fmt: skip
    kind = "masked" if served.masquerade else "open"
    places = [(number_, at) for at in served.outer_addresses if at != served.cluster_ip]
    if served.node_port:
        places.append((served.node_port, ""))
    for number_, at in places:
        yield Frontend(
            family, transport, number_, at, served.outside, kind, affinity, served.outside_elsewhere
        )
        if not served.masquerade and served.everywhere:
            yield Frontend(
                family, transport, number_, at, served.everywhere, "inside", affinity
            )  # fmt: skip


class _Numbers:
    """The numbers of endpoints in services with affinity."""

    def __init__(self) -> None:
        self._given: dict[_Owner, int] = {}
        self._used: set[int] = set()
        self._next = 0

    def adopt(self, owner: _Owner, value: int) -> None:
        """One that a former process gave."""
        self._given[owner] = value
        self._used.add(value)

    def of(self, owner: _Owner) -> int:
        """That of ``owner``, new where it has none."""
        value = self._given.get(owner)
        if value is None:
            while True:
                value = MARKS | NUMBERED | owner[-1] | self._next
                self._next = (self._next + 1) & LAST_NUMBER
                if value not in self._used:
                    break
            self.adopt(owner, value)
        return value

    def release(self, owner: _Owner) -> None:
        """It has left."""
        value = self._given.pop(owner, None)
        if value is not None:
            self._used.discard(value)


class _Classes:
    """The chains of one table by the numbers that lead there."""

    def __init__(self, known: Iterable[tuple[str, int]] = ()) -> None:
        self.numbers = dict(known)
        self.fresh: list[str] = []  # those that the kernel does not know
        self._next = max(self.numbers.values(), default=MARKS) + 1

    def of(self, chain: str) -> int:
        """The number of ``chain``, which is new where it has none."""
        value = self.numbers.get(chain)
        if value is None:
            value = self.numbers[chain] = self._next
            self._next += 1
            self.fresh.append(chain)
        return value


class ServiceMap:
    """The tables as they are in the kernel, and the way to another state of them.

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
        self._doubtful = False
        self._forget()

    def _forget(self) -> None:
        self._current: dict[Key, ServicePort] | None = None
        self._classes: dict[str, _Classes] = {}
        self._hairpins: Counter[tuple[str, str]] = Counter()
        self._numbers = _Numbers()

    async def start(self, wanted: Mapping[Key, ServicePort]) -> None:
        """Make the kernel's tables say ``wanted``, whatever a former process left in them.

        Raises:
            NftError, OSError: the kernel refused; the next call begins from empty tables.
        """
        self._forget()
        try:
            present = await self._adopt(self._families(wanted.values()))
            after = self._replaced(wanted)
            deleted = [e for place, e in present.items() if after.get(place) != e]
            added = [e for place, e in after.items() if present.get(place) != e]
            await self._change(deleted, added)
        except BaseException:
            self._doubtful = True
            self._forget()
            raise
        self._doubtful = False

    async def change(self, changes: Mapping[Key, ServicePort | None]) -> None:
        """Change what is served; None ends it. One transaction.

        Raises:
            NftError, OSError: the kernel refused, nothing was changed; ``start`` must follow.
        """
        if self._current is None:
            raise RuntimeError("start comes first")
        try:
            new = [served for served in changes.values() if served is not None]
            for family in set(self._families(new)) - self._classes.keys():
                await self._make(family)
            await self._change(*self.difference(changes))
        except BaseException:
            self._doubtful = True
            self._forget()
            raise

    def _families(self, ports: Iterable[ServicePort]) -> tuple[str, ...]:
        wanted = {served.family for served in ports}
        wanted |= {"ip6" if ":" in cidr else "ip" for cidr in self._services}
        return tuple(family for family in _FAMILIES if family in wanted)

    def _of_family(self, family: str, cidrs: Sequence[str]) -> list[str]:
        return [cidr for cidr in cidrs if (":" in cidr) == (family == "ip6")]

    async def _make(self, family: str) -> None:
        services = self._of_family(family, self._services)
        pods = self._of_family(family, self._pods)
        await self._runner.run(rules.whole(self._table, family, services, pods))
        self._classes[family] = _Classes()

    async def _adopt(self, families: Sequence[str]) -> dict[_Place, Element]:
        """What lies in the tables, which are made where they are not what they should be."""
        found: dict[_Place, Element] = {}
        for family in _FAMILIES:
            chains = await asyncio.to_thread(self._elements.chains, family)
            if family not in families:
                if chains:
                    await _remove(self._runner, family, self._table)
                continue
            marker = rules.version(
                family,
                self._of_family(family, self._services),
                self._of_family(family, self._pods),
            )
            if self._doubtful or marker not in chains:
                await self._make(family)
                continue
            listed = await asyncio.to_thread(self._elements.read, family, "classes")
            self._classes[family] = _Classes(
                (str(element.value), read_number(element.key)) for element in listed
            )
            for container in _CONTAINERS:
                for element in await asyncio.to_thread(self._elements.read, family, container):
                    found[_place(element)] = element
        self._adopt_numbers(found)
        return found

    def _adopt_numbers(self, found: Mapping[_Place, Element]) -> None:
        for element in found.values():
            if element.container not in ("choices", "node-choices"):
                continue
            given = element.value
            assert isinstance(given, bytes)
            target = found.get((element.family, "numbers", given, b""))
            if target is not None and isinstance(target.value, bytes):
                value = read_number(given)
                bits = value & (MASKED | INSIDE)
                owner = (element.family, element.container, element.key[:-4], target.value, bits)
                self._numbers.adopt(owner, value)

    async def _change(self, deleted: list[Element], added: list[Element]) -> None:
        chains: list[Chain] = []
        for family, classes in self._classes.items():
            for name in classes.fresh:
                chains.append(rules.choosing(family, name))
                value = number(classes.numbers[name])
                added.append(Element(family, "classes", value, name))
            classes.fresh.clear()
        if deleted or added:
            await asyncio.to_thread(self._elements.change, deleted, added, chains)

    async def accept_loopback(self, links: Sequence[str]) -> None:
        """Let connections from 127.0.0.1 leave by ``links``, and none come in for it by them.

        Others use them, too: the table says which they are.

        Raises:
            NftError, OSError: the kernel refused.
        """
        await asyncio.to_thread(self._elements.change, (), [_link(name) for name in links])
        for name in links:
            await asyncio.to_thread(service_route.accept_loopback, name)

    async def refuse_loopback(self, keep: Iterable[str] = ()) -> None:
        """Undo ``accept_loopback``, except at links to ``keep``; before ``remove``."""
        for element in await asyncio.to_thread(self._elements.read, "ip", _LINKS):
            name = element.key.rstrip(b"\0").decode()
            if name not in keep:
                await asyncio.to_thread(service_route.refuse_loopback, name)

    async def remove(self) -> None:
        """Take the tables away."""
        self._forget()
        await remove_tables(self._runner, self._table)

    # pure: from what is to what shall be

    def _replaced(self, wanted: Mapping[Key, ServicePort]) -> dict[_Place, Element]:
        self._current = dict(wanted)
        found: dict[_Place, Element] = {}
        for served in wanted.values():
            for element in self._elements_of(served, set()):
                found[_place(element)] = element
            for at, _ in served.endpoints:
                self._hairpins[served.family, at] += 1
        for family, at in self._hairpins:
            element = _hairpin(family, at)
            found[_place(element)] = element
        return found

    def difference(
        self, changes: Mapping[Key, ServicePort | None]
    ) -> tuple[list[Element], list[Element]]:
        """The elements that go and those that come; from then on ``changes`` are the case."""
        current = self._current if self._current is not None else {}
        before: dict[_Place, Element] = {}
        after: dict[_Place, Element] = {}
        had: set[_Owner] = set()
        has: set[_Owner] = set()
        turns: Counter[tuple[str, str]] = Counter()
        for key, new in changes.items():
            old = current.get(key)
            if old == new:
                continue
            if old is not None:
                before.update((_place(e), e) for e in self._elements_of(old, had))
                turns.subtract((old.family, at) for at, _ in old.endpoints)
            if new is not None:
                turns.update((new.family, at) for at, _ in new.endpoints)
        # After all that is there has been named: numbers follow an endpoint from one to the other.
        for key, new in changes.items():
            old = current.get(key)
            if old == new:
                continue
            if new is not None:
                after.update((_place(e), e) for e in self._elements_of(new, has))
                current[key] = new
            else:
                current.pop(key, None)
        deleted = [e for place, e in before.items() if after.get(place) != e]
        added = [e for place, e in after.items() if before.get(place) != e]
        for owner in had - has:
            self._numbers.release(owner)
        for pair, turn in turns.items():
            was = self._hairpins[pair]
            now = self._hairpins[pair] = was + turn
            if not now:
                del self._hairpins[pair]
            if was and not now:
                deleted.append(_hairpin(*pair))
            elif now and not was:
                added.append(_hairpin(*pair))
        return deleted, added

    def _elements_of(self, served: ServicePort, owners: set[_Owner]) -> Iterator[Element]:
        for frontend in frontends(served):
            yield from self._elements_at(frontend, owners)
        if served.sources:
            yield from _guards(served)

    def _elements_at(self, frontend: Frontend, owners: set[_Owner]) -> Iterator[Element]:
        family, key = frontend.family, frontend.key
        node = "" if frontend.address else "node-"
        if not frontend.endpoints:
            yield Element(family, f"{node}{'dropped' if frontend.elsewhere else 'refused'}", key)
            return
        slot = zlib.crc32(key) % COUNTERS
        chain = rules.chain_name(
            frontend.kind,
            len(frontend.endpoints),
            slot,
            frontend.affinity,
            node=not frontend.address,
        )
        inside = "inside-" if frontend.kind == "inside" else ""
        class_ = number(self._classes[family].of(chain))
        yield Element(family, f"{inside}{node}services", key, class_)
        bits = KINDS[frontend.kind]
        for index, (at, number_) in enumerate(frontend.endpoints):
            place = key + number(MARKS + bits + index)
            target = address(at) + port(number_)
            if not frontend.affinity:
                yield Element(family, f"{node}endpoints", place, target)
                continue
            owner = (family, f"{node}choices", key, target, bits)
            owners.add(owner)
            given = number(self._numbers.of(owner))
            yield Element(family, "numbers", given, target)
            yield Element(family, f"{node}choices", place, given)


def _place(element: Element) -> _Place:
    return element.family, element.container, element.key, element.end


def _hairpin(family: str, at: str) -> Element:
    return Element(family, "hairpin", address(at) * 2)


def _link(name: str) -> Element:
    return Element("ip", _LINKS, name.encode().ljust(16, b"\0"))


def _guards(served: ServicePort) -> Iterator[Element]:
    """Who may use a balancer's addresses."""
    version = 6 if served.family == "ip6" else 4
    ranges = [ipaddress.ip_network(cidr, strict=False) for cidr in served.sources]
    own = protocol(PROTOCOLS[served.protocol]) + port(served.port)
    if version == 4:
        merged = [
            (net[0].packed, net[-1].packed)
            for net in ipaddress.collapse_addresses(
                net for net in ranges if isinstance(net, ipaddress.IPv4Network)
            )
        ]
    else:
        merged = [
            (net[0].packed, net[-1].packed)
            for net in ipaddress.collapse_addresses(
                net for net in ranges if isinstance(net, ipaddress.IPv6Network)
            )
        ]
    for at in served.balancer_ips:
        key = address(at) + own
        yield Element(served.family, "guarded", key)
        for first, last in merged:
            yield Element(served.family, "sources", joined((key, first)), end=joined((key, last)))


async def _remove(runner: Runner, family: str, table: str) -> None:
    await runner.run(f"table {family} {table}\ndelete table {family} {table}\n")


async def remove_tables(runner: Runner, table: str) -> None:
    """Take the tables called ``table`` away; no error where there are none."""
    for family in _FAMILIES:
        await _remove(runner, family, table)
