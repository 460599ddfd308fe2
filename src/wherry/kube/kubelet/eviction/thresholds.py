"""The signals of ``evictionHard`` and ``evictionSoft``, and when one counts as crossed. No I/O.

Follows pkg/kubelet/eviction/helpers.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from wherry.kube.api import quantity

MEMORY = "memory.available"
NODEFS, NODEFS_INODES = "nodefs.available", "nodefs.inodesFree"
IMAGEFS, IMAGEFS_INODES = "imagefs.available", "imagefs.inodesFree"
CONTAINERFS, CONTAINERFS_INODES = "containerfs.available", "containerfs.inodesFree"
PIDS = "pid.available"

CONDITIONS: Mapping[str, str] = {
    MEMORY: "MemoryPressure",
    NODEFS: "DiskPressure",
    NODEFS_INODES: "DiskPressure",
    IMAGEFS: "DiskPressure",
    IMAGEFS_INODES: "DiskPressure",
    CONTAINERFS: "DiskPressure",
    CONTAINERFS_INODES: "DiskPressure",
    PIDS: "PIDPressure",
}
RESOURCES: Mapping[str, str] = {
    MEMORY: "memory",
    NODEFS: "ephemeral-storage",
    IMAGEFS: "ephemeral-storage",
    CONTAINERFS: "ephemeral-storage",
    NODEFS_INODES: "inodes",
    IMAGEFS_INODES: "inodes",
    CONTAINERFS_INODES: "inodes",
    PIDS: "pids",
}
DEFAULT_HARD: Mapping[str, str] = {
    MEMORY: "100Mi",
    NODEFS: "10%",
    NODEFS_INODES: "5%",
    IMAGEFS: "15%",
    IMAGEFS_INODES: "5%",
}


@dataclass(frozen=True, slots=True)
class Amount:
    """So many units (bytes, inodes, processes), or a part (0 to 1) of what there is in all."""

    units: int = 0
    part: float | None = None

    def of(self, capacity: int) -> int:
        """The amount in units."""
        return self.units if self.part is None else int(capacity * self.part)

    def describe(self, capacity: int, signal: str) -> str:
        """As messages tell it."""
        return describe(self.of(capacity), signal)


@dataclass(frozen=True, slots=True)
class Threshold:
    """Crossed while less than ``amount`` is left; a soft one when that has lasted ``grace`` s."""

    signal: str
    amount: Amount
    grace: float = 0.0
    soft: bool = False
    reclaim: Amount = Amount()  # so much more must be free again before it counts as resolved


@dataclass(frozen=True, slots=True)
class Observation:
    """What there is of a signal's resource: bytes, inodes or processes."""

    available: int
    capacity: int


def describe(units: int, signal: str) -> str:
    """A number of units as upstream prints it: bytes with binary suffixes, others plain."""
    binary = RESOURCES[signal] in ("memory", "ephemeral-storage")
    return str(quantity.from_int(units, "BinarySI" if binary else "DecimalSI"))


def parse_amount(text: str) -> Amount:
    """``100Mi`` or ``10%``.

    Raises:
        ValueError: it is neither, or less than nothing.
    """
    if text.endswith("%"):
        part = float(text[:-1]) / 100
        if not 0 <= part <= 1:
            raise ValueError(f"eviction percentage threshold must be between 0 and 100%: {text}")
        return Amount(part=part)
    units = quantity.parse(text).to_int()
    if units < 0:
        raise ValueError(f"eviction threshold must be positive: {text}")
    return Amount(units)


def parse_thresholds(
    hard: Mapping[str, str],
    soft: Mapping[str, str],
    graces: Mapping[str, float],
    reclaims: Mapping[str, str],
) -> tuple[Threshold, ...]:
    """All thresholds, hard ones first. ``0%`` and ``100%`` switch a hard one off, as upstream.

    Raises:
        ValueError: one of them makes no sense.
    """
    made = []
    least = {signal: parse_amount(text) for signal, text in reclaims.items()}
    for signal, text in hard.items():
        _check(signal)
        if text in ("0%", "100%"):
            continue
        made.append(Threshold(signal, parse_amount(text), reclaim=least.get(signal, Amount())))
    for signal, text in soft.items():
        _check(signal)
        if signal not in graces:
            raise ValueError(
                f"grace period must be specified for the soft eviction threshold {signal}"
            )
        made.append(
            Threshold(signal, parse_amount(text), graces[signal], True, least.get(signal, Amount()))
        )
    return tuple(made)


def _check(signal: str) -> None:
    if signal not in CONDITIONS:
        raise ValueError(f"unsupported eviction signal {signal}")


def crossed(
    thresholds: Iterable[Threshold], seen: Mapping[str, Observation], *, resolved: bool = False
) -> list[Threshold]:
    """Those of which less is left than they ask; with ``resolved`` also less than to reclaim."""
    found = []
    for threshold in thresholds:
        observation = seen.get(threshold.signal)
        if observation is None:
            continue
        wanted = threshold.amount.of(observation.capacity)
        if resolved:
            wanted += threshold.reclaim.of(observation.capacity)
        if observation.available < wanted:
            found.append(threshold)
    return found


@dataclass(slots=True)
class Pressure:
    """What was short when: the memory between two looks.

    Attributes:
        since: when each threshold was first seen crossed, by the same clock as ``now``.
        last: when each condition was last met.
    """

    since: dict[Threshold, float]
    last: dict[str, float]
    active: list[Threshold]
    conditions: frozenset[str] = frozenset()

    @classmethod
    def none(cls) -> Pressure:
        """Nothing was ever short."""
        return cls({}, {}, [])


def look(
    before: Pressure,
    thresholds: Iterable[Threshold],
    seen: Mapping[str, Observation],
    now: float,
    transition: float,
) -> Pressure:
    """The next state: what is crossed, for how long, and which conditions the node has.

    A condition stays for ``transition`` seconds after it was last met, so that it does not flap.
    ``active`` are the thresholds for which pods must go now.
    """
    every = list(thresholds)
    short = crossed(every, seen)
    short += [
        t for t in crossed(before.active, seen, resolved=True) if t not in short and t in every
    ]
    since = {t: before.since.get(t, now) for t in short}
    met = {CONDITIONS[t.signal] for t in short}
    last = {**before.last, **dict.fromkeys(met, now)}
    kept = frozenset(c for c, moment in last.items() if now - moment < transition or c in met)
    active = [t for t in short if now - since[t] >= t.grace]
    return Pressure(since, last, active, kept)
