"""What the maps say: from Services to elements, and from one set of Services to the next. Pure."""

from __future__ import annotations

import ipaddress
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from wherry.net.nftables.elements import (
    Element,
    address,
    number,
    port,
    protocol,
    read_number,
)
from wherry.net.nftables.expressions import Chain
from wherry.net.service.nftables import rules
from wherry.net.service.nftables.rules import INSIDE, KINDS, LAST_NUMBER, MARKS, MASKED, NUMBERED
from wherry.net.service.ports import PROTOCOLS, Endpoint, Key, ServicePort

COUNTERS = 16  # chains (each with a counter of its own) per number of endpoints, at most
CONTAINERS = (
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
"""The maps and sets whose elements follow from Services alone."""

Place = tuple[str, str, bytes, bytes]
"""Where an element is."""
_Owner = tuple[str, str, bytes, bytes, int]
"""An endpoint that clients may have been given: where it is drawn, and what it leads to."""


def place(element: Element) -> Place:
    """Where ``element`` is; no other is there."""
    return element.family, element.container, element.key, element.end


@dataclass(frozen=True, slots=True)
class Frontend:
    """Where clients knock, and who answers. Without an address: a node port."""

    family: str
    protocol: str
    port: int
    address: str
    endpoints: tuple[Endpoint, ...]
    kind: str = "open"  # how they are drawn: see ``rules.KINDS``
    affinity: int = 0
    elsewhere: bool = False  # without endpoints: nothing is said

    @property
    def key(self) -> bytes:
        """Where it is in the maps."""
        own = protocol(PROTOCOLS[self.protocol]) + port(self.port)
        return address(self.address) + own if self.address else own


def frontends(served: ServicePort) -> Iterator[Frontend]:
    """Everywhere that a port is reached."""
    family, transport, affinity = served.family, served.protocol, served.affinity
    yield Frontend(
        family, transport, served.port, served.cluster_ip, served.inside,
        affinity=affinity, elsewhere=served.inside_elsewhere,
    )  # fmt: skip
    kind = "masked" if served.masquerade else "open"
    places = [(served.port, at) for at in served.outer_addresses if at != served.cluster_ip]
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

    def __init__(self, known: Iterable[tuple[str, int]]) -> None:
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


class Maps:
    """What the maps of both families say.

    Of a family that is served there is a table first (``begin``), empty or a former process's
    (``adopt``).
    """

    def __init__(self) -> None:
        self._served: dict[Key, ServicePort] = {}
        self._classes: dict[str, _Classes] = {}
        self._numbers = _Numbers()
        # How many ports of Services each endpoint answers for.
        self._turns: Counter[tuple[str, str]] = Counter()

    @property
    def families(self) -> tuple[str, ...]:
        """Those that have a table."""
        return tuple(self._classes)

    def begin(self, family: str, classes: Iterable[Element] = ()) -> None:
        """There is a table of ``family``, in which these elements lead to chains."""
        self._classes[family] = _Classes((str(e.value), read_number(e.key)) for e in classes)

    def adopt(self, present: Mapping[Place, Element]) -> None:
        """Endpoints keep the numbers under which a former process gave them to clients."""
        for element in present.values():
            if element.container not in ("choices", "node-choices"):
                continue
            given = element.value
            assert isinstance(given, bytes)
            target = present.get((element.family, "numbers", given, b""))
            if target is not None and isinstance(target.value, bytes):
                value = read_number(given)
                bits = value & (MASKED | INSIDE)
                owner = (element.family, element.container, element.key[:-4], target.value, bits)
                self._numbers.adopt(owner, value)

    def whole(self, wanted: Mapping[Key, ServicePort]) -> dict[Place, Element]:
        """All elements that make clients served as ``wanted``, which is the case from then on."""
        self._served = dict(wanted)
        found: dict[Place, Element] = {}
        for served in wanted.values():
            for element in self._elements_of(served, set()):
                found[place(element)] = element
            for at, _ in served.endpoints:
                self._turns[served.family, at] += 1
        for family, at in self._turns:
            element = _hairpin(family, at)
            found[place(element)] = element
        return found

    def difference(
        self, changes: Mapping[Key, ServicePort | None]
    ) -> tuple[list[Element], list[Element]]:
        """The elements that go and those that come; from then on ``changes`` are the case."""
        current = self._served
        before: dict[Place, Element] = {}
        after: dict[Place, Element] = {}
        had: set[_Owner] = set()
        has: set[_Owner] = set()
        turns: Counter[tuple[str, str]] = Counter()
        for key, new in changes.items():
            old = current.get(key)
            if old == new:
                continue
            if old is not None:
                before.update((place(e), e) for e in self._elements_of(old, had))
                turns.subtract((old.family, at) for at, _ in old.endpoints)
            if new is not None:
                turns.update((new.family, at) for at, _ in new.endpoints)
        # After all that is there has been named: numbers follow an endpoint from one to the other.
        for key, new in changes.items():
            old = current.get(key)
            if old == new:
                continue
            if new is not None:
                after.update((place(e), e) for e in self._elements_of(new, has))
                current[key] = new
            else:
                current.pop(key, None)
        deleted = [e for at, e in before.items() if after.get(at) != e]
        added = [e for at, e in after.items() if before.get(at) != e]
        for owner in had - has:
            self._numbers.release(owner)
        for pair, turn in turns.items():
            was = self._turns[pair]
            now = self._turns[pair] = was + turn
            if not now:
                del self._turns[pair]
            if was and not now:
                deleted.append(_hairpin(*pair))
            elif now and not was:
                added.append(_hairpin(*pair))
        return deleted, added

    def fresh(self) -> tuple[list[Chain], list[Element]]:
        """The chains that elements lead to and the kernel does not have, and what leads there; from
        then on it has them."""
        chains, elements = [], []
        for family, classes in self._classes.items():
            for name in classes.fresh:
                chains.append(rules.choosing(family, name))
                value = number(classes.numbers[name])
                elements.append(Element(family, "classes", value, name))
            classes.fresh.clear()
        return chains, elements

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
            drawn = key + number(MARKS + bits + index)
            target = address(at) + port(number_)
            if not frontend.affinity:
                yield Element(family, f"{node}endpoints", drawn, target)
                continue
            owner = (family, f"{node}choices", key, target, bits)
            owners.add(owner)
            given = number(self._numbers.of(owner))
            yield Element(family, "numbers", given, target)
            yield Element(family, f"{node}choices", drawn, given)


def _hairpin(family: str, at: str) -> Element:
    return Element(family, "hairpin", address(at) * 2)


def _guards(served: ServicePort) -> Iterator[Element]:
    """Who may use a balancer's addresses."""
    networks = [ipaddress.ip_network(cidr, strict=False) for cidr in served.sources]
    merged = [
        (network[0].packed, network[-1].packed)
        for network in ipaddress.collapse_addresses(networks)  # type: ignore[type-var]
    ]
    own = protocol(PROTOCOLS[served.protocol]) + port(served.port)
    for at in served.balancer_ips:
        key = address(at) + own
        yield Element(served.family, "guarded", key)
        for first, last in merged:
            yield Element(served.family, "sources", key + first, end=key + last)
