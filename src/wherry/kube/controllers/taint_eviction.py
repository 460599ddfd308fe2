"""Taint eviction: pods leave a node that has a NoExecute taint they do not tolerate, or no longer.

A toleration with ``tolerationSeconds`` gives that long from the moment the taint was set.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from wherry.kube.api import conditions, meta, pods
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import NODES, PODS
from wherry.kube.api.taints import NO_EXECUTE, Taint, Toleration, tolerates
from wherry.kube.client.recorder import NORMAL
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, Controller, now, split_key
from wherry.kube.controllers.node_lifecycle import by_node


def executing(node: Object) -> list[Taint]:
    """The node's taints that drive pods away."""
    all_taints = (node.get("spec") or {}).get("taints") or ()
    return [taint for taint in all_taints if taint.get("effect") == NO_EXECUTE]


def leaves_in(
    taints: Sequence[Taint], tolerations: Sequence[Toleration], noticed: datetime, now: datetime
) -> float | None:
    """Seconds until a pod with ``tolerations`` must leave; 0 for at once, None for never.

    ``noticed`` is when we saw the taints first, for those that do not say when they were set.
    """
    earliest: float | None = None
    for taint in taints:
        bearing = [toleration for toleration in tolerations if tolerates(toleration, taint)]
        if not bearing:
            return 0.0
        limits = [t["tolerationSeconds"] for t in bearing if t.get("tolerationSeconds") is not None]
        if not limits:
            continue
        since = meta.parse_time(taint["timeAdded"]) if taint.get("timeAdded") else noticed
        left = max(0.0, max(0, min(limits)) - (now - since).total_seconds())
        earliest = left if earliest is None else min(earliest, left)
    return earliest


class TaintEvictionController(Controller):
    """Deletes pods that must leave. Keys are pods."""

    name = "taint-eviction-controller"
    account = "node-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.recorder = context.recorder("taint-eviction-controller")
        self.noticed: dict[str, datetime] = {}
        self.nodes = self.watch(NODES)
        self.pods = self.watch(PODS)
        self.pods.add_indexer("node", by_node)
        self.nodes.add_handlers(on_add=self._node_changed, on_update=self._node_updated)
        self.pods.add_handlers(on_add=self._pod_added, on_update=self._pod_updated)
        self.pods.add_handlers(on_delete=lambda pod: self._forget(meta.key(pod)))

    def _node_updated(self, old: Object, node: Object) -> None:
        if executing(old) != executing(node):
            self._node_changed(node)

    def _node_changed(self, node: Object) -> None:
        if executing(node) or self.noticed:
            for pod in self.pods.by_index("node", meta.name(node)):
                self.enqueue(pod)

    def _pod_added(self, pod: Object) -> None:
        node = self.nodes.get(None, pod["spec"].get("nodeName") or "")
        if node is None or executing(node):
            self.enqueue(pod)

    def _pod_updated(self, old: Object, pod: Object) -> None:
        before, after = old["spec"], pod["spec"]
        if any(before.get(part) != after.get(part) for part in ("nodeName", "tolerations")):
            self._pod_added(pod)

    def _forget(self, key: str) -> None:
        self.noticed.pop(key, None)

    async def sync(self, key: str) -> None:
        pod = self.pods.get(*split_key(key))
        if pod is None or meta.is_deleting(pod):
            return
        node = self.nodes.get(None, pod["spec"].get("nodeName") or "")
        if node is None:
            return
        moment = now()
        noticed = self.noticed.setdefault(key, moment)
        left = leaves_in(executing(node), pod["spec"].get("tolerations") or (), noticed, moment)
        if left is None:
            if noticed != moment:
                message = f"Cancelling deletion of Pod {key}"
                self.recorder.event(PODS, pod, NORMAL, "TaintManagerEviction", message)
            self._forget(key)
            return
        if left > 0:
            self.queue.add_after(key, left)
            return
        message = f"Marking for deletion Pod {key}"
        self.recorder.event(PODS, pod, NORMAL, "TaintManagerEviction", message)
        if not pods.is_finished(pod):
            pod = await self._mark(pod, moment)
        try:
            await self.client.delete(PODS, meta.name(pod), meta.namespace(pod), uid=meta.uid(pod))
        except StatusError as error:
            if error.code != 404:
                raise

    async def _mark(self, pod: Object, moment: datetime) -> Object:
        disruption = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": meta.format_time(moment),
        }
        status = dict(pod.get("status") or {})
        status["conditions"] = conditions.put(status.get("conditions") or (), disruption)
        if status == pod.get("status"):
            return pod
        written = await self.client.update_status(PODS, {**pod, "status": status})
        return await self.seen(PODS, written)
