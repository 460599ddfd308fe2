"""Node lifecycle: a node that gives no sign of life is unknown, and is marked so that pods leave.

A kubelet renews its Lease in ``kube-node-lease`` every ten seconds. When neither that nor the
node's status has changed for ``Options.node_grace``, by this process's own clock, the node's
conditions become Unknown. Conditions become taints: NoSchedule keeps new pods away, NoExecute makes
those that do not tolerate it go (``taint_eviction``). Each node has one timer, set when it was last
heard; a heartbeat costs no work. A timer that fires late tells that this process did not run, and
could not hear: the silence is then measured anew, or every node would be lost after a stall.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime

from wherry.kube.api import conditions, meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import LEASES, NODES, PODS
from wherry.kube.api.taints import NO_EXECUTE, NO_SCHEDULE, Taint
from wherry.kube.client.recorder import NORMAL, WARNING
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, Controller, now

LEASE_NAMESPACE = "kube-node-lease"
NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"

# Which status of which condition means which taint.
_TAINTS = {
    ("Ready", "False"): NOT_READY,
    ("Ready", "Unknown"): UNREACHABLE,
    ("MemoryPressure", "True"): "node.kubernetes.io/memory-pressure",
    ("DiskPressure", "True"): "node.kubernetes.io/disk-pressure",
    ("PIDPressure", "True"): "node.kubernetes.io/pid-pressure",
    ("NetworkUnavailable", "True"): "node.kubernetes.io/network-unavailable",
}
_OURS = {*_TAINTS.values(), UNSCHEDULABLE}
_REPORTED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


def by_node(pod: Object) -> tuple[str, ...]:
    """Indexer: the node a pod is on."""
    node = pod["spec"].get("nodeName")
    return (node,) if node else ()


def was_deaf(late: float, grace: float) -> bool:
    """Whether a timer ``late`` seconds behind means that heartbeats of ``grace`` were missed."""
    return late > grace / 10


def silenced(node: Object, now: datetime) -> list[Object]:
    """The conditions of a node that was not heard for too long."""
    present = (node.get("status") or {}).get("conditions") or []
    result = list(present)
    moment = meta.format_time(now)
    for type in _REPORTED:
        known = conditions.find(present, type)
        if known is None:
            result.append(
                {
                    "type": type,
                    "status": "Unknown",
                    "reason": "NodeStatusNeverUpdated",
                    "message": "Kubelet never posted node status.",
                    "lastHeartbeatTime": node["metadata"].get("creationTimestamp"),
                    "lastTransitionTime": moment,
                }
            )
        elif known.get("status") != "Unknown":
            result[result.index(known)] = {
                **known,
                "status": "Unknown",
                "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.",
                "lastTransitionTime": moment,
            }
    return result


def taints(node: Object, now: datetime) -> list[Taint]:
    """The node's taints, ours as its conditions demand, others as they are."""
    status = node.get("status") or {}
    wanted: list[tuple[str, str]] = []
    for condition in status.get("conditions") or ():
        key = _TAINTS.get((condition["type"], condition.get("status")))
        if key is None:
            continue
        wanted.append((key, NO_SCHEDULE))
        if key in (NOT_READY, UNREACHABLE):
            wanted.append((key, NO_EXECUTE))
    if (node.get("spec") or {}).get("unschedulable"):
        wanted.append((UNSCHEDULABLE, NO_SCHEDULE))
    present = (node.get("spec") or {}).get("taints") or []
    result = [
        taint
        for taint in present
        if taint["key"] not in _OURS or (taint["key"], taint["effect"]) in wanted
    ]
    held = {(taint["key"], taint["effect"]) for taint in result}
    moment = meta.format_time(now)
    result += [
        {"key": key, "effect": effect, "timeAdded": moment}
        for key, effect in wanted
        if (key, effect) not in held
    ]
    return result


class NodeLifecycleController(Controller):
    """Watches over heartbeats. Keys are nodes."""

    name = "node-lifecycle-controller"
    account = "node-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.recorder = context.recorder("node-controller")
        self.heard: dict[str, float] = {}
        self.timers: dict[str, asyncio.TimerHandle] = {}
        self.nodes = self.watch(NODES)
        self.leases = self.watch(LEASES)
        self.pods = self.watch(PODS)
        self.pods.add_indexer("node", by_node)
        self.nodes.add_handlers(
            on_add=self._node_added, on_update=self._node_updated, on_delete=self._node_gone
        )
        self.leases.add_handlers(on_add=self._beat, on_update=lambda _, lease: self._beat(lease))

    # -- signs of life

    def _node_added(self, node: Object) -> None:
        name = meta.name(node)
        self.heard[name] = time.monotonic()
        self._tell(node, "RegisteredNode", f"Registered Node {name} in Controller")
        self.enqueue(node)

    def _node_updated(self, old: Object, node: Object) -> None:
        before, after = conditions.of(old, "Ready"), conditions.of(node, "Ready")
        if after != before and after is not None and after.get("status") != "Unknown":
            self.heard[meta.name(node)] = time.monotonic()
        self.enqueue(node)

    def _node_gone(self, node: Object) -> None:
        name = meta.name(node)
        self.heard.pop(name, None)
        timer = self.timers.pop(name, None)
        if timer is not None:
            timer.cancel()
        self._tell(node, "RemovingNode", f"Removing Node {name} from Controller")

    def _beat(self, lease: Object) -> None:
        name = meta.name(lease)
        if meta.namespace(lease) == LEASE_NAMESPACE and name in self.heard:
            self.heard[name] = time.monotonic()

    def _tell(self, node: Object, reason: str, what: str) -> None:
        self.recorder.event(NODES, node, NORMAL, reason, f"Node {meta.name(node)} event: {what}")

    # -- acting

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            for timer in self.timers.values():
                timer.cancel()
            self.timers.clear()

    def _listen(self, name: str, left: float, grace: float) -> None:
        """Look at the node again in ``left`` seconds; of several times the earliest holds."""
        loop = asyncio.get_running_loop()
        due = loop.time() + left
        timer = self.timers.get(name)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self.timers[name] = loop.call_at(due, self._due, name, due, grace)

    def _due(self, name: str, due: float, grace: float) -> None:
        del self.timers[name]
        late = asyncio.get_running_loop().time() - due
        if was_deaf(late, grace) and name in self.heard:
            self.heard[name] = time.monotonic()
        self.queue.add(name)

    async def sync(self, key: str) -> None:
        node = self.nodes.get(None, key)
        if node is None:
            return
        ready = conditions.of(node, "Ready")
        if ready is None or ready.get("status") != "Unknown":
            grace = self.options.node_grace if ready else self.options.node_start_grace
            left = self.heard.get(key, 0.0) + grace - time.monotonic()
            if left > 0:
                self._listen(key, left, grace)
            else:
                node = await self._silence(node)
        wanted = taints(node, now())
        if wanted != ((node.get("spec") or {}).get("taints") or []):
            patch = {
                "metadata": {"resourceVersion": meta.resource_version(node)},
                "spec": {"taints": wanted or None},
            }
            node = await self.seen(NODES, await self.client.patch(NODES, key, patch))
        ready = conditions.of(node, "Ready")
        if ready is not None and ready.get("status") != "True":
            await self._mark_pods(key)

    async def _silence(self, node: Object) -> Object:
        status = {**(node.get("status") or {}), "conditions": silenced(node, now())}
        written = await self.client.update_status(NODES, {**node, "status": status})
        message = f"Node {meta.name(node)} status is now: NodeNotReady"
        self.recorder.event(NODES, node, NORMAL, "NodeNotReady", message)
        return await self.seen(NODES, written)

    async def _mark_pods(self, name: str) -> None:
        """What runs on a node that is not ready is not ready either: no traffic for it."""
        for pod in self.pods.by_index("node", name):
            ready = conditions.of(pod, "Ready")
            if ready is None or ready.get("status") != "True":
                continue
            moment = meta.format_time(now())
            new = {**ready, "status": "False", "lastTransitionTime": moment}
            status = dict(pod["status"])
            status["conditions"] = [
                new if known is ready else known for known in status["conditions"]
            ]
            try:
                written = await self.client.update_status(PODS, {**pod, "status": status})
            except StatusError as error:
                if error.code == 404:
                    continue
                raise
            self.recorder.event(PODS, pod, WARNING, "NodeNotReady", "Node is not ready")
            await self.seen(PODS, written)
