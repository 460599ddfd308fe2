"""What a pod contributes to a Service, and which changes of it matter.

Follows k8s.io/endpointslice and pkg/controller/util/endpoint.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from wherry.kube.api import conditions, meta, pods
from wherry.kube.client.transport import Object

TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
HEADLESS = "service.kubernetes.io/headless"


def takes(service: Object, pod: Object) -> bool:
    """Whether the Service's selector takes the pod; a Service without one takes none."""
    selector: dict[str, str] = service["spec"].get("selector") or {}
    labels = meta.labels(pod)
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())


def is_headless(service: Object) -> bool:
    """Whether the Service has no address of its own: its name leads to the pods."""
    return bool(service["spec"].get("clusterIP") == "None")


def publishes_not_ready(service: Object) -> bool:
    """Whether its endpoints count as ready whatever their pods say."""
    return bool(service["spec"].get("publishNotReadyAddresses"))


def is_backend(pod: Object, *, terminating: bool) -> bool:
    """Whether the pod has an address and may serve; ``terminating`` lets in those that end."""
    if pods.is_finished(pod) or not pods.addresses(pod):
        return False
    return terminating or not meta.is_deleting(pod)


def ports(service: Object, pod: Object) -> list[Object]:
    """The Service's ports as they are on this pod; one whose name the pod does not know is left
    out. ``name`` is always there, empty for the only port."""
    result = []
    for port in service["spec"].get("ports") or ():
        number = _port_number(port, pod)
        if number is None:
            continue
        entry: Object = {
            "name": port.get("name") or "",
            "port": number,
            "protocol": port.get("protocol") or "TCP",
        }
        if port.get("appProtocol"):
            entry["appProtocol"] = port["appProtocol"]
        result.append(entry)
    return result


def _port_number(port: Mapping[str, Any], pod: Object) -> int | None:
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int):
        return target
    protocol = port.get("protocol") or "TCP"
    for container in pods.lasting_containers(pod["spec"]):
        for named in container.get("ports") or ():
            if named.get("name") == target and (named.get("protocol") or "TCP") == protocol:
                return int(named["containerPort"])
    return None


def hostname(service: Object, pod: Object) -> str:
    """The name of its own that the pod has under the Service's, or an empty text."""
    spec = pod["spec"]
    if spec.get("hostname") and spec.get("subdomain") == meta.name(service):
        return str(spec["hostname"])
    return ""


def target(pod: Object) -> Object:
    """The reference to the pod behind an address."""
    return {
        "kind": "Pod",
        "namespace": meta.namespace(pod),
        "name": meta.name(pod),
        "uid": meta.uid(pod),
    }


def concern(pod: Object) -> Hashable:
    """All of a pod that endpoints depend on: while it is equal, nothing need be looked at."""
    spec = pod["spec"]
    return (
        pods.addresses(pod),
        pods.is_ready(pod),
        pods.is_finished(pod),
        meta.is_deleting(pod),
        spec.get("nodeName"),
        spec.get("hostname"),
        spec.get("subdomain"),
    )


class TriggerTimes:
    """When the change happened that a write of endpoints answers to.

    Scalability measurements read it from an annotation (https://kep.k8s.io/ sig-scalability SLOs).
    It is the earliest of the moments that changed since the last look: the Service was made, or
    the readiness of one of its pods turned.
    """

    def __init__(self) -> None:
        self._known: dict[str, dict[str, str]] = {}

    def observe(self, service: Object, backends: Sequence[Object]) -> str:
        """The trigger's time, or an empty text where there is none."""
        key = meta.key(service)
        before = self._known.get(key)
        present: dict[str, str] = {"": service["metadata"].get("creationTimestamp") or ""}
        for pod in backends:
            ready = conditions.of(pod, "Ready")
            if ready is not None and ready.get("lastTransitionTime"):
                present[meta.uid(pod)] = ready["lastTransitionTime"]
        self._known[key] = present
        if before is None:
            before = {}
        changed = [moment for uid, moment in present.items() if moment > before.get(uid, "")]
        return min(changed, default="")

    def forget(self, key: str) -> None:
        """The Service is gone."""
        self._known.pop(key, None)
