"""The domains that nodes form by a label, and how many pods of some kind each has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TypeVar

from wherry.kube.scheduler.node_info import NodeInfo
from wherry.kube.scheduler.selection import Reach

K = TypeVar("K", bound=Hashable)
Selects = Callable[[str, Mapping[str, str]], bool]
"""Whether pods of a namespace with such labels are meant."""


class Topology:
    """The domains of ``key`` among nodes that have all of ``keys`` and are ``eligible``."""

    __slots__ = ("_eligible", "_key", "_keys", "domains", "tallies", "values")

    def __init__(
        self,
        key: str,
        keys: frozenset[str],
        eligible: Callable[[NodeInfo], bool] | None,
        nodes: Iterable[NodeInfo],
    ) -> None:
        self._key = key
        self._keys = keys - {key}
        self._eligible = eligible
        if self._keys:
            nodes = [node for node in nodes if node.labels.keys() >= self._keys]
        if eligible is not None:
            nodes = filter(eligible, nodes)
        self.values = {
            node.name: value for node in nodes if (value := node.labels.get(key)) is not None
        }
        """The domain that each node is in; those that do not count are absent."""
        self.domains: dict[str, int] = Counter(self.values.values())
        """How many nodes each has."""
        self.tallies: dict[Tally, None] = {}

    @property
    def unique(self) -> bool:
        """Whether each node is a domain of its own."""
        return len(self.values) == len(self.domains)

    def put(self, node: NodeInfo) -> bool:
        """A node came or changed; whether it is in another domain now than before."""
        value = node.labels.get(self._key)
        counts = (
            value is not None
            and node.labels.keys() >= self._keys
            and (self._eligible is None or self._eligible(node))
        )
        return self._set(node.name, value if counts else None)

    def drop(self, name: str) -> bool:
        """A node is gone; whether it was in a domain."""
        return self._set(name, None)

    def _set(self, name: str, value: str | None) -> bool:
        before = self.values.get(name)
        if before == value:
            return False
        if before is not None:
            shift(self.domains, before, -1)
            del self.values[name]
        if value is not None:
            shift(self.domains, value, 1)
            self.values[name] = value
        return True


class Tally:
    """How many of the selected pods are in each domain.

    ``counts`` has the domains with pods only; ``reach`` says where those pods may be.
    """

    __slots__ = ("_levels", "counts", "reach", "selects", "topology", "with_leaving")

    def __init__(
        self, topology: Topology, selects: Selects, reach: Reach, *, with_leaving: bool
    ) -> None:
        self.topology = topology
        self.selects = selects
        self.reach = reach
        self.with_leaving = with_leaving
        self.counts: dict[str, int] = {}
        self._levels: dict[int, int] = {}
        """How many domains have a number of pods, except none."""

    def count(self, node: str, number: int) -> None:
        """So many pods more, or fewer, are on the node."""
        value = self.topology.values.get(node)
        if value is None or not number:
            return
        before = self.counts.get(value, 0)
        shift(self.counts, value, number)
        if before:
            shift(self._levels, before, -1)
        if before + number:
            shift(self._levels, before + number, 1)

    def least(self) -> int:
        """The number of pods in the emptiest domain."""
        if len(self.counts) < len(self.topology.domains):
            return 0
        return min(self._levels, default=0)

    def least_with(self, value: str, moved: int) -> int:
        """The same, were there ``moved`` more pods in the domain ``value``."""
        count = self.counts.get(value, 0)
        if value not in self.topology.domains:
            return self.least()
        others = [n for n, domains in self._levels.items() if n != count or domains > 1]
        empty = len(self.topology.domains) - len(self.counts)
        if empty > (0 if count else 1):
            others.append(0)
        return min([*others, count + moved])


def shift(counts: dict[K, int], key: K, number: int) -> None:
    """Count; what is not there is not kept."""
    total = counts.get(key, 0) + number
    if total:
        counts[key] = total
    else:
        counts.pop(key, None)
