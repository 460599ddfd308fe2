"""Where room can be made for a pod that fits nowhere, and where that does the least harm."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from wherry.kube.scheduler.snapshot import PodInfo

_OFFSET = 2**31  # makes the sum of negative priorities grow with the number of victims, too


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node, and the pods that would have to go, the most important first."""

    node: str
    victims: tuple[PodInfo, ...]
    violations: int = 0
    """How many of them a PodDisruptionBudget would keep."""


@dataclass(frozen=True, slots=True)
class Room:
    """How room can be made."""

    message: str = ""
    """Goes behind the reasons that users see."""
    node: str = ""
    """Where the pod will fit once ``victims`` are gone; empty if nothing can be done."""
    victims: tuple[PodInfo, ...] = ()
    hopeless: bool = False
    """No pod that leaves would help on any node: a nomination of before is void."""
    candidates: tuple[Candidate, ...] = ()
    """All nodes that come into question, where somebody else shall have a say."""


def least_harm(candidates: Iterable[Candidate]) -> Candidate:
    """The one to choose, in upstream's order."""
    return min(candidates, key=_harm)


def importance(pod: PodInfo) -> tuple[int, str]:
    """Sorts the most important first: by priority, then the one that runs longest."""
    return -pod.priority, _start(pod)


def _start(pod: PodInfo) -> str:
    return (pod.object.get("status") or {}).get("startTime") or "9"


class _Latest(str):
    """Sorts later texts first."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str(self) > str(other)


def _harm(candidate: Candidate) -> tuple[int, int, int, int, _Latest]:
    """Fewest violated budgets, lowest highest priority, lowest sum of priorities, fewest victims,
    and the latest start of the most important of them."""
    priorities = [victim.priority for victim in candidate.victims]
    highest = max(priorities)
    earliest = min(_start(victim) for victim in candidate.victims if victim.priority == highest)
    total = sum(priority + _OFFSET for priority in priorities)
    return candidate.violations, highest, total, len(priorities), _Latest(earliest)


__all__ = ["Candidate", "Room", "importance", "least_harm"]
