"""Carries out resizes of one pod: the rules are ``resizing``'s."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from wherry.engine.cri.types import ContainerState, CRIError, LinuxResources
from wherry.kube.api import meta
from wherry.kube.kubelet import pods, resizing, resources
from wherry.kube.kubelet.actions import Kill
from wherry.kube.kubelet.parts import Parts
from wherry.kube.kubelet.view import PodRuntime

Object = dict[str, Any]


class Resizer:
    """What one pod holds, and what of that is not yet in force."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._held: resizing.Allocation | None = None
        self._from: resizing.Allocation = {}  # of containers whose new limits are not in force
        self._verdict = resizing.Verdict()
        self._error = ""

    @property
    def conditions(self) -> Sequence[Object]:
        """What the status says of it."""
        return resizing.conditions(self._verdict, self._error, busy=bool(self._from))

    @property
    def is_deferred(self) -> bool:
        """Whether it waits for room."""
        return self._verdict.reason == "Deferred"

    def holding(self, pod: Object) -> Object:
        """The pod with the resources that it holds."""
        return pod if self._held is None else resizing.holding(pod, self._held)

    def look(self, pod: Object) -> Object:
        """Grant what the spec newly asks for, if there is room; the pod as it then holds."""
        asked = resizing.wanted(pod)
        if self._held is None:
            self._held = resizing.remembered(pod)
        for name, wish in asked.items():
            self._held.setdefault(name, wish)
        changed = resizing.changed(self._held, asked)
        if not changed:
            self._verdict = resizing.Verdict()
            return pod
        parts = self._parts
        others = [p for p in parts.active_pods() if meta.uid(p) != meta.uid(pod)]
        verdict = resizing.decide(pod, others, parts.allocatable)
        if verdict.reason:
            if verdict != self._verdict:
                told = json.dumps({**resizing.summary(pod), "error": verdict.message})
                text = f"Pod resize {verdict.reason}: {told}"
                parts.tell(pod, "Warning", f"Resize{verdict.reason}", text)
            self._verdict = verdict
            return resizing.holding(pod, self._held)
        self._verdict = verdict
        for name in changed:
            self._from.setdefault(name, self._held[name])
            self._held[name] = asked[name]
        text = f"Pod resize started: {json.dumps(resizing.summary(pod))}"
        parts.tell(pod, "Normal", "ResizeStarted", text)
        return pod

    async def carry_out(self, pod: Object, runtime: PodRuntime) -> list[Kill]:
        """Put in force what was granted; the containers that must be started anew for it."""
        if not self._from or runtime.ready_sandbox is None:
            return []
        kills, live = [], []
        for name, old in list(self._from.items()):
            status = runtime.latest(name)
            container = pods.find_container(pod, name)
            if container is None or status is None or status.state is not ContainerState.RUNNING:
                del self._from[name]  # its next start has the new limits
            elif resizing.must_restart(container, old, container.get("resources") or {}):
                text = f"Container {name} resize requires restart"
                kills.append(Kill(status.id, name, text, restart=True))
                del self._from[name]
            else:
                live.append((name, status.id, container))
        try:
            await self._apply(pod, live)
        except CRIError as error:
            if error.message != self._error:
                self._error = error.message
                text = f"Pod resize error: {json.dumps({'error': error.message})}"
                self._parts.tell(pod, "Warning", "ResizeError", text)
            return kills
        self._error = ""
        for name, _, _ in live:
            del self._from[name]
        text = f"Pod resize completed: {json.dumps(resizing.summary(pod))}"
        self._parts.tell(pod, "Normal", "ResizeCompleted", text)
        return kills

    async def _apply(self, pod: Object, live: list[tuple[str, str, Object]]) -> None:
        """The pod's own cgroup is never less than its containers': wide first, then narrow."""
        parts = self._parts
        settings = parts.config.settings
        period = int(settings.cpu_cfs_period * 1_000_000)
        group = resources.cgroup_parent(pod)
        await parts.runtime.update_group(group, LinuxResources())
        for _, id_, container in live:
            wanted = resources.linux_resources(
                *(pod, container, parts.memory_capacity),
                period=period,
                quota=settings.cpu_cfs_quota,
            )
            await parts.runtime.update_container_resources(id_, wanted)
        await parts.runtime.update_group(group, self.pod_resources(pod))

    def pod_resources(self, pod: Object) -> LinuxResources:
        """The limits of the pod as a whole."""
        settings = self._parts.config.settings
        return replace(
            resources.pod_resources(
                pod,
                period=int(settings.cpu_cfs_period * 1_000_000),
                quota=settings.cpu_cfs_quota,
                page_sizes=self._parts.page_sizes,
            ),
            pids_limit=self._parts.process_limit,
        )
