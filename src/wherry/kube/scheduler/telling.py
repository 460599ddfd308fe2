"""What users and programs are told of a pod: events, the condition PodScheduled, the nomination."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import PODS
from wherry.kube.client.client import STRATEGIC_MERGE_PATCH, Client
from wherry.kube.client.recorder import NORMAL, WARNING, EventRecorder
from wherry.kube.client.transport import Object
from wherry.kube.scheduler.snapshot import PodInfo

log = logging.getLogger(__name__)


class Telling:
    """Speaks for the profile ``name``. ``spawn`` runs what need not be waited for."""

    def __init__(
        self, client: Client, name: str, spawn: Callable[[Coroutine[Any, Any, None]], None]
    ) -> None:
        self._client = client
        self._name = name
        self._spawn = spawn
        self.recorder = EventRecorder(client, name)

    def placed(self, pod: PodInfo, node: str) -> None:
        """The pod is bound."""
        message = f"Successfully assigned {pod.key} to {node}"
        self.recorder.event(PODS, pod.object, NORMAL, "Scheduled", message)

    def failed(self, pod: PodInfo, reason: str, message: str, nominated: str | None = None) -> None:
        """The pod was tried in vain. ``nominated`` is the node that it is promised, empty where
        a promise is void, None where nothing changes."""
        self.recorder.event(PODS, pod.object, WARNING, "FailedScheduling", message)
        self._state(pod, reason, message, nominated)

    def gated(self, pod: PodInfo, message: str) -> None:
        """The pod is not tried before its gates are open. The API server says so of those that
        are made with gates; what it said stays, as upstream."""
        if _scheduled(pod.object).get("reason") != "SchedulingGated":
            self._state(pod, "SchedulingGated", message, None)

    def renounced(self, pod: PodInfo) -> None:
        """What the pod was promised goes to a more important one."""
        self._spawn(self._report(pod.object, {"nominatedNodeName": None}))

    def _state(self, pod: PodInfo, reason: str, message: str, nominated: str | None) -> None:
        status = pod.object.get("status") or {}
        known = _scheduled(pod.object)
        said = known.get("status"), known.get("reason"), known.get("message")
        patch: Object = {}
        if said != ("False", reason, message):
            condition = {
                "type": "PodScheduled",
                "status": "False",
                "reason": reason,
                "message": message,
            }
            if known.get("status") != "False":
                condition["lastTransitionTime"] = meta.now()
            patch["conditions"] = [condition]
        if nominated is not None and (status.get("nominatedNodeName") or "") != nominated:
            patch["nominatedNodeName"] = nominated or None
        if patch:
            self._spawn(self._report(pod.object, patch))

    async def _report(self, pod: Object, status: Object) -> None:
        try:
            await self._patch_status(pod, status)
        except (StatusError, ConnectionError) as error:
            # The event told it already, and the next attempt will say it again.
            log.debug("status of pod %s: %s", meta.key(pod), error)

    async def evict(self, victim: PodInfo, pod: PodInfo, node: str) -> None:
        """Have the victim leave the node, in its own time, and say why."""
        disruption = {
            "type": "DisruptionTarget",
            "status": "True",
            "lastTransitionTime": meta.now(),
            "reason": "PreemptionByScheduler",
            "message": f"{self._name}: preempting to accommodate a higher priority pod",
        }
        try:
            await self._patch_status(victim.object, {"conditions": [disruption]})
            await self._client.delete(
                PODS, meta.name(victim.object), meta.namespace(victim.object), uid=victim.uid
            )
        except (StatusError, ConnectionError) as error:
            if not isinstance(error, StatusError) or error.code != 404:
                log.warning("preempting pod %s: %s", victim.key, error)
            return
        message = f"Preempted by pod {pod.uid} on node {node}"
        self.recorder.event(PODS, victim.object, NORMAL, "Preempted", message)

    async def _patch_status(self, pod: Object, status: Object) -> None:
        await self._client.patch(
            PODS,
            meta.name(pod),
            {"metadata": {"uid": meta.uid(pod)}, "status": status},
            meta.namespace(pod),
            content_type=STRATEGIC_MERGE_PATCH,
            subresource="status",
        )


def _scheduled(pod: Object) -> Object:
    """What was last said of whether the pod has a node; empty where nothing was."""
    said = (pod.get("status") or {}).get("conditions") or ()
    return next((c for c in said if c.get("type") == "PodScheduled"), {})
