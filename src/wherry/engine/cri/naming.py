"""How pods look among containers: names and labels, as the kubelet's dockershim made them.

``docker ps`` shows ``k8s_<container>_<pod>_<namespace>_<uid>_<attempt>``; the sandbox is called
POD. None of the parts can contain an underscore.
"""

from __future__ import annotations

from collections.abc import Mapping

from wherry.engine.container.container import Container
from wherry.engine.cri.types import ContainerMetadata, PodSandboxMetadata

TYPE = "io.kubernetes.docker.type"
SANDBOX, CONTAINER = "podsandbox", "container"
SANDBOX_ID = "io.kubernetes.sandbox.id"
LOG_PATH = "io.kubernetes.container.logpath"
CONTAINER_NAME = "io.kubernetes.container.name"
POD_NAME = "io.kubernetes.pod.name"
POD_NAMESPACE = "io.kubernetes.pod.namespace"
POD_UID = "io.kubernetes.pod.uid"
_ANNOTATION = "annotation."
_OURS = frozenset((TYPE, SANDBOX_ID, LOG_PATH))


def sandbox_name(pod: PodSandboxMetadata) -> str:
    """The name of a sandbox's container."""
    return f"k8s_POD_{pod.name}_{pod.namespace}_{pod.uid}_{pod.attempt}"


def container_name(container: ContainerMetadata, pod: PodSandboxMetadata) -> str:
    """The name of a container in a pod."""
    return f"k8s_{container.name}_{pod.name}_{pod.namespace}_{pod.uid}_{container.attempt}"


def sandbox_labels(
    pod: PodSandboxMetadata, labels: Mapping[str, str], annotations: Mapping[str, str]
) -> dict[str, str]:
    """The labels of a sandbox's container; annotations are kept as labels, too."""
    return {
        **labels,
        **{_ANNOTATION + key: value for key, value in annotations.items()},
        TYPE: SANDBOX,
        CONTAINER_NAME: "POD",
        POD_NAME: pod.name,
        POD_NAMESPACE: pod.namespace,
        POD_UID: pod.uid,
    }


def container_labels(
    container: ContainerMetadata,
    pod: PodSandboxMetadata,
    sandbox_id: str,
    log_path: str,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
) -> dict[str, str]:
    """The labels of a container in a pod."""
    return {
        **labels,
        **{_ANNOTATION + key: value for key, value in annotations.items()},
        TYPE: CONTAINER,
        SANDBOX_ID: sandbox_id,
        LOG_PATH: log_path,
        CONTAINER_NAME: container.name,
        POD_NAME: pod.name,
        POD_NAMESPACE: pod.namespace,
        POD_UID: pod.uid,
    }


def is_sandbox(container: Container) -> bool:
    """Whether it stands for a sandbox."""
    return container.labels.get(TYPE) == SANDBOX


def is_pod_container(container: Container) -> bool:
    """Whether it is a container in a pod."""
    return container.labels.get(TYPE) == CONTAINER


def split_labels(container: Container) -> tuple[dict[str, str], dict[str, str]]:
    """Labels and annotations as the kubelet gave them."""
    labels, annotations = {}, {}
    for key, value in container.labels.items():
        if key.startswith(_ANNOTATION):
            annotations[key.removeprefix(_ANNOTATION)] = value
        elif key not in _OURS:
            labels[key] = value
    return labels, annotations


def attempt(container: Container) -> int:
    """How many times before it was made."""
    number = container.name.rpartition("_")[2]
    return int(number) if number.isdigit() else 0


def pod_metadata(container: Container) -> PodSandboxMetadata:
    """The pod that a sandbox is of."""
    labels = container.labels
    return PodSandboxMetadata(
        name=labels[POD_NAME],
        namespace=labels[POD_NAMESPACE],
        uid=labels[POD_UID],
        attempt=attempt(container),
    )
