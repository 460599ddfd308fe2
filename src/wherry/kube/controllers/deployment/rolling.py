"""How many pods each ReplicaSet may have on the way from one revision to the next.

Two promises hold at every step: never more than ``replicas + maxSurge`` pods are asked for or there
(those that are being deleted not counted), and never fewer than ``replicas - maxUnavailable`` are
available because of us. Every function takes what is and returns new sizes, by the name of the
ReplicaSet, for those whose size changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wherry.kube.api import meta
from wherry.kube.client.transport import Object
from wherry.kube.controllers.amounts import resolve
from wherry.kube.controllers.deployment.revisions import (
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    creation_order,
    number,
)

Sizes = dict[str, int]


def size(object: Object) -> int:
    """How many pods a ReplicaSet or Deployment asks for."""
    return int(object["spec"].get("replicas", 1))


def total(replica_sets: Iterable[Object]) -> int:
    return sum(map(size, replica_sets))


def present(replica_set: Object) -> int:
    """How many pods there may be of it: those it asks for, or those it was asked for before and has
    not given up yet."""
    return max(size(replica_set), (replica_set.get("status") or {}).get("replicas") or 0)


def is_observed(replica_set: Object) -> bool:
    """Whether its status was written for its present size.

    One that is older may count pods that are gone: nothing may be built upon it.
    """
    observed = (replica_set.get("status") or {}).get("observedGeneration") or 0
    return bool(observed >= meta.generation(replica_set))


def available(replica_set: Object) -> int:
    """How many of the pods it will keep are known to be available."""
    if not is_observed(replica_set):
        return 0
    reported = (replica_set.get("status") or {}).get("availableReplicas") or 0
    return min(reported, size(replica_set))


def is_active(replica_set: Object) -> bool:
    """Whether it asks for any pods."""
    return size(replica_set) > 0


def is_rolling(deployment: Object) -> bool:
    strategy = deployment["spec"].get("strategy") or {}
    return (strategy.get("type") or "RollingUpdate") == "RollingUpdate"


def limits(deployment: Object) -> tuple[int, int]:
    """``maxSurge`` and ``maxUnavailable`` as numbers of pods.

    Percentages of the size round up for the surge and down for the unavailable; if that leaves
    both at 0, one pod may be unavailable, or nothing would ever move.
    """
    wanted = size(deployment)
    if not is_rolling(deployment):
        return 0, 0
    parameters = (deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {}
    surge = resolve(parameters.get("maxSurge", "25%"), wanted, round_up=True)
    unavailable = resolve(parameters.get("maxUnavailable", "25%"), wanted, round_up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, wanted)


def most(deployment: Object) -> int:
    """How many pods there may be in all."""
    return size(deployment) + limits(deployment)[0]


def new_size(deployment: Object, everything: Sequence[Object], new: Object | None) -> int:
    """How many pods the new ReplicaSet (None: not made yet) gets now."""
    current = size(new) if new is not None else 0
    if not is_rolling(deployment):
        return size(deployment)
    room = most(deployment) - sum(map(present, everything))
    if room <= 0:
        return current
    return current + max(0, min(room, size(deployment) - current))


def grow_new(deployment: Object, new: Object, everything: Sequence[Object]) -> Sizes:
    """The new ReplicaSet takes the room that is there, or shrinks to the size wanted."""
    if size(new) > size(deployment):
        wanted = size(deployment)
    else:
        wanted = new_size(deployment, everything, new)
    return {meta.name(new): wanted} if wanted != size(new) else {}


def shrink_old(deployment: Object, new: Object, old: Sequence[Object]) -> Sizes:
    """Old ReplicaSets give up pods: first those that do not work anyway, then as many of the
    others as the new ones have made up for."""
    active = sorted(filter(is_active, old), key=creation_order)
    if not active:
        return {}
    least = size(deployment) - limits(deployment)[1]
    not_yet = size(new) - available(new)
    may_go = total([*active, new]) - least - not_yet
    if may_go <= 0:
        return {}
    sizes = {meta.name(rs): size(rs) for rs in active}
    gone = 0
    settled = [rs for rs in active if is_observed(rs)]
    for rs in settled:
        broken = min(may_go - gone, size(rs) - available(rs))
        if broken > 0:
            sizes[meta.name(rs)] -= broken
            gone += broken
    spare = sum(map(available, active)) + available(new) - least
    for rs in settled:
        healthy = min(max(spare, 0), sizes[meta.name(rs)])
        sizes[meta.name(rs)] -= healthy
        spare -= healthy
    return {
        meta.name(rs): sizes[meta.name(rs)] for rs in active if sizes[meta.name(rs)] != size(rs)
    }


def is_scaling(deployment: Object, everything: Iterable[Object]) -> bool:
    """Whether the Deployment's size was changed since its ReplicaSets were sized."""
    for rs in filter(is_active, everything):
        desired = number(rs, DESIRED_REPLICAS)
        if desired is not None and desired != size(deployment):
            return True
    return False


def scale(deployment: Object, new: Object | None, old: Sequence[Object]) -> Sizes:
    """The sizes when the Deployment's own size changed, or it is paused.

    One ReplicaSet takes the whole change; several in mid-rollout share it in proportion to their
    sizes, so that the risk of a new revision stays what it was.
    """
    wanted = size(deployment)
    everything = [*old, *((new,) if new is not None else ())]
    active = [rs for rs in everything if is_active(rs)]
    if len(active) <= 1:
        only = active[0] if active else new or (old[-1] if old else None)
        if only is None or size(only) == wanted:
            return {}
        return {meta.name(only): wanted}
    if new is not None and _is_saturated(deployment, new):
        return {meta.name(rs): 0 for rs in old if is_active(rs)}
    if not is_rolling(deployment):
        return {}
    return _in_proportion(deployment, active)


def _is_saturated(deployment: Object, rs: Object) -> bool:
    wanted = size(deployment)
    return number(rs, DESIRED_REPLICAS) == wanted and size(rs) == available(rs) == wanted


def _in_proportion(deployment: Object, active: Sequence[Object]) -> Sizes:
    allowed = most(deployment) if size(deployment) > 0 else 0
    change = allowed - total(active)
    # The largest first; of equals, growth favours the newer and shrinking the older.
    ordered = sorted(active, key=creation_order, reverse=change >= 0)
    ordered.sort(key=size, reverse=True)
    sizes: Sizes = {}
    given = 0
    for rs in ordered:
        part = _share(deployment, rs, change, given) if change else 0
        sizes[meta.name(rs)] = size(rs) + part
        given += part
    if change and ordered:
        largest = meta.name(ordered[0])
        sizes[largest] = max(0, sizes[largest] + change - given)
    return sizes


def _share(deployment: Object, rs: Object, change: int, given: int) -> int:
    if not size(rs) or change == given:
        return 0
    part, left = _fraction(deployment, rs), change - given
    return min(part, left) if change > 0 else max(part, left)


def _fraction(deployment: Object, rs: Object) -> int:
    """By how much the ReplicaSet changes if it keeps its proportion of the whole."""
    if not size(deployment):
        return -size(rs)
    before = number(rs, MAX_REPLICAS) or (deployment.get("status") or {}).get("replicas") or 0
    if not before:
        return 0
    doubled = 2 * size(rs) * most(deployment)
    return (doubled + before) // (2 * before) - size(rs)  # rounded half up
