"""One step of a StatefulSet: from the pods there are to what is to be done now. Pure functions.

Under ``OrderedReady`` a step touches one pod, and the next step waits until that pod is available,
or gone; under ``Parallel`` scaling waits for nothing. Updates go from the highest ordinal down, in
both. (https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from wherry.kube.api import meta, pods
from wherry.kube.client.transport import Object
from wherry.kube.controllers.amounts import resolve
from wherry.kube.controllers.histories import template_of
from wherry.kube.controllers.stateful_set.identity import (
    first_ordinal,
    identity_labels,
    make_pod,
    ordinal,
    ordinals,
    revision_of,
)


@dataclass(slots=True)
class Plan:
    """What is to be done now; the order within each list is that of the ordinals."""

    create: list[Object] = field(default_factory=list)
    replace: list[Object] = field(default_factory=list)
    """Pods that have ended: removed, and made again once they are gone."""
    delete: list[Object] = field(default_factory=list)
    repair: list[Object] = field(default_factory=list)
    """Pods that lost the labels of their identity."""
    check_after: float | None = None
    """Seconds until a pod becomes available by the passing of time alone."""


class _View:
    """The set's pods, sorted into those it shall keep and those beyond."""

    def __init__(
        self, set: Object, owned: Sequence[Object], removed: Collection[str], now: datetime
    ) -> None:
        self.wanted = ordinals(set)
        self._removed = removed
        self._now = now
        self._min_ready = set["spec"].get("minReadySeconds") or 0
        numbered = {ordinal(set, pod): pod for pod in owned}
        self.kept = {n: pod for n, pod in numbered.items() if n is not None and n in self.wanted}
        beyond = [n for n in numbered if n is not None and n not in self.wanted]
        self.condemned = [numbered[n] for n in sorted(beyond, reverse=True)]

    def is_leaving(self, pod: Object) -> bool:
        return meta.is_deleting(pod) or meta.uid(pod) in self._removed

    def available_in(self, pod: Object) -> float | None:
        """Seconds until the pod may be relied upon: 0 for now, None for not foreseeable."""
        if self.is_leaving(pod) or pods.phase(pod) != "Running":
            return None
        return pods.available_in(pod, self._min_ready, self._now)

    def is_available(self, pod: Object) -> bool:
        return self.available_in(pod) == 0

    def next_available(self) -> float | None:
        waits = (self.available_in(pod) for pod in (*self.kept.values(), *self.condemned))
        return min((wait for wait in waits if wait), default=None)


def plan(
    set: Object,
    current: Object,
    update: Object,
    owned: Sequence[Object],
    removed: Collection[str],
    now: datetime,
) -> Plan:
    """The next step.

    Args:
        set: the StatefulSet.
        current: the revision that pods not yet to be updated are made from.
        update: the revision of the set's template.
        owned: the set's pods.
        removed: uids of pods whose deletion was asked for and has not shown yet.
        now: the present.
    """
    step = Plan()
    if meta.is_deleting(set):
        return step
    view = _View(set, owned, removed, now)
    step.check_after = view.next_available()
    for n, pod in view.kept.items():
        if not identity_labels(set, n).items() <= meta.labels(pod).items():
            step.repair.append(pod)
    parallel = set["spec"].get("podManagementPolicy") == "Parallel"
    if parallel:
        settled = _scale_at_once(set, current, update, view, step)
    else:
        settled = _scale_in_order(set, current, update, view, step)
    if settled and (set["spec"].get("updateStrategy") or {}).get("type") != "OnDelete":
        step.delete += _outdated(set, update, view)
    return step


def _scale_in_order(set: Object, current: Object, update: Object, view: _View, step: Plan) -> bool:
    """The one pod that is next; whether there is none and nothing is waited for."""
    for n in view.wanted:
        pod = view.kept.get(n)
        if pod is None:
            step.create.append(_versioned(set, current, update, n))
            return False
        if pods.is_finished(pod) and not view.is_leaving(pod):
            step.replace.append(pod)
            return False
        if not view.is_available(pod):
            return False
    if view.condemned:
        last = view.condemned[0]
        # Scaling down halts at a pod that is not well, but for the lowest of those: that may go.
        unwell = [pod for pod in view.condemned if not view.is_available(pod)]
        if not view.is_leaving(last) and (last not in unwell or last is unwell[-1]):
            step.delete.append(last)
        return False
    return True


def _scale_at_once(set: Object, current: Object, update: Object, view: _View, step: Plan) -> bool:
    for n in view.wanted:
        pod = view.kept.get(n)
        if pod is None:
            step.create.append(_versioned(set, current, update, n))
        elif pods.is_finished(pod) and not view.is_leaving(pod):
            step.replace.append(pod)
    step.delete += [pod for pod in view.condemned if not view.is_leaving(pod)]
    return not (step.create or step.replace or step.delete)


def partition(set: Object) -> int:
    """The first ordinal that updates reach."""
    rolling = (set["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}
    return first_ordinal(set) + int(rolling.get("partition") or 0)


def _versioned(set: Object, current: Object, update: Object, n: int) -> Object:
    """The pod to make, of the old revision where the update does not reach yet."""
    strategy = set["spec"].get("updateStrategy") or {}
    old = False
    if strategy.get("type") != "OnDelete":
        if strategy.get("rollingUpdate") is None:
            done = int((set.get("status") or {}).get("currentReplicas") or 0)
            old = n < first_ordinal(set) + done
        else:
            old = n < partition(set)
    revision = current if old else update
    return make_pod(set, template_of(revision), meta.name(revision), n)


def _outdated(set: Object, update: Object, view: _View) -> Iterable[Object]:
    """The pods to take down for the update now: as many as may be missing at once."""
    rolling = (set["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}
    most = resolve(rolling.get("maxUnavailable", 1), len(view.wanted), round_up=False) or 1
    chosen: list[Object] = []
    missing = sum(not view.is_available(pod) for pod in view.kept.values()) if most > 1 else 0
    for n in reversed(view.wanted):
        if n < partition(set) or missing + len(chosen) >= most:
            break
        pod = view.kept[n]
        if revision_of(pod) != meta.name(update) and not view.is_leaving(pod):
            chosen.append(pod)
        elif most == 1 and not view.is_available(pod):
            break
    return chosen


def status(
    set: Object, current: Object, update: Object, owned: Sequence[Object], now: datetime
) -> Object:
    """The set's status."""
    old = set.get("status") or {}
    min_ready = set["spec"].get("minReadySeconds") or 0
    present = [pod for pod in owned if ordinal(set, pod) is not None and pods.phase(pod)]
    ready = [pod for pod in present if pods.phase(pod) == "Running" and pods.is_ready(pod)]
    staying = [revision_of(pod) for pod in present if not meta.is_deleting(pod)]
    updated = staying.count(meta.name(update))
    counts = {
        "readyReplicas": len(ready),
        "currentReplicas": staying.count(meta.name(current)),
        "updatedReplicas": updated,
    }
    current_name = meta.name(current)
    rolls = (set["spec"].get("updateStrategy") or {}).get("type") != "OnDelete"
    if rolls and updated == len(present) == len(ready):
        current_name, counts["currentReplicas"] = meta.name(update), updated
    result: Object = {
        "observedGeneration": meta.generation(set),
        "replicas": len(present),
        "availableReplicas": sum(pods.available_in(pod, min_ready, now) == 0 for pod in ready),
        "currentRevision": current_name,
        "updateRevision": meta.name(update),
        "collisionCount": old.get("collisionCount") or 0,
    }
    result.update((name, count) for name, count in counts.items() if count)
    if old.get("conditions"):
        result["conditions"] = old["conditions"]
    return result
