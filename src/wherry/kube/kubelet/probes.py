"""Liveness, readiness and startup probes: one small task for each, and what they found.

Follows pkg/kubelet/prober. A container without a probe passes it as soon as it runs. A liveness or
startup probe that has failed for good asks no more: the container will be replaced.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from wherry.engine.cri.types import ContainerStatus
from wherry.kube.api import meta
from wherry.kube.kubelet import pods
from wherry.kube.kubelet.hooks import PROBE_AGENT, Answer, Asker, Target
from wherry.kube.kubelet.metrics import Metrics

log = logging.getLogger(__name__)

Object = dict[str, Any]

STARTUP, LIVENESS, READINESS = "startup", "liveness", "readiness"
_RESULTS = {True: "successful", False: "failed", None: "unknown"}
TRIES = 3  # a failed attempt is repeated at once this often before it counts


@dataclass(slots=True)
class Count:
    """Successes or failures in a row, against the probe's thresholds. No I/O."""

    success_threshold: int
    failure_threshold: int
    passing: bool | None
    row: int = 0
    last: bool | None = None

    def add(self, ok: bool) -> bool:
        """Count a result; whether ``passing`` changed."""
        if ok == self.last:
            self.row += 1
        else:
            self.last, self.row = ok, 1
        if self.row < (self.success_threshold if ok else self.failure_threshold):
            return False
        changed, self.passing = self.passing != ok, ok
        return changed


@dataclass(slots=True)
class _Tracked:
    pod_uid: str
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    started: asyncio.Event = field(default_factory=asyncio.Event)


class Probes:
    """The probes of all containers that run, and their findings by container id.

    ``on_change`` hears the pod's uid; ``tell`` records an event of a container.
    """

    def __init__(
        self,
        asker: Asker,
        *,
        on_change: Callable[[str], None],
        tell: Callable[[Object, Object, str, str, str], None],
        metrics: Metrics,
    ) -> None:
        self._metrics = metrics
        self._asker = asker
        self._on_change = on_change
        self._tell = tell
        self._begun = time.time()
        self._tracked: dict[str, _Tracked] = {}
        self.ready: set[str] = set()
        self.started: set[str] = set()
        self.unhealthy: dict[str, str] = {}

    def track(self, pod: Object, container: Object, status: ContainerStatus, pod_ip: str) -> None:
        """Begin to probe a container that runs; calling it again changes nothing."""
        if status.id in self._tracked:
            return
        tracked = self._tracked[status.id] = _Tracked(meta.uid(pod))
        was_ready, was_started = _told_before(pod, status.id)
        target = Target(status.id, pod_ip, container.get("ports") or ())
        for kind in (STARTUP, LIVENESS, READINESS):
            probe = container.get(f"{kind}Probe")
            if not probe:
                continue
            if kind == STARTUP and was_started:
                continue
            if kind == READINESS and was_ready:
                self.ready.add(status.id)
            count = Count(
                int(probe.get("successThreshold") or 1),
                int(probe.get("failureThreshold") or 3),
                {STARTUP: None, LIVENESS: True, READINESS: was_ready}[kind],
            )
            begun = status.started_at / 10**9
            tracked.tasks[kind] = asyncio.create_task(
                self._run(pod, container, kind, probe, target, count, begun, tracked),
                name=f"{kind} probe of {container['name']} of {pods.describe(pod)}",
            )
        if STARTUP not in tracked.tasks:
            self._start(status.id, tracked)
        if not container.get("readinessProbe"):
            self.ready.add(status.id)

    def grace_period(self, container: Object, kind: str, default: int) -> int:
        """Seconds a container has to end when probe ``kind`` has failed."""
        own = (container.get(f"{kind}Probe") or {}).get("terminationGracePeriodSeconds")
        return default if own is None else int(own)

    def stop_restarts(self, pod_uid: str) -> None:
        """The pod is ending: only its readiness still matters."""
        for id_, tracked in self._tracked.items():
            if tracked.pod_uid == pod_uid:
                self.unhealthy.pop(id_, None)
                for kind in (STARTUP, LIVENESS):
                    if kind in tracked.tasks:
                        tracked.tasks.pop(kind).cancel()

    def forget(self, container_id: str) -> None:
        """The container has ended."""
        tracked = self._tracked.pop(container_id, None)
        if tracked is not None:
            for task in tracked.tasks.values():
                task.cancel()
        self.ready.discard(container_id)
        self.started.discard(container_id)
        self.unhealthy.pop(container_id, None)

    def forget_pod(self, pod_uid: str) -> None:
        """The pod has gone."""
        for id_ in [i for i, t in self._tracked.items() if t.pod_uid == pod_uid]:
            self.forget(id_)
        self._metrics.pod_gone(pod_uid)

    def _start(self, id_: str, tracked: _Tracked) -> None:
        self.started.add(id_)
        tracked.started.set()

    async def _run(
        self,
        pod: Object,
        container: Object,
        kind: str,
        probe: Object,
        target: Target,
        count: Count,
        begun: float,
        tracked: _Tracked,
    ) -> None:
        if kind != STARTUP:
            await tracked.started.wait()
        period = float(probe.get("periodSeconds") or 10)
        delay = float(probe.get("initialDelaySeconds") or 0) - (time.time() - begun)
        if begun < self._begun:
            # Taken over from a former kubelet: do not ask all containers at the same moment.
            delay = max(delay, 0) + random.random() * period  # noqa: S311
        if delay > 0:
            await asyncio.sleep(delay)
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            asked = loop.time()
            answer = await self._attempt(probe, target)
            where = (container["name"], meta.namespace(pod), meta.name(pod))
            self._metrics.probed(
                where, tracked.pod_uid, kind, _RESULTS[answer.ok], loop.time() - asked
            )
            if self._count(pod, container, kind, answer, target.container_id, count, tracked):
                return
            due += period
            if (late := loop.time() - due) > 0:  # it took longer than a period: that one is lost
                due += late - late % period + period
            await asyncio.sleep(due - loop.time())

    async def _attempt(self, probe: Object, target: Target) -> Answer:
        timeout = float(probe.get("timeoutSeconds") or 1)
        answer = Answer(None)
        for _ in range(TRIES):
            answer = await self._asker.ask(probe, target, timeout, PROBE_AGENT)
            if answer.ok is not None:
                break
        return answer

    def _count(
        self,
        pod: Object,
        container: Object,
        kind: str,
        answer: Answer,
        id_: str,
        count: Count,
        tracked: _Tracked,
    ) -> bool:
        """Take a result in; whether this probe is done."""
        if answer.ok is None:
            message = (
                f"{kind.capitalize()} probe errored and resulted in unknown state: {answer.output}"
            )
            self._tell(pod, container, "Warning", "Unhealthy", message)
            return False
        if not answer.ok:
            message = f"{kind.capitalize()} probe failed: {answer.output}"
            self._tell(pod, container, "Warning", "Unhealthy", message)
        elif answer.warning:
            message = f"{kind.capitalize()} probe warning: {answer.output}"
            self._tell(pod, container, "Warning", "ProbeWarning", message)
        changed = count.add(answer.ok)
        if kind == READINESS:
            if changed:
                (self.ready.add if count.passing else self.ready.discard)(id_)
                self._on_change(tracked.pod_uid)
            return False
        if count.passing is False:
            self.unhealthy[id_] = kind
            self._on_change(tracked.pod_uid)
            return True
        if kind == STARTUP and count.passing:
            self._start(id_, tracked)
            self._on_change(tracked.pod_uid)
            return True
        return False


def _told_before(pod: Object, id_: str) -> tuple[bool, bool]:
    """Whether the API has this very container as ready, as started (from a former kubelet)."""
    status = pod.get("status") or {}
    for kind in ("containerStatuses", "initContainerStatuses"):
        for told in status.get(kind) or ():
            if told.get("containerID") == f"docker://{id_}":
                return bool(told.get("ready")), bool(told.get("started"))
    return False, False
