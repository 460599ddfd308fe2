"""What all components ask of a pod (upstream: k8s.io/kubernetes/pkg/api/v1/pod)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from wherry.kube.api import conditions, meta

Object = Mapping[str, Any]


def all_containers(spec: Object) -> Iterator[dict[str, Any]]:
    """Init, app and ephemeral containers, in this order."""
    for field in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(field) or ()


def lasting_containers(spec: Object) -> Iterator[dict[str, Any]]:
    """Those that run as long as the pod does: app containers, then sidecars."""
    yield from spec.get("containers") or ()
    yield from filter(is_sidecar, spec.get("initContainers") or ())


def is_sidecar(container: Object) -> bool:
    """Whether an init container goes on running beside the app containers."""
    return container.get("restartPolicy") == "Always"


def addresses(pod: Object) -> tuple[str, ...]:
    """Its IP addresses, the primary one first."""
    status = pod.get("status") or {}
    listed = tuple(entry["ip"] for entry in status.get("podIPs") or () if entry.get("ip"))
    return listed or ((status["podIP"],) if status.get("podIP") else ())


def phase(pod: Object) -> str:
    """Pending, Running, Succeeded, Failed or Unknown; empty where nothing was said yet."""
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


def is_ready(pod: Object) -> bool:
    """Whether it may be sent requests: its condition ``Ready`` is True."""
    return conditions.is_true(pod, "Ready")


def ready_since(pod: Object) -> datetime | None:
    """When it became ready; None if it is not."""
    ready = conditions.of(pod, "Ready")
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
