"""What to tell of a pod: phase, conditions and container states, from what runs. No I/O.

Follows generateAPIPodStatus of pkg/kubelet/kubelet_pods.go and pkg/kubelet/status/generate.go, and
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wherry.engine.cri.types import ContainerState, ContainerStatus
from wherry.kube.api import meta
from wherry.kube.kubelet import conditions, pods, rounds
from wherry.kube.kubelet.resources import qos_class
from wherry.kube.kubelet.view import PodRuntime

Object = dict[str, Any]

LOST = "The container could not be located when the pod was terminated"


@dataclass(frozen=True, slots=True)
class Findings:
    """What the kubelet knows besides what the runtime says."""

    host_ips: Sequence[str] = ()
    ready: Collection[str] = ()  # ids of containers that pass their readiness probe or have none
    started: Collection[str] = ()  # likewise for the startup probe
    waiting: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # name: reason, message
    ended: bool = False  # nothing of the pod will be started any more
    reason: str = ""  # of the pod as a whole: Evicted, DeadlineExceeded
    message: str = ""
    refused: bool = False  # the node did not take it: there is nothing to tell of containers
    disruption: str = ""  # why the node could not keep it
    resize: Sequence[Object] = ()  # conditions of a resize


def pod_status(pod: Object, runtime: PodRuntime, findings: Findings, now: str) -> Object:
    """The pod's ``status``; ``now`` (RFC 3339) is the time of what changed.

    What the API already has in ``pod`` is the memory: times of transitions, the start time, and
    the last state of containers that the runtime has forgotten.
    """
    old = pod.get("status") or {}
    if findings.refused:
        return {
            "phase": "Failed",
            "reason": findings.reason,
            "message": f"Pod was rejected: {findings.message}",
            "startTime": old.get("startTime") or now,
            "qosClass": old.get("qosClass") or qos_class(pod),
            "conditions": list(old.get("conditions") or ()),
        }
    init = _statuses(pod, "initContainers", "initContainerStatuses", runtime, findings)
    app = _statuses(pod, "containers", "containerStatuses", runtime, findings)
    app.sort(key=_name)
    ephemeral = _statuses(
        pod, "ephemeralContainers", "ephemeralContainerStatuses", runtime, findings
    )
    stale = set() if findings.ended else rounds.stale(pod, runtime)
    _begin_anew(pod, [s for s in (*init, *app) if s["name"] in stale], findings)
    phase = _phase(pod, init, app, findings, stale)
    if rounds.is_ending(pod, runtime) and not findings.reason:
        phase = "Pending"
    if pods.is_finished(pod):
        phase = old["phase"]
    status: Object = {
        "phase": phase,
        "startTime": old.get("startTime") or now,
        "qosClass": old.get("qosClass") or qos_class(pod),
    }
    generation = meta.generation(pod)
    if generation:
        status["observedGeneration"] = generation
    for key, value in (("reason", findings.reason), ("message", findings.message)):
        text = value or (old.get(key) if phase == "Failed" else "")
        if text:
            status[key] = text
    if findings.host_ips:
        status["hostIP"] = findings.host_ips[0]
        status["hostIPs"] = [{"ip": ip} for ip in findings.host_ips]
    ips = _pod_ips(pod, runtime, findings, old)
    if ips:
        status["podIP"] = ips[0]
        status["podIPs"] = [{"ip": ip} for ip in ips]
    if init:
        status["initContainerStatuses"] = init
    status["containerStatuses"] = app
    if ephemeral:
        status["ephemeralContainerStatuses"] = ephemeral
    present = conditions.conditions(pod, runtime, phase, init, app, now)
    status["conditions"] = conditions.with_nodes(
        pod, present, findings.resize, findings.disruption, now
    )
    return status


def _name(status: Object) -> str:
    return str(status["name"])


def _pod_ips(pod: Object, runtime: PodRuntime, findings: Findings, old: Object) -> Sequence[str]:
    if pods.is_host_network(pod):
        return findings.host_ips if runtime.sandboxes or old.get("podIP") else ()
    return runtime.ips or [entry["ip"] for entry in old.get("podIPs") or ()]


# containers


def _statuses(
    pod: Object, kind: str, old_kind: str, runtime: PodRuntime, findings: Findings
) -> list[Object]:
    old = {s["name"]: s for s in (pod.get("status") or {}).get(old_kind) or ()}
    return [
        _container_status(pod, container, kind, runtime, findings, old.get(container["name"]))
        for container in pod["spec"].get(kind) or ()
    ]


def _container_status(
    pod: Object,
    container: Object,
    kind: str,
    runtime: PodRuntime,
    findings: Findings,
    old: Object | None,
) -> Object:
    name = container["name"]
    incarnations = runtime.named(name)
    status: Object = {
        "name": name,
        "state": {},
        "lastState": {},
        "ready": False,
        "restartCount": 0,
        "image": container.get("image", ""),
        "imageID": "",
    }
    if incarnations:
        newest = incarnations[0]
        status["state"] = _state(newest, runtime)
        status["restartCount"] = newest.metadata.attempt
        status["image"] = newest.annotations.get(pods.IMAGE) or newest.image
        status["imageID"] = _image_id(newest.image_ref)
        status["containerID"] = f"docker://{newest.id}"
        if newest.user:
            uid, gid, *_ = newest.user
            groups = list(dict.fromkeys(newest.user[1:]))
            status["user"] = {"linux": {"uid": uid, "gid": gid, "supplementalGroups": groups}}
        exited = [c for c in incarnations[1:] if c.state is ContainerState.EXITED]
        if exited:
            status["lastState"] = _state(exited[0], runtime)
        elif old is not None:
            status["lastState"] = _remembered_last_state(old, newest)
        running = newest.state is ContainerState.RUNNING
        started = running and newest.id in findings.started
        status["started"] = started
        if kind == "initContainers" and not pods.is_sidecar(container):
            status["ready"] = newest.state is ContainerState.EXITED and newest.exit_code == 0
        else:
            status["ready"] = started and newest.id in findings.ready
    else:
        _from_memory(pod, status, old, findings)
    waiting = findings.waiting.get(name)
    if waiting is not None and _will_be_started(pod, container, status["state"]):
        if "terminated" in status["state"]:
            status["lastState"] = status["state"]
        reason, message = waiting
        status["state"] = {
            "waiting": {"reason": reason, **({"message": message} if message else {})}
        }
    _add_resources(container, status)
    return status


def _begin_anew(pod: Object, stale: list[Object], findings: Findings) -> None:
    """How containers are told of that ran in an earlier round and have not begun in this one."""
    for status in stale:
        reason, message = findings.waiting.get(status["name"], (_before_the_start(pod), ""))
        if "terminated" in status["state"]:
            status["lastState"] = status["state"]
        status["state"] = {
            "waiting": {"reason": reason, **({"message": message} if message else {})}
        }
        status["ready"] = status["started"] = False


def _before_the_start(pod: Object) -> str:
    return "PodInitializing" if pod["spec"].get("initContainers") else "ContainerCreating"


def _will_be_started(pod: Object, container: Object, state: Object) -> bool:
    """Whether a reason to wait applies: the container neither runs nor has ended for good."""
    terminated = state.get("terminated")
    if terminated is None:
        return "running" not in state
    return pods.is_restarted(pod, container, terminated["exitCode"])


def _state(container: ContainerStatus, runtime: PodRuntime) -> Object:
    if container.state is ContainerState.RUNNING:
        return {"running": {"startedAt": meta.format_nanoseconds(container.started_at)}}
    if container.state is ContainerState.CREATED:
        return {"waiting": {"reason": "ContainerCreating"}}
    reason = container.reason or ("Completed" if container.exit_code == 0 else "Error")
    message = runtime.messages.get(container.id) or container.message
    terminated: Object = {"exitCode": container.exit_code, "reason": reason}
    if message:
        terminated["message"] = message
    if container.started_at:
        terminated["startedAt"] = meta.format_nanoseconds(container.started_at)
    if container.finished_at:
        terminated["finishedAt"] = meta.format_nanoseconds(container.finished_at)
    terminated["containerID"] = f"docker://{container.id}"
    return {"terminated": terminated}


def _remembered_last_state(old: Object, newest: ContainerStatus) -> Object:
    """The end of the incarnation before, where the runtime no longer has it."""
    if old.get("containerID") == f"docker://{newest.id}":
        return dict(old.get("lastState") or {})
    terminated = (old.get("state") or {}).get("terminated")
    return {"terminated": terminated} if terminated else dict(old.get("lastState") or {})


def _from_memory(pod: Object, status: Object, old: Object | None, findings: Findings) -> None:
    """The state of a container that the runtime does not know (yet, or any more)."""
    old_state = (old or {}).get("state") or {}
    if old is not None and "terminated" in old_state:
        for key in (
            "state",
            "lastState",
            "restartCount",
            "image",
            "imageID",
            "containerID",
            "user",
        ):
            if key in old:
                status[key] = old[key]
        status["ready"] = bool(old.get("ready")) and old_state["terminated"].get("exitCode") == 0
        return
    if old is not None and "running" in old_state:
        lost = {
            "terminated": {
                "exitCode": 137,
                "reason": "ContainerStatusUnknown",
                "message": LOST,
                "containerID": old.get("containerID", ""),
            }
        }
        for key in ("restartCount", "image", "imageID", "containerID", "user"):
            if key in old:
                status[key] = old[key]
        if findings.ended:
            status["state"] = lost
            return
        status["lastState"] = lost
    status["state"] = {"waiting": {"reason": _before_the_start(pod)}}
    status["started"] = False


def _add_resources(container: Object, status: Object) -> None:
    resources = container.get("resources") or {}
    if resources.get("requests"):
        status["allocatedResources"] = resources["requests"]
    if resources:
        status["resources"] = resources
    mounts = []
    for mount in container.get("volumeMounts") or ():
        told = {"name": mount["name"], "mountPath": mount["mountPath"]}
        if mount.get("readOnly"):
            told["readOnly"] = True
            told["recursiveReadOnly"] = mount.get("recursiveReadOnly") or "Disabled"
        mounts.append(told)
    if mounts:
        status["volumeMounts"] = mounts


def _image_id(reference: str) -> str:
    if not reference:
        return ""
    return reference if reference.startswith("docker") else f"docker://{reference}"


# the pod


def _phase(
    pod: Object,
    init: list[Object],
    app: list[Object],
    findings: Findings,
    stale: Collection[str],
) -> str:
    if findings.reason:
        return "Failed"
    by_name = {c["name"]: c for c in (*pods.init_containers(pod), *pods.containers(pod))}
    pending = False
    for status in init:
        terminated = status["state"].get("terminated")
        last = status["lastState"].get("terminated")
        container = by_name[status["name"]]
        if status["name"] in stale:
            pending = True
        elif pods.is_sidecar(container):
            pending = pending or not status.get("started")
        elif terminated:
            if terminated["exitCode"] != 0:
                if not pods.is_restarted(pod, container, terminated["exitCode"]):
                    return "Failed"
                pending = True
        elif not (last and last["exitCode"] == 0):
            pending = True
    running = waiting = stopped = succeeded = restarted = 0
    for status in app:
        state = status["state"]
        if status["name"] in stale:
            waiting += 1
        elif "running" in state:
            running += 1
        elif "terminated" in state:
            stopped += 1
            code = state["terminated"]["exitCode"]
            succeeded += code == 0
            restarted += pods.is_restarted(pod, by_name[status["name"]], code)
        elif status["lastState"].get("terminated"):
            stopped += 1
            restarted += 1
        else:
            waiting += 1
    if pending and not running and not stopped:
        if findings.ended:
            return "Failed"
        return "Pending"
    if waiting:
        return "Failed" if findings.ended else "Pending"
    if running:
        return "Running"
    if findings.ended:
        return "Succeeded" if stopped == succeeded else "Failed"
    if restarted:
        return "Running"
    return "Succeeded" if stopped == succeeded else "Failed"


def status_changes(old: Object, new: Object) -> Object:
    """The fields of ``new`` that differ from ``old``; None for those that are gone.

    As a strategic merge patch: conditions are merged by type, container states replaced whole.
    """
    changes: Object = {}
    for key, value in new.items():
        if key == "conditions":
            before = {c["type"]: c for c in old.get("conditions") or ()}
            changed = [c for c in value if before.get(c["type"]) != c]
            if changed:
                changes[key] = changed
        elif old.get(key) != value:
            changes[key] = value
    for key in ("reason", "message"):
        if key in old and key not in new:
            changes[key] = None
    return changes
