"""What to do next for a pod: from what is wanted and what runs to a list of acts. No I/O.

Follows computePodActions of pkg/kubelet/kuberuntime/kuberuntime_manager.go, and for sidecars
https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/. Back-off is not looked at
here: an act says that a container should run, the worker when.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from wherry.engine.cri.types import ContainerState, ContainerStatus
from wherry.kube.kubelet import pods, rounds
from wherry.kube.kubelet.view import PodRuntime

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kill:
    """A container to be stopped; ``message`` is the event's."""

    id: str
    name: str
    message: str
    restart: bool = False  # to be started again whatever the restart policy
    at_once: bool = False  # no hook, no grace


@dataclass(frozen=True, slots=True)
class Actions:
    """The acts, in this order."""

    kill: tuple[Kill, ...] = ()
    create_sandbox: bool = False
    attempt: int = 0  # of the sandbox to create
    start: tuple[str, ...] = ()  # names of containers
    finish: bool = False  # all is done: what still runs is stopped, nothing will be started


@dataclass(frozen=True, slots=True)
class Health:
    """What the probes found, by container id."""

    started: Collection[str] = ()  # the startup probe passed, or there is none
    unhealthy: Mapping[str, str] = field(default_factory=dict)  # id: "liveness" or "startup"

    def failed_probe(self, id: str) -> str:
        """The probe for which the container must be restarted, or nothing."""
        return self.unhealthy.get(id, "")


def compute_pod_actions(
    pod: Object,
    runtime: PodRuntime,
    health: Health,
    *,
    restarting: Collection[str] = (),
    stranded: bool = False,
) -> Actions:
    """The acts that bring ``pod`` nearer to what it should be.

    Args:
        pod: the pod as the API has it; it is not being deleted.
        runtime: what runs of it.
        health: what its probes found.
        restarting: ids of containers that were stopped in order to be started again.
        stranded: the sandbox's addresses are none of the node's any more.
    """
    if rounds.is_ending(pod, runtime):
        return Actions(kill=_restarting_all(runtime))
    runtime = rounds.current(pod, runtime)
    change, attempt = _sandbox_change(pod, runtime, stranded=stranded)
    if change:
        return _with_new_sandbox(pod, runtime, attempt, restarting)
    assert runtime.sandbox is not None
    sandbox = runtime.sandbox.id
    kills: list[Kill] = []
    # Who debugs a pod is not made to wait for its init containers.
    starts = _ephemeral_to_start(pod, runtime)
    ready, failed = _initialize(pod, runtime, health, sandbox, kills, starts)
    if failed:
        return Actions(finish=True)
    if not ready:
        return Actions(kill=tuple(kills), start=tuple(starts))
    alive = 0
    for container in pods.containers(pod):
        status = runtime.latest(container["name"])
        if status is not None and status.state is ContainerState.RUNNING:
            kill = _reason_to_kill(pod, container, status, health)
            if kill is not None:
                kills.append(kill)
            alive += kill is None or kill.restart
        elif _should_start(pod, container, status, restarting):
            starts.append(container["name"])
            alive += 1
    if not alive:
        return Actions(kill=tuple(kills), finish=True)
    return Actions(kill=tuple(kills), start=tuple(starts))


def _sandbox_change(pod: Object, runtime: PodRuntime, *, stranded: bool) -> tuple[bool, int]:
    """Whether a new sandbox is needed, and its number."""
    newest = runtime.sandbox
    if newest is None:
        return True, 0
    unconnected = stranded or not newest.ips
    broken = runtime.ready_sandbox is None or (not pods.is_host_network(pod) and unconnected)
    return broken, newest.metadata.attempt + 1 if broken else 0


def _with_new_sandbox(
    pod: Object, runtime: PodRuntime, attempt: int, restarting: Collection[str]
) -> Actions:
    ran_before = attempt > 0 and any(
        runtime.latest(c["name"]) is not None for c in pods.containers(pod)
    )
    if ran_before and pods.restart_policy(pod) == "Never":
        return Actions(finish=True)
    wanted = [
        c["name"]
        for c in pods.containers(pod)
        if _should_start(pod, c, _ended(runtime.latest(c["name"])), restarting)
    ]
    if not wanted:
        return Actions(finish=True)
    init = pods.init_containers(pod)
    # The first init container only; what follows depends on how it ends.
    starts = [init[0]["name"]] if init else wanted
    return Actions(
        kill=_remaining(runtime), create_sandbox=True, attempt=attempt, start=tuple(starts)
    )


def _ended(status: ContainerStatus | None) -> ContainerStatus | None:
    """A container that runs in a broken sandbox is as good as lost: it will be made anew."""
    return status if status is not None and status.state is ContainerState.EXITED else None


def _remaining(runtime: PodRuntime) -> tuple[Kill, ...]:
    return tuple(
        Kill(c.id, c.metadata.name, f"Stopping container {c.metadata.name}")
        for c in runtime.running()
    )


def _restarting_all(runtime: PodRuntime) -> tuple[Kill, ...]:
    text = "Stopping container {}: all containers of the pod are restarted"
    return tuple(
        Kill(c.id, c.metadata.name, text.format(c.metadata.name), at_once=True)
        for c in runtime.running()
    )


def _initialize(
    pod: Object,
    runtime: PodRuntime,
    health: Health,
    sandbox: str,
    kills: list[Kill],
    starts: list[str],
) -> tuple[bool, bool]:
    """Go through the init containers; whether the app containers may start, whether all failed."""
    init = pods.init_containers(pod)

    def current(name: str) -> ContainerStatus | None:
        status = runtime.latest(name)
        return status if status is not None and status.pod_sandbox_id == sandbox else None

    initialized = any(current(c["name"]) is not None for c in pods.containers(pod))
    begun = [i for i, c in enumerate(init) if current(c["name"]) is not None]
    furthest = begun[-1] if begun else -1
    for index, container in enumerate(init):
        status = current(container["name"])
        running = status is not None and status.state is ContainerState.RUNNING
        if pods.is_sidecar(container):
            if running:
                assert status is not None
                kill = _reason_to_kill(pod, container, status, health)
                if kill is not None:
                    kills.append(kill)
                ready = kill is None and status.id in health.started
            else:
                starts.append(container["name"])
                ready = False
            if not ready and not initialized:
                return False, False
            continue
        if initialized or index < furthest:
            continue  # it must have succeeded, or nothing behind it would have begun
        if status is None or status.state in (ContainerState.CREATED, ContainerState.UNKNOWN):
            starts.append(container["name"])
            return False, False
        if running:
            return False, False
        if status.exit_code != 0:
            if not pods.is_restarted(pod, container, status.exit_code):
                return False, True
            starts.append(container["name"])
            return False, False
    return True, False


def _ephemeral_to_start(pod: Object, runtime: PodRuntime) -> list[str]:
    """Ephemeral containers are started once and never again."""
    return [c["name"] for c in pods.ephemeral_containers(pod) if runtime.latest(c["name"]) is None]


def _reason_to_kill(
    pod: Object, container: Object, status: ContainerStatus, health: Health
) -> Kill | None:
    name = container["name"]
    before = status.annotations.get(pods.CONTAINER_HASH)
    if before is not None and before != pods.container_hash(container):
        message = f"Container {name} definition changed, will be restarted"
        return Kill(status.id, name, message, restart=True)
    probe = health.failed_probe(status.id)
    if probe:
        # What obeys its signal ends with 143, what does not with 137: failures both.
        again = pods.is_restarted(pod, container, 137)
        message = f"Container {name} failed {probe} probe"
        if again:
            message += ", will be restarted"
        return Kill(status.id, name, message, restart=again)
    return None


def _should_start(
    pod: Object,
    container: Object,
    status: ContainerStatus | None,
    restarting: Collection[str],
) -> bool:
    if status is None or status.state is not ContainerState.EXITED:
        return True
    if status.id in restarting:
        return True
    return pods.is_restarted(pod, container, status.exit_code)
