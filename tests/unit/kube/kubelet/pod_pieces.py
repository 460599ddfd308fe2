"""Pods and what runs of them, in a few words, for tests of pure functions."""

from wherry.engine.cri.types import (
    ContainerMetadata,
    ContainerState,
    ContainerStatus,
    PodSandboxMetadata,
    PodSandboxState,
    PodSandboxStatus,
)
from wherry.kube.kubelet import pods
from wherry.kube.kubelet.view import PodRuntime

RUNNING, EXITED, CREATED = (
    ContainerState.RUNNING,
    ContainerState.EXITED,
    ContainerState.CREATED,
)


def pod(*containers, policy="Always", init=()):
    spec = {
        "restartPolicy": policy,
        "containers": [c if isinstance(c, dict) else one(c) for c in containers or ("web",)],
        "initContainers": [c if isinstance(c, dict) else one(c) for c in init],
    }
    return {"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": spec}


def one(name, **fields):
    return {"name": name, "image": "i:1", **fields}


def sandbox(attempt=0, state=PodSandboxState.READY, ips=("10.0.0.1",)):
    metadata = PodSandboxMetadata("p", "d", "u", attempt)
    return PodSandboxStatus(f"s{attempt}", metadata, state, attempt, ips)


def status(
    name, state=RUNNING, code=0, attempt=0, in_sandbox="s0", image="i:1", in_round=0, user=()
):
    annotations = {pods.CONTAINER_HASH: pods.container_hash({"name": name, "image": image})}
    if in_round:
        annotations[pods.ROUND] = str(in_round)
    return ContainerStatus(
        f"{name}-{attempt}",
        in_sandbox,
        ContainerMetadata(name, attempt),
        state,
        created_at=attempt,
        exit_code=code,
        annotations=annotations,
        user=user,
    )


def runtime(*containers, sandboxes=None):
    sandboxes = (sandbox(),) if sandboxes is None else sandboxes
    ordered = sorted(containers, key=lambda c: c.created_at, reverse=True)
    return PodRuntime("u", tuple(sandboxes), tuple(ordered))
