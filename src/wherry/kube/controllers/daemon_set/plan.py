"""One step of a DaemonSet: which pods to make and to remove, and what to report. Pure functions.

First every node gets what belongs there; then, where the strategy is RollingUpdate, pods of older
revisions give way: within ``maxUnavailable`` by being removed, within ``maxSurge`` by getting a new
pod beside them first.
(https://kubernetes.io/docs/tasks/manage-daemon/update-daemon-set/)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from wherry.kube.api import meta, pods
from wherry.kube.client.transport import Object
from wherry.kube.controllers.amounts import resolve
from wherry.kube.controllers.daemon_set.placement import Belongs, belongs, node_of
from wherry.kube.controllers.histories import HASH_LABEL

BURST = 250
"""The most pods made or removed in one go."""


@dataclass(slots=True)
class Plan:
    """What is to be done now."""

    create: list[str] = field(default_factory=list)
    """Nodes that get a pod."""
    delete: list[Object] = field(default_factory=list)
    failed: list[tuple[str, Object]] = field(default_factory=list)
    """Pods among ``delete`` that failed, and on which node: its next pod waits longer."""
    succeeded: list[tuple[str, Object]] = field(default_factory=list)
    check_after: float | None = None
    """Seconds until time alone calls for another look."""

    def look_again(self, seconds: float) -> None:
        if self.check_after is None or seconds < self.check_after:
            self.check_after = seconds


class View:
    """The set's pods by node, as the nodes stand."""

    def __init__(
        self,
        set: Object,
        nodes: Sequence[Object],
        owned: Sequence[Object],
        removed: Collection[str],
        now: datetime,
    ) -> None:
        self.min_ready = set["spec"].get("minReadySeconds") or 0
        self.now = now
        self._removed = removed
        self.belongs: Mapping[str, Belongs] = {meta.name(n): belongs(set, n) for n in nodes}
        self.pods: defaultdict[str, list[Object]] = defaultdict(list)
        for pod in owned:
            if not (meta.is_deleting(pod) and pods.is_finished(pod)):
                self.pods[node_of(pod)].append(pod)
        for on_node in self.pods.values():
            on_node.sort(key=_age)

    def is_leaving(self, pod: Object) -> bool:
        return meta.is_deleting(pod) or meta.uid(pod) in self._removed

    def staying(self, node: str) -> list[Object]:
        """The node's pods that nobody is removing, oldest first."""
        return [pod for pod in self.pods.get(node, ()) if not self.is_leaving(pod)]

    def available_in(self, pod: Object) -> float | None:
        """Seconds until the pod counts as available, None if that cannot be foreseen."""
        return pods.available_in(pod, self.min_ready, self.now)

    def is_available(self, pod: Object) -> bool:
        return self.available_in(pod) == 0


def _age(pod: Object) -> tuple[bool, str, str]:
    """Pods that have a node first, then by age."""
    created = pod["metadata"].get("creationTimestamp") or ""
    return not pod["spec"].get("nodeName"), created, meta.name(pod)


def is_current(pod: Object, hash: str) -> bool:
    """Whether the pod was made from the revision with that hash."""
    return meta.labels(pod).get(HASH_LABEL) == hash


def limits(set: Object, wanted: int) -> tuple[int, int]:
    """``maxSurge`` and ``maxUnavailable`` as numbers of nodes."""
    rolling = (set["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}
    surge = resolve(rolling.get("maxSurge", 0), wanted, round_up=True)
    unavailable = resolve(rolling.get("maxUnavailable", 1), wanted, round_up=True)
    return surge, max(unavailable, 0 if surge else 1)


def rolls(set: Object) -> bool:
    strategy = set["spec"].get("updateStrategy") or {}
    return (strategy.get("type") or "RollingUpdate") == "RollingUpdate"


def plan(set: Object, hash: str, view: View, held: Callable[[str], float]) -> Plan:
    """The next step.

    Args:
        set: the DaemonSet.
        hash: that of the revision of its template.
        view: the nodes and pods.
        held: seconds for which a node's failed pod is still to be left alone.
    """
    step = Plan()
    if meta.is_deleting(set):
        return step
    wanted = sum(place.runs for place in view.belongs.values())
    surge, unavailable = limits(set, wanted)
    if not rolls(set):
        surge = 0
    for node, place in view.belongs.items():
        _tend(node, place, hash, surge > 0, view, step, held)
    for node, on_node in view.pods.items():
        if node not in view.belongs:
            # Bound for a node that is gone; one that was there is for the pod garbage collector.
            step.delete += [
                pod
                for pod in on_node
                if not pod["spec"].get("nodeName") and not view.is_leaving(pod)
            ]
    if rolls(set) and not step.create and not step.delete:
        if surge:
            _surge(hash, surge, view, step)
        else:
            _replace(hash, unavailable, view, step)
    for on_node in view.pods.values():
        for pod in on_node:
            wait = view.available_in(pod)
            if wait:
                step.look_again(wait)
    step.create = step.create[:BURST]
    step.delete = step.delete[:BURST]
    return step


def _tend(
    node: str,
    place: Belongs,
    hash: str,
    surging: bool,
    view: View,
    step: Plan,
    held: Callable[[str], float],
) -> None:
    """See that one node has what belongs on it."""
    present = view.pods.get(node, ())
    if not place.stays:
        step.delete += view.staying(node)
        return
    if not present:
        if place.runs:
            step.create.append(node)
        return
    running: list[Object] = []
    for pod in view.staying(node):
        match pods.phase(pod):
            case "Failed":
                wait = held(node)
                if wait > 0:
                    step.look_again(wait)
                else:
                    step.failed.append((node, pod))
                    step.delete.append(pod)
            case "Succeeded":
                step.succeeded.append((node, pod))
                step.delete.append(pod)
            case _:
                running.append(pod)
    if not surging:
        step.delete += running[1:]
        return
    new = [pod for pod in running if is_current(pod, hash)]
    old = [pod for pod in running if not is_current(pod, hash)]
    step.delete += new[1:] + old[1:]
    if new and old and (not pods.is_ready(old[0]) or view.is_available(new[0])):
        step.delete.append(old[0])


def _one_of_each(node: str, hash: str, view: View) -> tuple[Object | None, Object | None] | None:
    """The node's pod of the present revision and that of an older; None where more are there."""
    new = [pod for pod in view.pods[node] if is_current(pod, hash)]
    old = [pod for pod in view.pods[node] if not is_current(pod, hash)]
    if len(new) > 1 or len(old) > 1:
        return None
    return (new[0] if new else None), (old[0] if old else None)


def _replace(hash: str, most: int, view: View, step: Plan) -> None:
    """Remove old pods, so that no more than ``most`` nodes are without an available one."""
    missing = 0
    broken: list[Object] = []
    candidates: list[Object] = []
    for node, place in view.belongs.items():
        if node not in view.pods or not place.stays:
            continue
        found = _one_of_each(node, hash, view)
        if found is None:
            missing += 1
            continue
        new, old = found
        if old is None or new is not None:
            missing += old is not None or new is None or not view.is_available(new)
        elif view.is_leaving(old):
            missing += 1
        elif not view.is_available(old):
            broken.append(old)
            missing += 1
        else:
            candidates.append(old)
    step.delete += broken + candidates[: max(0, most - missing)]


def _surge(hash: str, most: int, view: View, step: Plan) -> None:
    """Put new pods beside old ones, on no more than ``most`` nodes at once."""
    extra = 0
    broken: list[str] = []
    candidates: list[str] = []
    for node, place in view.belongs.items():
        if node not in view.pods or not place.runs:
            continue
        found = _one_of_each(node, hash, view)
        if found is None:
            extra += 1
            continue
        new, old = found
        if old is None:
            continue
        if new is None:
            (candidates if view.is_available(old) else broken).append(node)
        elif not view.is_available(new):
            extra += 1
        elif not view.is_leaving(old):
            step.delete.append(old)
    step.create += broken + candidates[: max(0, most - extra)]


def status(set: Object, hash: str, view: View) -> Object:
    """The set's status."""
    old = set.get("status") or {}
    desired = current = misplaced = ready = available = updated = 0
    for node, place in view.belongs.items():
        present = view.pods.get(node)
        if not place.runs:
            misplaced += bool(present)
            continue
        desired += 1
        if not present:
            continue
        current += 1
        ready_pods = [pod for pod in present if pods.is_ready(pod)]
        ready += bool(ready_pods)
        available += any(view.is_available(pod) for pod in ready_pods)
        updated += any(is_current(pod, hash) for pod in present)
    result: Object = {
        "currentNumberScheduled": current,
        "desiredNumberScheduled": desired,
        "numberMisscheduled": misplaced,
        "numberReady": ready,
        "observedGeneration": meta.generation(set),
    }
    counts = {
        "updatedNumberScheduled": updated,
        "numberAvailable": available,
        "numberUnavailable": desired - available,
        "collisionCount": old.get("collisionCount"),
    }
    result.update((name, count) for name, count in counts.items() if count)
    if old.get("conditions"):
        result["conditions"] = old["conditions"]
    return result
