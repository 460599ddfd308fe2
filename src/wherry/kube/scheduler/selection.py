"""Which pods a rule means, so that it is found by a pod's labels and need not be asked.

Nearly every selector demands some value of a label. What selects is filed under that, and a pod is
compared with what lies under its own labels only: what a rule costs does not grow with the number
of rules about others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from wherry.kube.api.selectors import LabelSelector

T = TypeVar("T")
_Label = tuple[str, str]
_Spot = tuple[str | None, _Label | None]


@dataclass(frozen=True, slots=True)
class Reach:
    """Where the pods are that may be meant: no others are, but not all of these need be."""

    namespaces: frozenset[str] | None
    """None stands for any: the labels of namespaces decide."""
    labels: tuple[_Label, ...] | None
    """Each pod has one of these; None where nothing is known of their labels."""

    @classmethod
    def of(cls, namespaces: Iterable[str] | None, selector: LabelSelector) -> Reach:
        """The reach of a selector in namespaces."""
        within = None if namespaces is None else frozenset(namespaces)
        if selector.nothing:
            return cls(within, ())
        for requirement in selector.requirements:
            if requirement.operator in ("in", "=", "=="):
                return cls(within, tuple((requirement.key, v) for v in requirement.values))
        return cls(within, None)

    def spots(self) -> Iterator[_Spot]:
        """Where to file what has this reach: a pod meets it once."""
        for namespace in (None,) if self.namespaces is None else self.namespaces:
            for label in (None,) if self.labels is None else self.labels:
                yield namespace, label


class Index(Generic[T]):
    """Things by their reach. They are found in the order in which they came to each spot."""

    def __init__(self) -> None:
        self._spots: dict[_Spot, dict[T, None]] = {}

    def __bool__(self) -> bool:
        return bool(self._spots)

    def add(self, reach: Reach, thing: T) -> None:
        for spot in reach.spots():
            self._spots.setdefault(spot, {})[thing] = None

    def discard(self, reach: Reach, thing: T) -> None:
        for spot in reach.spots():
            things = self._spots.get(spot)
            if things is not None:
                things.pop(thing, None)
                if not things:
                    del self._spots[spot]

    def find(self, namespace: str, labels: Mapping[str, str]) -> Iterator[T]:
        """What may mean a pod of the namespace with such labels."""
        spots = self._spots
        if not spots:
            return
        for label in (*labels.items(), None):
            for where in (namespace, None):
                things = spots.get((where, label))
                if things is not None:
                    yield from things
