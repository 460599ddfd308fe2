"""The pods of a Job: how they are made, and what they tell."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from wherry.kube.api import conditions, meta, pods
from wherry.kube.api.resources import JOBS
from wherry.kube.client.transport import Object
from wherry.kube.controllers.ownership import from_template

FINALIZER: Final = "batch.kubernetes.io/job-tracking"
INDEX: Final = "batch.kubernetes.io/job-completion-index"
FAILURES: Final = "batch.kubernetes.io/job-index-failure-count"
IGNORED: Final = "batch.kubernetes.io/job-index-ignored-failure-count"

_INDEX_VARIABLE: Final = {
    "name": "JOB_COMPLETION_INDEX",
    "valueFrom": {
        "fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.annotations['{INDEX}']"}
    },
}


def is_indexed(job: Object) -> bool:
    return bool(job["spec"].get("completionMode") == "Indexed")


def replaces_failed_only(job: Object) -> bool:
    """Whether a pod on its way out keeps its place until it has failed."""
    return bool(job["spec"].get("podReplacementPolicy") == "Failed")


def make_pod(job: Object) -> Object:
    """A pod of a Job that does not count indexes."""
    body = from_template(job["spec"]["template"], job, JOBS)
    body["metadata"]["finalizers"] = [*(body["metadata"].get("finalizers") or ()), FINALIZER]
    return body


def make_indexed_pod(job: Object, index: int, last_failed: Object | None, counts: bool) -> Object:
    """The pod for ``index``.

    Args:
        last_failed: the pod that failed for this index before, where the Job limits failures by
            index.
        counts: whether that failure counts towards the limit.
    """
    body = make_pod(job)
    metadata = body["metadata"]
    name = f"{meta.name(job)}-{index}"
    metadata["generateName"] = f"{name}-"
    annotations = {**(metadata.get("annotations") or {}), INDEX: str(index)}
    if job["spec"].get("backoffLimitPerIndex") is not None:
        failures = failure_count(last_failed)
        ignored = _number(last_failed, IGNORED)
        if last_failed is not None:
            failures, ignored = failures + counts, ignored + (not counts)
        annotations[FAILURES] = str(failures)
        if ignored:
            annotations[IGNORED] = str(ignored)
    metadata["annotations"] = annotations
    metadata["labels"] = {**(metadata.get("labels") or {}), INDEX: str(index)}
    spec = {**body["spec"], "hostname": name}
    for part in ("initContainers", "containers"):
        if spec.get(part):
            spec[part] = [_with_index(container) for container in spec[part]]
    return {**body, "spec": spec}


def _with_index(container: Object) -> Object:
    variables = list(container.get("env") or ())
    if any(variable["name"] == _INDEX_VARIABLE["name"] for variable in variables):
        return container
    return {**container, "env": [*variables, dict(_INDEX_VARIABLE)]}


def index_of(pod: Object) -> int | None:
    """The completion index of a pod; None where it has none."""
    text = meta.annotations(pod).get(INDEX, "")
    return int(text) if text.isascii() and text.isdigit() else None


def _number(pod: Object | None, annotation: str) -> int:
    text = meta.annotations(pod).get(annotation, "") if pod is not None else ""
    return int(text) if text.isascii() and text.isdigit() else 0


def failure_count(pod: Object | None) -> int:
    """How often its index had failed before the pod was made."""
    return _number(pod, FAILURES)


def is_tracked(pod: Object) -> bool:
    """Whether the pod has not been counted for good."""
    return FINALIZER in meta.finalizers(pod)


def has_succeeded(pod: Object) -> bool:
    return pods.phase(pod) == "Succeeded"


def has_failed(job: Object, pod: Object) -> bool:
    """Whether the pod counts as failed: one that is being deleted may never come to say so."""
    if pods.phase(pod) == "Failed":
        return True
    return not replaces_failed_only(job) and meta.is_deleting(pod) and not has_succeeded(pod)


def ended_at(pod: Object, now: datetime) -> datetime:
    """When the last of its containers ended, as well as that is known."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    ends = [
        meta.parse_time(ended["finishedAt"])
        for status in statuses
        if (ended := (status.get("state") or {}).get("terminated")) and ended.get("finishedAt")
    ]
    if ends:
        return max(ends)
    deleted = pod["metadata"].get("deletionTimestamp")
    if deleted:
        return min(meta.parse_time(deleted), now)
    ready = conditions.of(pod, "Ready")
    if ready is not None and ready.get("lastTransitionTime"):
        return meta.parse_time(ready["lastTransitionTime"])
    return now
