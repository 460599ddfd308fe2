"""Small readers of a Pod, and the labels by which its containers are known again.

What others ask of pods, too, is in ``kube.api.pods``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final

from wherry.kube.api import meta, restarts
from wherry.kube.api.pods import is_finished, is_ready, is_sidecar

__all__ = ["is_finished", "is_ready", "is_sidecar"]

Object = dict[str, Any]

# Labels and annotations on sandboxes and containers; a kubelet that starts anew reads its own past
# from them. Names as in k8s.io/kubelet/pkg/types and pkg/kubelet/kuberuntime/labels.go.
POD_NAME: Final = "io.kubernetes.pod.name"
POD_NAMESPACE: Final = "io.kubernetes.pod.namespace"
POD_UID: Final = "io.kubernetes.pod.uid"
CONTAINER_NAME: Final = "io.kubernetes.container.name"
CONTAINER_HASH: Final = "io.kubernetes.container.hash"
IMAGE: Final = "io.kubernetes.container.image"  # as the spec named it
RESTART_COUNT: Final = "io.kubernetes.container.restartCount"
MESSAGE_PATH: Final = "io.kubernetes.container.terminationMessagePath"
MESSAGE_POLICY: Final = "io.kubernetes.container.terminationMessagePolicy"
GRACE_PERIOD: Final = "io.kubernetes.pod.terminationGracePeriod"
PRE_STOP: Final = "io.kubernetes.container.preStopHandler"
ROUND: Final = "io.wherry.pod.round"  # how often all containers were restarted before
PORTS: Final = "io.kubernetes.container.ports"

SOURCE: Final = "kubernetes.io/config.source"
MIRROR: Final = "kubernetes.io/config.mirror"

DEFAULT_GRACE = 30
SYSTEM_CRITICAL_PRIORITY = 2_000_000_000


def describe(pod: Object) -> str:
    """``name_namespace(uid)``, as upstream's messages name a pod."""
    return f"{meta.name(pod)}_{meta.namespace(pod)}({meta.uid(pod)})"


def containers(pod: Object) -> list[Object]:
    """The app containers."""
    return list(pod["spec"].get("containers") or ())


def init_containers(pod: Object) -> list[Object]:
    """The init containers, sidecars among them, in order."""
    return list(pod["spec"].get("initContainers") or ())


def ephemeral_containers(pod: Object) -> list[Object]:
    """The containers that ``kubectl debug`` added."""
    return list(pod["spec"].get("ephemeralContainers") or ())


def all_containers(pod: Object) -> Iterator[Object]:
    """Init, app and ephemeral containers."""
    yield from init_containers(pod)
    yield from containers(pod)
    yield from ephemeral_containers(pod)


def find_container(pod: Object, name: str) -> Object | None:
    """The container of that name, whatever its kind."""
    return next((c for c in all_containers(pod) if c["name"] == name), None)


def field_path(pod: Object, container: Object) -> str:
    """Which part of the pod a container is, as events say it: ``spec.containers{web}``."""
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        if any(c["name"] == container["name"] for c in pod["spec"].get(kind) or ()):
            return f"spec.{kind}{{{container['name']}}}"
    return ""


def kind_of(pod: Object, container: Object) -> str:
    """What metrics call its kind."""
    for kind in ("init", "ephemeral"):
        if any(c["name"] == container["name"] for c in pod["spec"].get(f"{kind}Containers") or ()):
            return f"{kind}_container"
    return "container"


def restart_policy(pod: Object) -> str:
    """Always, OnFailure or Never."""
    return pod["spec"].get("restartPolicy") or "Always"


def is_restarted(pod: Object, container: Object, exit_code: int) -> bool:
    """Whether a container that ended with ``exit_code`` is started again."""
    return restarts.is_restarted(pod["spec"], container, exit_code)


def is_host_network(pod: Object) -> bool:
    """Whether the pod shares the node's network."""
    return bool(pod["spec"].get("hostNetwork"))


def grace_period(pod: Object) -> int:
    """Seconds between the polite and the final signal."""
    asked = meta.metadata(pod).get("deletionGracePeriodSeconds")
    if asked is None:
        asked = pod["spec"].get("terminationGracePeriodSeconds")
    return DEFAULT_GRACE if asked is None else int(asked)


def is_static(pod: Object) -> bool:
    """Whether the pod comes from this node's own files."""
    annotations = meta.annotations(pod)
    return MIRROR in annotations or annotations.get(SOURCE, "api") != "api"


def is_critical(pod: Object) -> bool:
    """Whether the node is worth nothing without the pod: it is never put off."""
    return is_static(pod) or int(pod["spec"].get("priority") or 0) >= SYSTEM_CRITICAL_PRIORITY


def container_hash(container: Object) -> str:
    """Changes when the container must be made anew: what of a running pod's spec may change."""
    text = f"{container['name']}\0{container.get('image', '')}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def has_begun(pod: Object) -> bool:
    """Whether the API already says that its containers have begun to run."""
    return (pod.get("status") or {}).get("phase") not in (None, "Pending")
