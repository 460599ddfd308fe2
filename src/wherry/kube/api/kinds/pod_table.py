"""Pods as a table shows them; STATUS is read from the containers, in a set order.

Upstream: printPod in pkg/printers/internalversion/printers.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from wherry.kube.api.conditions import holds
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column
from wherry.kube.api.kinds.durations import age, human
from wherry.kube.api.kinds.label_selectors import NONE
from wherry.kube.api.meta import parse_time
from wherry.kube.api.pods import is_finished, is_sidecar

Object = Mapping[str, Any]

COLUMNS = (
    NAME_COLUMN,
    Column("Ready", description="Containers that are ready, of all."),
    Column("Status", description="The state of the pod, summed up over its containers."),
    Column("Restarts", description="How often containers were restarted, and when last."),
    AGE_COLUMN,
    Column("IP", description="The address of the pod.", priority=1),
    Column("Node", description="The node the pod is bound to.", priority=1),
    Column("Nominated Node", description="The node preemption makes room on.", priority=1),
    Column("Readiness Gates", description="Extra conditions met, of all.", priority=1),
)


class _Restarts:
    """How often, and when the last container that was restarted had ended."""

    def __init__(self) -> None:
        self.count = 0
        self.last: datetime | None = None

    def add(self, status: Object) -> None:
        self.count += status.get("restartCount", 0)
        ended = ((status.get("lastState") or {}).get("terminated") or {}).get("finishedAt")
        if ended and (self.last is None or self.last < parse_time(ended)):
            self.last = parse_time(ended)

    def text(self, now: datetime) -> str:
        if not self.count or self.last is None:
            return str(self.count)
        return f"{self.count} ({human((now - self.last).total_seconds())} ago)"


def row(pod: Object, now: datetime) -> list[Any]:
    """The cells of one pod."""
    meta, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    phase = status.get("phase", "")
    reason = status.get("reason") or phase
    conditions = status.get("conditions") or ()
    if any(
        c.get("type") == "PodScheduled" and c.get("reason") == "SchedulingGated" for c in conditions
    ):
        reason = "SchedulingGated"
    initial, before_start, ready, sidecar_restarts, restarts = _initial(spec, status)
    if initial:
        reason = initial
    if not initial or holds(conditions, "Initialized"):
        restarts = sidecar_restarts
        reason, more = _running(status, reason, restarts)
        ready += more
    if meta.get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif not is_finished(pod):
            reason = "Terminating"
    total = len(spec.get("containers") or ()) + before_start
    addresses = status.get("podIPs") or ()
    return [
        meta.get("name", ""),
        f"{ready}/{total}",
        reason,
        restarts.text(now),
        age(meta.get("creationTimestamp"), now),
        (addresses[0].get("ip") if addresses else "") or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        _gates(spec, conditions),
    ]


def _initial(spec: Object, status: Object) -> tuple[str, int, int, _Restarts, _Restarts]:
    """What the init containers make of it: the reason while they are not done (else ""), how many
    are sidecars, how many of those are ready, and the restarts of sidecars and of all."""
    containers = spec.get("initContainers") or ()
    sidecars = {c.get("name") for c in containers if is_sidecar(c)}
    ready, of_sidecars, of_all = 0, _Restarts(), _Restarts()
    for index, container in enumerate(status.get("initContainerStatuses") or ()):
        of_all.add(container)
        beside = container.get("name") in sidecars
        if beside:
            of_sidecars.add(container)
        state = container.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting")
        if ended is not None and not ended.get("exitCode"):
            continue
        if beside and container.get("started"):
            ready += bool(container.get("ready"))
            continue
        if ended is not None:
            reason = f"Init:{ended.get('reason') or _exit(ended)}"
        elif waiting and waiting.get("reason") not in (None, "", "PodInitializing"):
            reason = f"Init:{waiting['reason']}"
        else:
            reason = f"Init:{index}/{len(containers)}"
        return reason, len(sidecars), ready, of_sidecars, of_all
    return "", len(sidecars), ready, of_sidecars, of_all


def _running(status: Object, reason: str, restarts: _Restarts) -> tuple[str, int]:
    """What the app containers make of it: the reason, and how many are ready."""
    ready = 0
    for container in reversed(status.get("containerStatuses") or ()):
        restarts.add(container)
        state = container.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting")
        if waiting and waiting.get("reason"):
            reason = waiting["reason"]
        elif ended is not None:
            reason = ended.get("reason") or _exit(ended)
        elif container.get("ready") and "running" in state:
            ready += 1
    if reason == "Completed" and ready:
        is_ready = holds(status.get("conditions") or (), "Ready")
        reason = "Running" if is_ready else "NotReady"
    return reason, ready


def _exit(ended: Object) -> str:
    if signal := ended.get("signal"):
        return f"Signal:{signal}"
    return f"ExitCode:{ended.get('exitCode', 0)}"


def _gates(spec: Object, conditions: Iterable[Object]) -> str:
    gates = spec.get("readinessGates")
    if not gates:
        return NONE
    met = sum(holds(conditions, gate.get("conditionType", "")) for gate in gates)
    return f"{met}/{len(gates)}"
