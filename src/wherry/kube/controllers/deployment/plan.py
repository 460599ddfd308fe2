"""One step of a Deployment: from what is to what is to be done now.

A step changes sizes once and reports; the next step follows when the ReplicaSets have moved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from wherry.kube.api import conditions, meta, pods
from wherry.kube.client.transport import Object
from wherry.kube.controllers.deployment import revisions, rolling, status


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, in this order."""

    create: Object | None
    """The ReplicaSet of a template that has none."""
    update: Sequence[tuple[Object, Object]]
    """ReplicaSets as they are, and as they shall be."""
    delete: Sequence[Object]
    """ReplicaSets beyond the history that is kept."""
    deployment: Object | None
    """The Deployment with the status and the revision annotation to write; None if unchanged."""
    check_after: float | None
    """Seconds until time alone may call for another look."""


def plan(
    deployment: Object,
    replica_sets: Sequence[Object],
    pods_of: Callable[[Object], Sequence[Object]],
    now: datetime,
) -> Plan:
    """The next step for ``deployment``, which owns ``replica_sets``.

    ``pods_of`` tells the pods of a ReplicaSet; only the Recreate strategy asks.
    """
    new, old = revisions.split(deployment, replica_sets)
    if meta.is_deleting(deployment):
        return _finish(deployment, new, old, _Draft(_conditions(deployment)), now, rollout=False)
    draft = _Draft(status.with_pause(deployment, _conditions(deployment), now))
    if new is not None:
        _keep_revision(deployment, new, old, draft, now)
    everything = [*old, *((new,) if new is not None else ())]
    paused = deployment["spec"].get("paused")
    if paused or rolling.is_scaling(deployment, everything):
        draft.sizes = rolling.scale(deployment, new, old)
        draft.marked = {meta.name(rs) for rs in everything if rolling.is_active(rs)}
        if paused:
            draft.delete = revisions.obsolete(deployment, old)
        return _finish(deployment, new, old, draft, now, rollout=False)
    if rolling.is_rolling(deployment):
        settled = _roll(deployment, new, old, draft, now)
    else:
        settled = _recreate(deployment, new, old, pods_of, draft, now)
    if settled and status.is_complete(deployment, deployment.get("status") or {}):
        draft.delete = revisions.obsolete(deployment, old)
    return _finish(deployment, new, old, draft, now, rollout=True)


class _Draft:
    """A plan in the making."""

    def __init__(self, conditions: list[Object]) -> None:
        self.conditions = conditions
        self.create: Object | None = None
        self.sizes: rolling.Sizes = {}
        self.marked: set[str] = set()
        """ReplicaSets whose notes on the Deployment's size are to be brought up to date."""
        self.annotations: dict[str, Object] = {}
        self.delete: list[Object] = []


def _conditions(deployment: Object) -> list[Object]:
    return list((deployment.get("status") or {}).get("conditions") or ())


def _keep_revision(
    deployment: Object, new: Object, old: Sequence[Object], draft: _Draft, now: datetime
) -> None:
    """The present ReplicaSet has the highest revision and the Deployment's annotations."""
    annotations = revisions.annotations_for(deployment, new, revisions.next_revision(old))
    if annotations != meta.annotations(new):
        draft.annotations[meta.name(new)] = annotations
    has_deadline = status.deadline(deployment) is not None
    if has_deadline and conditions.find(draft.conditions, "Progressing") is None:
        message = f'Found new replica set "{meta.name(new)}"'
        found = status.condition("Progressing", "True", "FoundNewReplicaSet", message, now)
        draft.conditions = conditions.put(draft.conditions, found)


def _create(deployment: Object, old: Sequence[Object], draft: _Draft, now: datetime) -> None:
    annotations = revisions.annotations_for(deployment, None, revisions.next_revision(old))
    replicas = rolling.new_size(deployment, old, None)
    draft.create = revisions.make(deployment, replicas, rolling.most(deployment), annotations)
    if status.deadline(deployment) is not None:
        message = f'Created new replica set "{meta.name(draft.create)}"'
        made = status.condition("Progressing", "True", "NewReplicaSetCreated", message, now)
        draft.conditions = conditions.put(draft.conditions, made)


def _roll(
    deployment: Object, new: Object | None, old: Sequence[Object], draft: _Draft, now: datetime
) -> bool:
    """RollingUpdate: grow the new, then shrink the old; whether there was nothing to do."""
    if new is None:
        _create(deployment, old, draft, now)
        new = draft.create
        assert new is not None
    else:
        draft.sizes = rolling.grow_new(deployment, new, [*old, new])
    if not draft.sizes:
        draft.sizes = rolling.shrink_old(deployment, new, old)
    return not draft.sizes and draft.create is None


def _recreate(
    deployment: Object,
    new: Object | None,
    old: Sequence[Object],
    pods_of: Callable[[Object], Sequence[Object]],
    draft: _Draft,
    now: datetime,
) -> bool:
    """Recreate: no new pod before the last old one is gone."""
    draft.sizes = {meta.name(rs): 0 for rs in old if rolling.is_active(rs)}
    if draft.sizes:
        return False
    for rs in old:
        if (rs.get("status") or {}).get("replicas"):
            return False
        if any(not pods.is_finished(pod) for pod in pods_of(rs)):
            return False
    if new is None:
        _create(deployment, old, draft, now)
        return False
    if rolling.size(new) != rolling.size(deployment):
        draft.sizes = {meta.name(new): rolling.size(deployment)}
    return not draft.sizes


def _finish(
    deployment: Object,
    new: Object | None,
    old: Sequence[Object],
    draft: _Draft,
    now: datetime,
    *,
    rollout: bool,
) -> Plan:
    """The plan, with the status that holds once it is carried out."""
    updates: list[tuple[Object, Object]] = []
    after: dict[str, Object] = {}
    present = [*old, *((new,) if new is not None else ())]
    for rs in present:
        changed = _changed(deployment, rs, draft, is_new=rs is new)
        if changed is not rs:
            updates.append((rs, changed))
        after[meta.name(rs)] = changed
    if new is not None:
        new = after[meta.name(new)]
    elif draft.create is not None:
        new = draft.create
        after[meta.name(new)] = new
    everything = list(after.values())
    report = status.counts(deployment, new, everything)
    kept = status.with_availability(deployment, report, draft.conditions, now)
    if rollout:
        kept = status.with_progress(deployment, new, report, kept, now)
        kept = status.with_failures(new, everything, kept)
    if kept:
        report["conditions"] = kept
    return Plan(
        create=draft.create,
        update=updates,
        delete=draft.delete,
        deployment=_reported(deployment, new, report),
        check_after=status.next_check(deployment, report, now) if rollout else None,
    )


def _changed(deployment: Object, rs: Object, draft: _Draft, *, is_new: bool) -> Object:
    """The ReplicaSet as the draft wants it: itself where nothing changes."""
    name = meta.name(rs)
    annotations = draft.annotations.get(name, meta.annotations(rs))
    if name in draft.sizes or name in draft.marked:
        marks = revisions.scale_annotations(deployment, rolling.most(deployment))
        annotations = {**annotations, **marks}
    spec = rs["spec"]
    if name in draft.sizes and draft.sizes[name] != rolling.size(rs):
        spec = {**spec, "replicas": draft.sizes[name]}
    min_ready = deployment["spec"].get("minReadySeconds") or 0
    if is_new and min_ready != (spec.get("minReadySeconds") or 0):
        spec = {**spec, "minReadySeconds": min_ready}
    if spec is rs["spec"] and annotations == meta.annotations(rs):
        return rs
    return {**rs, "metadata": {**rs["metadata"], "annotations": annotations}, "spec": spec}


def _reported(deployment: Object, new: Object | None, report: Object) -> Object | None:
    """The Deployment with its new status, and the revision of the new ReplicaSet."""
    annotations = dict(meta.annotations(deployment))
    if new is not None and revisions.REVISION in meta.annotations(new):
        annotations[revisions.REVISION] = meta.annotations(new)[revisions.REVISION]
    unchanged = annotations == meta.annotations(deployment)
    if unchanged and report == (deployment.get("status") or {}):
        return None
    metadata = {**deployment["metadata"], "annotations": annotations}
    return {**deployment, "metadata": metadata, "status": report}
