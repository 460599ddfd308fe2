"""Which pods go so that a critical one finds room. No I/O.

A pod without which the node is worth nothing is not refused for want of resources: others make
room, best-effort ones before burstable ones before guaranteed ones, and of each class those whose
requests come nearest to what is missing. Follows pkg/kubelet/preemption/preemption.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wherry.kube.api import amounts, quantity
from wherry.kube.kubelet import pods
from wherry.kube.kubelet.resources import BEST_EFFORT, BURSTABLE, GUARANTEED, qos_class, units

Object = dict[str, Any]
Needs = dict[str, int]
"""What is missing, by resource: thousandths of a CPU, else whole units."""

REASON = "Preempting"
MESSAGE = "Preempted in order to admit critical pod"
CONDITION = "Pod was preempted by Kubelet to accommodate a critical pod."


class NoRoom(Exception):
    """Not all that may go together would make room; ``str()`` is upstream's sentence."""


def may_preempt(pod: Object, other: Object) -> bool:
    """Whether ``other`` may have to go for ``pod``."""
    if pods.is_critical(pod) and not pods.is_critical(other):
        return True
    ours, theirs = pod["spec"].get("priority"), other["spec"].get("priority")
    return ours is not None and theirs is not None and int(ours) > int(theirs)


def victims(pod: Object, others: Iterable[Object], missing: Mapping[str, int]) -> list[Object]:
    """The pods that go for ``pod``, in the order in which they do.

    Args:
        others: the pods of the node that have not ended.
        missing: what there is too little of.

    Raises:
        NoRoom: it would not be enough if all went that may.
    """
    classes: dict[str, list[Object]] = {BEST_EFFORT: [], BURSTABLE: [], GUARANTEED: []}
    for other in others:
        if may_preempt(pod, other):
            classes[qos_class(other)].append(other)
    best_effort, burstable, guaranteed = classes.values()
    lacking = without(missing, [*best_effort, *burstable, *guaranteed])
    if lacking:
        raise NoRoom(_unmet(lacking))
    # Each class gives only what the humbler ones cannot, even if all of those went.
    from_guaranteed = nearest(guaranteed, without(missing, [*best_effort, *burstable]))
    from_burstable = nearest(burstable, without(missing, [*best_effort, *from_guaranteed]))
    rest = without(missing, [*from_burstable, *from_guaranteed])
    return [*nearest(best_effort, rest), *from_burstable, *from_guaranteed]


def nearest(offered: Iterable[Object], missing: Mapping[str, int]) -> list[Object]:
    """The pods of one class that give ``missing``, each time the one that comes nearest to it.

    Raises:
        NoRoom: all of them are not enough.
    """
    left, needs, chosen = list(offered), dict(missing), []
    while needs:
        if not left:
            raise NoRoom(_unmet(needs))
        best = min(left, key=lambda p: (distance(p, needs), _size(p)))
        left.remove(best)
        chosen.append(best)
        needs = without(needs, [best])
    return chosen


def requested(pod: Object, name: str) -> int:
    """What a pod asks for; each is one of ``pods``."""
    if name == "pods":
        return 1
    asked = amounts.of_pod(pod, "requests", overhead=True)
    return units(name, asked.get(name, quantity.ZERO))


def without(missing: Mapping[str, int], gone: Sequence[Object]) -> Needs:
    """What would still be missing if ``gone`` had gone."""
    left = {name: need - sum(requested(p, name) for p in gone) for name, need in missing.items()}
    return {name: need for name, need in left.items() if need > 0}


def distance(pod: Object, missing: Mapping[str, int]) -> float:
    """How far the pod's requests are from ``missing``: 0 where they are enough, 1 a resource of
    which they have none."""
    short = ((need - requested(pod, name), need) for name, need in missing.items())
    return float(sum((less / need) ** 2 for less, need in short if less > 0))


def _size(pod: Object) -> tuple[int, int]:
    return requested(pod, "memory"), requested(pod, "cpu")


def _unmet(missing: Mapping[str, int]) -> str:
    listed = "".join(f"(res: {name}, q: {need}), " for name, need in missing.items())
    return f"no set of running pods found to reclaim resources: [{listed}]"
