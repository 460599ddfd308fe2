"""What controllers ask of a pod (upstream: k8s.io/kubernetes/pkg/api/v1/pod)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.resources import Resource
from wherry.kube.client.transport import Object

Condition = Mapping[str, Any]


def phase(pod: Object) -> str:
    return (pod.get("status") or {}).get("phase") or ""


def is_finished(pod: Object) -> bool:
    """Whether all its containers have ended for good."""
    return phase(pod) in ("Succeeded", "Failed")


def is_active(pod: Object) -> bool:
    """Whether it runs or will run."""
    return not is_finished(pod) and not meta.is_deleting(pod)


def is_terminating(pod: Object) -> bool:
    """Whether it is being deleted and has not ended yet."""
    return meta.is_deleting(pod) and not is_finished(pod)


def condition(object: Object, type: str) -> Condition | None:
    """The condition of that type in the object's status."""
    for found in (object.get("status") or {}).get("conditions") or ():
        if found.get("type") == type:
            assert isinstance(found, dict)
            return found
    return None


def is_ready(pod: Object) -> bool:
    ready = condition(pod, "Ready")
    return ready is not None and ready.get("status") == "True"


def ready_since(pod: Object) -> datetime | None:
    """When it became ready; None if it is not."""
    ready = condition(pod, "Ready")
    if ready is None or ready.get("status") != "True" or not ready.get("lastTransitionTime"):
        return None
    return meta.parse_time(ready["lastTransitionTime"])


def available_in(pod: Object, min_ready_seconds: int, now: datetime) -> float | None:
    """Seconds until it counts as available: 0 if it does, None if it is not even ready."""
    if not is_ready(pod):
        return None
    if not min_ready_seconds:
        return 0.0
    since = ready_since(pod)
    if since is None:
        return None
    return max(0.0, min_ready_seconds - (now - since).total_seconds())


def restarts(pod: Object) -> int:
    """Restarts of the container that restarted most."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return max((status.get("restartCount", 0) for status in statuses), default=0)


def from_template(template: Object, owner: Object, resource: Resource) -> Object:
    """The pod that ``owner``, an object of ``resource``, makes from its template."""
    given = template.get("metadata") or {}
    metadata: Object = {
        "generateName": f"{meta.name(owner)}-",
        "namespace": meta.namespace(owner),
        "ownerReferences": [controller_reference(owner, resource)],
    }
    for part in ("labels", "annotations", "finalizers"):
        if given.get(part):
            metadata[part] = given[part]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def controller_reference(owner: Object, resource: Resource) -> Object:
    """The owner reference of a dependent of ``owner``; works for items of lists, too."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": meta.name(owner),
        "uid": meta.uid(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }


ORPHANS = "orphans of "


def by_controller(object: Object) -> Iterable[str]:
    """Indexer: the uid of an object's controller, or ``ORPHANS`` + namespace where it has none."""
    controller = meta.controller_of(object)
    return (controller["uid"],) if controller else (ORPHANS + meta.namespace(object),)
