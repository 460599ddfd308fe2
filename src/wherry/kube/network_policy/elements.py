"""What the sets and maps of the rules hold, counted by those who want it there.

Two pods have one address while one replaces the other, and two groups may want the same element: it
stays until the last of them gives it back.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cached_property

from wherry.kube.network_policy.policies import Group


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that has addresses of its own; ``ports`` are those with a name: name, protocol, number.

    ``local``: it is on this node.
    """

    namespace: str
    labels: Mapping[str, str]
    ips: tuple[str, ...]
    local: bool = False
    ports: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True)
class NamedSet:
    """A set that a rule names: the addresses of a ``group``, or its ``port`` (protocol, name), or
    ``blocks``.

    ``kind`` begins its name, and says what ``net.policy_table`` must know: ``peers4``,
    ``blocks6``, ``named4-tcp``.
    """

    kind: str
    group: Group | None
    blocks: tuple[str, ...] = ()
    port: tuple[str, str] | None = None

    @cached_property
    def name(self) -> str:
        """The same for all rules that mean the same."""
        return f"{self.kind}-{digest((self.group, self.blocks, self.port))}"

    def elements(self, pod: Pod | None) -> Set[str]:
        """What a pod of the group has in it."""
        return frozenset(self._elements(pod))

    def _elements(self, pod: Pod | None) -> Iterator[str]:
        if pod is None:
            return
        family = int(self.kind.partition("-")[0][-1])
        for ip in pod.ips:
            if version(ip) != family:
                continue
            if self.port is None:
                yield ip
                continue
            for name, protocol, number in pod.ports:
                if (protocol, name) == self.port:
                    yield f"{ip} . {number}"


class Elements:
    """Keeps ``sets`` (sets and maps by name, with nothing as values in sets) as its users want.

    ``touched`` are the keys that may be others than at the last ``take_touched``, by set.
    """

    def __init__(self, sets: dict[str, dict[str, str]]) -> None:
        self._sets = sets
        self._wanted: dict[str, dict[str, Counter[str]]] = {}
        self.touched: dict[str, set[str]] = {}

    def take_touched(self) -> dict[str, set[str]]:
        """What may have changed since the last call."""
        touched, self.touched = self.touched, {}
        return touched

    def begin(self, name: str) -> None:
        """There is a set of that name from now on, empty."""
        self._sets[name] = {}
        self.touched.setdefault(name, set())

    def end(self, name: str) -> None:
        """Nobody needs that set any more."""
        self.touched.setdefault(name, set()).update(self._sets.pop(name))
        self._wanted.pop(name, None)

    def want(self, name: str, key: str, value: str = "") -> None:
        """One more says that ``key`` is in a set, with ``value`` in a map."""
        self._count(name, key, value, 1)

    def give_back(self, name: str, key: str, value: str = "") -> None:
        """One less says so."""
        self._count(name, key, value, -1)

    def _count(self, name: str, key: str, value: str, change: int) -> None:
        values = self._wanted.setdefault(name, {}).setdefault(key, Counter())
        values[value] += change
        if not values[value]:
            del values[value]
        if values:
            # They differ only while one pod goes and the other comes.
            self._sets[name][key] = min(values)
        else:
            del self._wanted[name][key], self._sets[name][key]
        self.touched.setdefault(name, set()).add(key)


def digest(of: object) -> str:
    """A short name for a value."""
    return hashlib.blake2s(repr(of).encode(), digest_size=8).hexdigest()


def version(address: str) -> int:
    """Of IP."""
    return 6 if ":" in address else 4
