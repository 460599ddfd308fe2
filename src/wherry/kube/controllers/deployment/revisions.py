"""Which ReplicaSet is which revision of a Deployment, and what is written on it.

A Deployment's template is a revision's identity: the ReplicaSet with an equal template is the new
one, all others are old. Numbers are kept in annotations, where ``kubectl rollout`` looks for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.resources import DEPLOYMENTS, REPLICA_SETS
from wherry.kube.client.transport import Object
from wherry.kube.controllers.hashing import template_hash
from wherry.kube.controllers.ownership import controller_reference

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_ROLLBACK_TO = "deprecated.deployment.rollback.to"

# What is on a Deployment and must not be copied to its ReplicaSets.
_NOT_COPIED = frozenset(
    (_LAST_APPLIED, REVISION, REVISION_HISTORY, DESIRED_REPLICAS, MAX_REPLICAS, _ROLLBACK_TO)
)
_HISTORY_LIMIT = 2000  # characters, so that the annotation does not grow for ever


def _without_hash(template: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = template.get("metadata") or {}
    labels = {k: v for k, v in (metadata.get("labels") or {}).items() if k != HASH_LABEL}
    # The server writes creationTimestamp: null into templates, or leaves it out.
    rest = {k: v for k, v in metadata.items() if k not in ("labels", "creationTimestamp") and v}
    return {**template, "metadata": {**rest, "labels": labels}}


def same_template(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether both make the same pods, the hash label apart."""
    return _without_hash(a) == _without_hash(b)


def creation_order(replica_set: Object) -> tuple[str, str]:
    """Sorts ReplicaSets from oldest to newest."""
    return replica_set["metadata"].get("creationTimestamp") or "", meta.name(replica_set)


def split(deployment: Object, replica_sets: Iterable[Object]) -> tuple[Object | None, list[Object]]:
    """The ReplicaSet of the present template (the oldest of several), and all others by age."""
    template = deployment["spec"]["template"]
    ordered = sorted(replica_sets, key=creation_order)
    new = next((rs for rs in ordered if same_template(rs["spec"]["template"], template)), None)
    return new, [rs for rs in ordered if rs is not new]


def revision(object: Object) -> int:
    """The revision number on a ReplicaSet or Deployment; 0 where there is none."""
    text = meta.annotations(object).get(REVISION, "0")
    return int(text) if text.isascii() and text.isdigit() else 0


def number(object: Object, annotation: str) -> int | None:
    """The number in an annotation, or None."""
    text = meta.annotations(object).get(annotation, "")
    return int(text) if text.isascii() and text.isdigit() else None


def annotations_for(deployment: Object, replica_set: Object | None, revision: int) -> Object:
    """What a ReplicaSet of the present template has for annotations.

    It takes over the Deployment's own (``kubernetes.io/change-cause`` among them). A ReplicaSet
    that comes back from history gets the new number and remembers the old.
    """
    result = dict(meta.annotations(replica_set)) if replica_set is not None else {}
    result.update(
        (key, value)
        for key, value in meta.annotations(deployment).items()
        if key not in _NOT_COPIED
    )
    old = result.get(REVISION, "")
    old_number = int(old) if old.isascii() and old.isdigit() else 0
    if old_number < revision:
        result[REVISION] = str(revision)
        if old:
            result[REVISION_HISTORY] = _remember(result.get(REVISION_HISTORY, ""), old)
    return result


def _remember(history: str, old: str) -> str:
    entries = [*filter(None, history.split(",")), old]
    while len(",".join(entries)) > _HISTORY_LIMIT:
        entries.pop(0)
    return ",".join(entries)


def next_revision(old: Sequence[Object]) -> int:
    """The number that the new ReplicaSet must have at least."""
    return max(map(revision, old), default=0) + 1


def make(deployment: Object, replicas: int, most: int, annotations: Object) -> Object:
    """The ReplicaSet of the present template, with ``replicas`` pods to start with.

    ``most`` is how many pods there may be in all during the rollout.
    """
    spec = deployment["spec"]
    template = spec["template"]
    collisions = (deployment.get("status") or {}).get("collisionCount") or 0
    hash = template_hash(template, collisions)
    metadata = template.get("metadata") or {}
    labels = {**(metadata.get("labels") or {}), HASH_LABEL: hash}
    selector = dict(spec["selector"])
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), HASH_LABEL: hash}
    body: Object = {
        "apiVersion": REPLICA_SETS.api_version,
        "kind": REPLICA_SETS.kind,
        "metadata": {
            "name": f"{meta.name(deployment)}-{hash}",
            "namespace": meta.namespace(deployment),
            "labels": labels,
            "annotations": {**annotations, **scale_annotations(deployment, most)},
            "ownerReferences": [controller_reference(deployment, DEPLOYMENTS)],
        },
        "spec": {
            "replicas": replicas,
            "selector": selector,
            "template": {**template, "metadata": {**metadata, "labels": labels}},
        },
    }
    if spec.get("minReadySeconds"):
        body["spec"]["minReadySeconds"] = spec["minReadySeconds"]
    return body


def scale_annotations(deployment: Object, most: int) -> Object:
    """What tells a later scaling of the Deployment from a rollout under way."""
    return {
        DESIRED_REPLICAS: str(deployment["spec"].get("replicas", 1)),
        MAX_REPLICAS: str(most),
    }


def obsolete(deployment: Object, old: Sequence[Object]) -> list[Object]:
    """The old ReplicaSets beyond ``revisionHistoryLimit``, without pods and settled."""
    limit = deployment["spec"].get("revisionHistoryLimit")
    if limit is None or limit >= 2**31 - 1:
        return []
    present = [rs for rs in old if not meta.is_deleting(rs)]
    surplus = len(present) - limit
    if surplus <= 0:
        return []
    present.sort(key=lambda rs: (revision(rs), creation_order(rs)))
    return [rs for rs in present[:surplus] if _is_settled_empty(rs)]


def _is_settled_empty(replica_set: Object) -> bool:
    status = replica_set.get("status") or {}
    return (
        not status.get("replicas")
        and not replica_set["spec"].get("replicas", 1)
        and meta.generation(replica_set) <= (status.get("observedGeneration") or 0)
    )
