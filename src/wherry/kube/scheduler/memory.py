"""What is known of pods that are alike: on which nodes they fit, and how well.

Nodes on which such a pod fits lie in groups of equal scores. When the next pod of the kind comes,
only the nodes that changed since are looked at again, mostly the one its predecessor went to: what
it costs does not grow with the number of nodes. Not all nodes are looked at at once, but as many as
are enough to choose from, and some more with every pod.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

from wherry.kube.scheduler.framework import Verdict
from wherry.kube.scheduler.snapshot import NodeInfo, Snapshot

_SOME_MORE = 32

Group = tuple[int, tuple[int, ...], tuple[Hashable, ...]]
"""The weighted sum of the scores that are final, those that are yet to be normalised, and the
facets by which plugins judge that look beyond the node."""


@dataclass(slots=True)
class Opinion:
    """What is known of a kind of pod on a node as it was in one generation."""

    generation: int
    verdict: Verdict
    rejected_by: str
    group: Group


Judge = Callable[[NodeInfo], Opinion]
Rate = Callable[[Sequence[tuple[Group, int]]], list[int | None]]
"""The scores of groups, which come with their numbers of nodes; None where the pod cannot be."""


class Memory:
    """The opinions on one kind of pod."""

    def __init__(self, snapshot: Snapshot, start: int) -> None:
        self._snapshot = snapshot
        self._begin(start)

    def _begin(self, start: int) -> None:
        self.opinions: dict[str, Opinion] = {}
        self._groups: dict[Group, dict[str, None]] = {}
        self._position = self._snapshot.changes.end
        self._order = self._snapshot.ordered()
        self._start = start % len(self._order) if self._order else 0
        self._reached = 0
        self.fitting = 0

    def refresh(self, judge: Judge) -> None:
        """Look again at what changed."""
        changes = self._snapshot.changes
        names = changes.since(self._position)
        if names is None:
            self._begin(self._start)
            return
        self._position = changes.end
        if not names:
            return
        for name in dict.fromkeys(names):
            node = self._snapshot.nodes.get(name)
            known = self.opinions.get(name)
            if node is None:
                self._forget(name)
            elif known is None or known.generation != node.generation:
                self._note(node, judge(node))

    def extend(self, judge: Judge, enough: int) -> None:
        """Look at nodes that were never looked at, until ``enough`` fit, and at some more."""
        order = self._order
        count = len(order)
        some = _SOME_MORE
        while self._reached < count and (some > 0 or self.fitting < enough):
            node = order[(self._start + self._reached) % count]
            self._reached += 1
            name = node.name
            if name in self.opinions or self._snapshot.nodes.get(name) is not node:
                continue
            some -= 1
            self._note(node, judge(node))

    def opinion(self, node: NodeInfo, judge: Judge) -> Opinion:
        """The opinion on one node."""
        known = self.opinions.get(node.name)
        if known is None or known.generation != node.generation:
            known = judge(node)
            self._note(node, known)
        return known

    def best(self, rate: Rate) -> Iterator[str]:
        """The nodes that fit, the best first; of equals the one that was chosen longest ago."""
        groups = list(self._groups.items())
        scores = rate([(group, len(names)) for group, names in groups])
        rated = [(s, names) for s, (_, names) in zip(scores, groups, strict=True) if s is not None]
        if not rated:
            return
        first = max(rated, key=lambda pair: pair[0])
        yield next(iter(first[1]))  # mostly nobody asks for more: the rest is not copied before
        yield from list(first[1])[1:]
        for pair in sorted(rated, key=lambda pair: -pair[0]):
            if pair is not first:
                yield from list(pair[1])

    def groups(self) -> Iterator[tuple[Group, list[str]]]:
        """The nodes that fit as far as the node itself goes."""
        for group, names in self._groups.items():
            yield group, list(names)

    @property
    def complete(self) -> bool:
        """Whether all nodes were looked at."""
        return self._reached >= len(self._order)

    def _note(self, node: NodeInfo, opinion: Opinion) -> None:
        self._forget(node.name)
        self.opinions[node.name] = opinion
        if opinion.verdict is None:
            self.fitting += 1
            self._groups.setdefault(opinion.group, {})[node.name] = None

    def _forget(self, name: str) -> None:
        known = self.opinions.pop(name, None)
        if known is not None and known.verdict is None:
            self.fitting -= 1
            group = self._groups[known.group]
            del group[name]
            if not group:
                del self._groups[known.group]
