"""Which names there are on a network, and what a container that is on some networks finds.

The rules are Docker's: a container is found by its name, its short id, its host name and its
aliases, each optionally followed by a dot and the network's name; several containers may share a
name. A link's alias is seen by the container that has the link alone, and hides the same name of
others on that network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Member:
    """One container on a network; ``names`` begins with what its addresses are called."""

    id: str
    names: tuple[str, ...]
    addresses: tuple[str, ...]


class Zone:
    """The names on one network."""

    def __init__(self, network: str) -> None:
        self.network = network
        self._members: dict[str, Member] = {}
        self._addresses: dict[str, dict[str, None]] = {}  # by name, each address once, in order
        self._names: dict[str, str] = {}  # by address
        self._stale = False

    def __len__(self) -> int:
        return len(self._members)

    def enter(self, member: Member) -> None:
        """From now on ``member`` is found; it takes the place of one with the same id."""
        self._members[member.id] = member
        self._stale = True

    def leave(self, id: str) -> None:
        """From now on it is not found; nothing where it is not there."""
        self._members.pop(id, None)
        self._stale = True

    def addresses(self, name: str) -> list[str] | None:
        """All addresses, of both families, of those who are called ``name``; None for nobody."""
        self._index()
        found = self._addresses.get(name.lower())
        return None if found is None else list(found)

    def name_of(self, address: str) -> str | None:
        """Whose address it is: ``name.network``."""
        self._index()
        name = self._names.get(address)
        return None if name is None else f"{name}.{self.network}"

    def _index(self) -> None:
        if not self._stale:
            return
        self._addresses, self._names, self._stale = {}, {}, False
        for member in self._members.values():
            for name in member.names:
                known = self._addresses.setdefault(name.lower(), {})
                known.update(dict.fromkeys(member.addresses))
            for address in member.addresses:
                self._names[address] = member.names[0]


@dataclass(frozen=True, slots=True)
class Place:
    """A container's place on a network: its zone, and its own links there (alias to name)."""

    zone: Zone
    links: Mapping[str, str] = field(default_factory=dict)


def find(places: Sequence[Place], name: str) -> list[str] | None:
    """The addresses that ``name`` has for a container with these places, in their order.

    None where it is no name of ours. The first network that knows it decides.
    """
    for short, network in _readings(name.removesuffix(".")):
        reached = [p for p in places if network is None or p.zone.network.lower() == network]
        for addresses in (*_linked(reached, short), *_named(reached, short)):
            if addresses is not None:
                return addresses
    return None


def _readings(name: str) -> Iterator[tuple[str, str | None]]:
    """``name`` as a name on any network, then as a name on the network that its end names."""
    lower = name.lower()
    yield lower, None
    parts = lower.split(".")
    for count in range(len(parts) - 1, 0, -1):
        yield ".".join(parts[:count]), ".".join(parts[count:])


def _linked(places: Iterable[Place], name: str) -> Iterator[list[str] | None]:
    for place in places:
        if target := place.links.get(name):
            yield place.zone.addresses(target)


def _named(places: Iterable[Place], name: str) -> Iterator[list[str] | None]:
    for place in places:
        if name not in place.links:
            yield place.zone.addresses(name)


def find_name(places: Sequence[Place], address: str) -> str | None:
    """What the address is called on the networks of these places."""
    for place in places:
        if name := place.zone.name_of(address):
            return name
    return None
