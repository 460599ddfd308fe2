"""A pod that begins anew in its sandbox: the rule ``RestartAllContainers``. No I/O.

When a container ends in a way for which one of its rules says so, all that runs is killed at once
and the pod starts from its first init container. Each container bears the number of the round it
belongs to, so that a kubelet that was killed half way sees what is left to do: whatever is of an
earlier round counts as not started yet.
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-all-containers
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from wherry.engine.cri.types import ContainerState, ContainerStatus
from wherry.kube.api.restarts import RESTART_ALL, matching_action, may_restart_all
from wherry.kube.kubelet import pods
from wherry.kube.kubelet.view import PodRuntime

Object = dict[str, Any]

CONDITION = "AllContainersRestarting"
REASON, MESSAGE = "RestartAllContainersStarted", "container exited with restart policy rule"


def number(pod: Object, runtime: PodRuntime) -> int:
    """The round that has begun last, from 0."""
    names = {container["name"] for container in _members(pod)}
    own = (_round_of(c) for c in runtime.containers if c.metadata.name in names)
    return max(own, default=0)


def is_due(pod: Object, runtime: PodRuntime) -> bool:
    """Whether a container of this round has ended in a way that makes all begin anew."""
    if not may_restart_all(pod["spec"]):
        return False
    current = number(pod, runtime)
    for container in _members(pod):
        latest = runtime.latest(container["name"])
        if (
            latest is not None
            and latest.state is ContainerState.EXITED
            and _round_of(latest) == current
            and matching_action(container, latest.exit_code) == RESTART_ALL
        ):
            return True
    return False


def is_ending(pod: Object, runtime: PodRuntime) -> bool:
    """Whether all are to begin anew, and something still runs."""
    return is_due(pod, runtime) and bool(runtime.running())


def next_number(pod: Object, runtime: PodRuntime) -> int:
    """The round of which containers are that are started now."""
    return number(pod, runtime) + is_due(pod, runtime)


def current(pod: Object, runtime: PodRuntime) -> PodRuntime:
    """What belongs to the round that is to run; ephemeral containers belong to all."""
    if not may_restart_all(pod["spec"]):
        return runtime
    old = stale(pod, runtime)
    kept = tuple(c for c in runtime.containers if c.metadata.name not in old)
    return replace(runtime, containers=kept)


def stale(pod: Object, runtime: PodRuntime) -> set[str]:
    """The names of containers that have not been started in the round that is to run, but before.

    While something of the last round still runs, none are.
    """
    if not may_restart_all(pod["spec"]) or is_ending(pod, runtime):
        return set()
    now = next_number(pod, runtime)
    latest = (runtime.latest(container["name"]) for container in _members(pod))
    return {c.metadata.name for c in latest if c is not None and _round_of(c) < now}


def _members(pod: Object) -> list[Object]:
    return [*pods.init_containers(pod), *pods.containers(pod)]


def _round_of(container: ContainerStatus) -> int:
    return int(container.annotations.get(pods.ROUND) or 0)
