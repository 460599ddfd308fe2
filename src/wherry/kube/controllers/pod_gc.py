"""Pod garbage collector: removes pods that no kubelet will ever look after again.

Those bound to a node that no longer exists, those deleted before they were given a node, those
deleted on a node that is not ready and of which somebody has said that it is out of service, and
the oldest finished ones when there are more than ``Options.terminated_pods``.
https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/#non-graceful-node-shutdown
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from wherry.kube.api import conditions, meta, pods
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import NODES, PODS
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, Controller, now, split_key
from wherry.kube.controllers.node_lifecycle import by_node

QUARANTINE = 40.0
"""Seconds a node must be gone: one that is replaced by another of its name keeps its pods."""

OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
_FINISHED = "finished pods"


def surplus(all_pods: Iterable[Object], kept: int) -> list[Object]:
    """The oldest finished pods beyond the number to be kept."""
    finished = [pod for pod in all_pods if pods.is_finished(pod) and not meta.is_deleting(pod)]
    finished.sort(key=lambda pod: (pod["metadata"].get("creationTimestamp") or "", meta.name(pod)))
    return finished[: max(0, len(finished) - kept)]


def disrupted(moment: datetime) -> Object:
    """The condition of a pod whose node is gone."""
    return {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "DeletionByPodGC",
        "message": "PodGC: node no longer exists",
        "lastTransitionTime": meta.format_time(moment),
    }


def is_out_of_service(node: Object | None) -> bool:
    """Whether a node does not run, and somebody vouches that it will not come back as it was."""
    if node is None:
        return False
    taints = (node.get("spec") or {}).get("taints") or ()
    ready = conditions.of(node, "Ready")
    is_ready = ready is not None and ready.get("status") == "True"
    return not is_ready and any(taint["key"] == OUT_OF_SERVICE for taint in taints)


class PodGCController(Controller):
    """Keys are pods, and one word for the finished ones together."""

    name = "pod-garbage-collector-controller"
    account = "pod-garbage-collector"
    workers = 2

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.nodes = self.watch(NODES)
        self.pods = self.watch(PODS)
        self.pods.add_indexer("node", by_node)
        self.nodes.add_handlers(on_update=self._node_changed, on_delete=self._node_gone)
        self.pods.add_handlers(on_add=self._pod_added, on_update=self._pod_updated)

    def _node_gone(self, node: Object) -> None:
        for pod in self.pods.by_index("node", meta.name(node)):
            self.queue.add_after(meta.key(pod), QUARANTINE)

    def _node_changed(self, old: Object, node: Object) -> None:
        if is_out_of_service(node) and not is_out_of_service(old):
            for pod in self.pods.by_index("node", meta.name(node)):
                self.enqueue(pod)

    def _pod_added(self, pod: Object) -> None:
        node = pod["spec"].get("nodeName")
        if node and self.nodes.get(None, node) is None:
            self.queue.add_after(meta.key(pod), QUARANTINE)
        if meta.is_deleting(pod) and (not node or is_out_of_service(self.nodes.get(None, node))):
            self.enqueue(pod)
        if pods.is_finished(pod) and len(self.pods) > self.options.terminated_pods:
            self.queue.add(_FINISHED)

    def _pod_updated(self, old: Object, pod: Object) -> None:
        moved = old["spec"].get("nodeName") != pod["spec"].get("nodeName")
        ended = pods.is_finished(pod) and not pods.is_finished(old)
        if moved or ended or meta.is_deleting(pod) != meta.is_deleting(old):
            self._pod_added(pod)

    async def sync(self, key: str) -> None:
        if key == _FINISHED:
            for oldest in surplus(self.pods.list(), self.options.terminated_pods):
                await self._remove(oldest)
            return
        pod = self.pods.get(*split_key(key))
        if pod is None:
            return
        node = pod["spec"].get("nodeName")
        if node:
            found = self.nodes.get(None, node)
            if is_out_of_service(found) and meta.is_deleting(pod):
                pod = await self._fail(pod)
            elif found is not None or await self._exists(node):
                return
            else:
                pod = await self._fail(pod, disrupted(now()))
        elif not meta.is_deleting(pod):
            return
        await self._remove(pod)

    async def _exists(self, node: str) -> bool:
        """Not on the word of a copy."""
        try:
            await self.client.get(NODES, node)
        except StatusError as error:
            if error.code == 404:
                return False
            raise
        return True

    async def _fail(self, pod: Object, disruption: Object | None = None) -> Object:
        """A pod whose node is gone has failed; whoever counts it must see that."""
        if pods.is_finished(pod):
            return pod
        status: Object = {"phase": "Failed"}
        if disruption is not None:
            known = (pod.get("status") or {}).get("conditions") or ()
            status["conditions"] = conditions.put(known, disruption)
        patch = {
            "metadata": {"uid": meta.uid(pod), "resourceVersion": meta.resource_version(pod)},
            "status": status,
        }
        written = await self.client.patch(
            PODS, meta.name(pod), patch, meta.namespace(pod), subresource="status"
        )
        return await self.seen(PODS, written)

    async def _remove(self, pod: Object) -> None:
        try:
            await self.client.delete(
                PODS, meta.name(pod), meta.namespace(pod), uid=meta.uid(pod), grace=0
            )
        except StatusError as error:
            if error.code != 404:
                raise
