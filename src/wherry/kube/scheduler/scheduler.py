"""The loop: follows nodes and pods, takes one pod after the other, decides, binds.

Deciding waits for nothing; what it decides is *assumed* at once, so that the next pod is decided
while this one is being bound. Binding may fail: then the assumption is taken back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import NODES, PODS
from wherry.kube.client.client import STRATEGIC_MERGE_PATCH, Client
from wherry.kube.client.informer import SharedInformers
from wherry.kube.client.recorder import NORMAL, WARNING, EventRecorder
from wherry.kube.client.transport import Object
from wherry.kube.scheduler.algorithm import Algorithm, Unfit
from wherry.kube.scheduler.config import Configuration, ConfigurationError
from wherry.kube.scheduler.framework import Change, Cycle, Hint, Rejection, Room
from wherry.kube.scheduler.queue import Entry, SchedulingQueue
from wherry.kube.scheduler.snapshot import PodInfo, Snapshot

log = logging.getLogger(__name__)

_BINDINGS_AT_ONCE = 256


class Rejected(Exception):
    """A plugin objected behind the decision (Reserve, Permit, PreBind)."""

    def __init__(self, plugin: str, verdict: Rejection) -> None:
        super().__init__(", ".join(verdict.reasons))
        self.plugin = plugin


class Scheduler:
    """Gives nodes to pods of the configured scheduler names."""

    def __init__(
        self, client: Client, configuration: Configuration, informers: SharedInformers
    ) -> None:
        self.client = client
        self.snapshot = Snapshot()
        self.algorithms: dict[str, Algorithm] = {}
        for profile in configuration.profiles:
            if profile.scheduler_name in self.algorithms:
                raise ConfigurationError(f'profile "{profile.scheduler_name}" is there twice')
            self.algorithms[profile.scheduler_name] = Algorithm(
                profile, client, self.snapshot, configuration.percentage_of_nodes
            )
        first = next(iter(self.algorithms.values()))
        self.queue = SchedulingQueue(configuration, first.sort.key, self._gate, self._hint)
        self.recorders = {name: EventRecorder(client, name) for name in self.algorithms}
        self._hints = {
            (name, plugin.name): plugin.helped_by()
            for name, algorithm in self.algorithms.items()
            for plugin in algorithm.plugins
        }
        self._tasks: set[asyncio.Task[None]] = set()
        self._binding = asyncio.Semaphore(_BINDINGS_AT_ONCE)
        self.pods = informers.informer(PODS)
        self.nodes = informers.informer(NODES)
        self.nodes.add_handlers(
            on_add=self._node_added, on_update=self._node_updated, on_delete=self._node_gone
        )
        self.pods.add_handlers(
            on_add=self._pod_added, on_update=self._pod_updated, on_delete=self._pod_gone
        )

    async def run(self) -> None:
        """Work until cancelled."""
        for recorder in self.recorders.values():
            recorder.start()
        await asyncio.gather(self.nodes.wait_synced(), self.pods.wait_synced())
        try:
            while True:
                self._try(await self.queue.pop())
                await asyncio.sleep(0)  # others on this loop have their turn between two pods
        finally:
            self.queue.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.gather(*(recorder.stop() for recorder in self.recorders.values()))

    # -- what plugins say to the queue

    def _algorithm(self, pod: Object) -> Algorithm | None:
        return self.algorithms.get(pod["spec"].get("schedulerName") or "default-scheduler")

    def _gate(self, pod: PodInfo) -> str | None:
        algorithm = self._algorithm(pod.object)
        for plugin in algorithm.pre_enqueue if algorithm is not None else ():
            if plugin.pre_enqueue(pod.object) is not None:
                return plugin.name
        return None

    def _hint(self, pod: PodInfo, plugin: str, change: Change) -> Hint | None:
        algorithm = self._algorithm(pod.object)
        if algorithm is None:
            return None
        return self._hints[algorithm.profile.scheduler_name, plugin].get(change)

    # -- what happens in the cluster

    def _node_added(self, node: Object) -> None:
        self.snapshot.set_node(node)
        self.queue.wake(Change.NODE_ADDED, None, node)

    def _node_updated(self, old: Object, node: Object) -> None:
        changes = node_changes(old, node)
        if changes:
            self.snapshot.set_node(node)
            for change in changes:
                self.queue.wake(change, old, node)

    def _node_gone(self, node: Object) -> None:
        self.snapshot.remove_node(meta.name(node))

    def _pod_added(self, pod: Object) -> None:
        if _is_finished(pod):
            return
        if pod["spec"].get("nodeName"):
            self._placed(pod)
        elif self._algorithm(pod) is not None and not meta.is_deleting(pod):
            info = PodInfo(pod)
            self._nominate(info)
            self.queue.add(info)

    def _pod_updated(self, old: Object, pod: Object) -> None:
        if _is_finished(pod):
            self._pod_gone(pod)
        elif pod["spec"].get("nodeName"):
            if not old["spec"].get("nodeName") or _matters(old, pod):
                self._placed(pod)
            else:
                self._refresh(pod)
        elif meta.is_deleting(pod):
            self._pod_gone(pod)
        elif self._algorithm(pod) is not None and self.snapshot.place_of(meta.uid(pod)) is None:
            if _matters(old, pod):
                info = PodInfo(pod)
                self._nominate(info)
                self.queue.update(info)
            else:
                self.queue.refresh(pod)

    def _refresh(self, pod: Object) -> None:
        """A pod on a node changed in nothing that counts; plugins see its latest state."""
        uid = meta.uid(pod)
        node = self.snapshot.nodes.get(self.snapshot.place_of(uid) or "")
        info = node.pods.get(uid) if node is not None else None
        if info is not None:
            info.object = pod

    def _placed(self, pod: Object) -> None:
        """The pod is on a node, as we assumed or as somebody else decided."""
        uid = meta.uid(pod)
        self.queue.remove(uid)
        self._forget_nomination(uid)
        node = pod["spec"]["nodeName"]
        assumed = self.snapshot.place_of(uid)
        known = self.snapshot.nodes.get(node)
        if assumed == node and known is not None and uid in known.pods:
            info = known.pods[uid]
            if not _matters(info.object, pod):
                info.object = pod
                return
        self.snapshot.put(PodInfo(pod), node)
        self.queue.wake(Change.POD_ADDED, None, pod)

    def _pod_gone(self, pod: Object) -> None:
        uid = meta.uid(pod)
        self.queue.remove(uid)
        self._forget_nomination(uid)
        if self.snapshot.remove(uid) is not None:
            self.queue.wake(Change.POD_REMOVED, pod, None)

    def _nominate(self, pod: PodInfo) -> None:
        node = (pod.object.get("status") or {}).get("nominatedNodeName")
        algorithm = self._algorithm(pod.object)
        if node and algorithm is not None:
            algorithm.nominated[pod.uid] = (pod, node)

    def _forget_nomination(self, uid: str) -> None:
        for algorithm in self.algorithms.values():
            algorithm.nominated.pop(uid, None)

    # -- one pod

    def _try(self, entry: Entry) -> None:
        pod = entry.pod
        algorithm = self._algorithm(pod.object)
        assert algorithm is not None
        try:
            node, cycle = algorithm.choose(pod)
        except Unfit as unfit:
            self._unfit(entry, algorithm, unfit)
            return
        except Exception:
            # A fault in a plugin: this pod may be the only one it concerns.
            log.exception("deciding for pod %s", pod.key)
            self.queue.retry(entry, None)
            return
        self._forget_nomination(pod.uid)
        self.snapshot.put(pod, node.name)
        self._spawn(self._place(entry, algorithm, cycle, node.name))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _place(self, entry: Entry, algorithm: Algorithm, cycle: Cycle, node: str) -> None:
        """Bind the pod to the node it is assumed on; take the assumption back if that fails."""
        pod = entry.pod
        try:
            for reserve in algorithm.reserves:
                _heed(reserve.name, reserve.reserve(cycle, pod, node))
            for permit in algorithm.permits:
                _heed(permit.name, await permit.permit(cycle, pod, node))
            async with self._binding:
                for pre_bind in algorithm.pre_binds:
                    _heed(pre_bind.name, await pre_bind.pre_bind(cycle, pod, node))
                for bind in algorithm.binds:
                    if await bind.bind(cycle, pod, node):
                        break
        except Exception as error:
            self._not_placed(entry, algorithm, cycle, node, error)
            return
        recorder = self.recorders[algorithm.profile.scheduler_name]
        message = f"Successfully assigned {pod.key} to {node}"
        recorder.event(PODS, pod.object, NORMAL, "Scheduled", message)
        for post_bind in algorithm.post_binds:
            post_bind.post_bind(cycle, pod, node)

    def _not_placed(
        self, entry: Entry, algorithm: Algorithm, cycle: Cycle, node: str, error: Exception
    ) -> None:
        pod = entry.pod
        for reserve in reversed(algorithm.reserves):
            reserve.unreserve(cycle, pod, node)
        live = self.pods.get(meta.namespace(pod.object), meta.name(pod.object))
        if live is None or meta.uid(live) != pod.uid or live["spec"].get("nodeName"):
            return  # it went, or somebody else was quicker; the informer has told us already
        self.snapshot.remove(pod.uid)
        self.queue.wake(Change.POD_REMOVED, pod.object, None)
        if isinstance(error, StatusError) and error.code == 404:
            self.queue.remove(pod.uid)
            return
        if isinstance(error, Rejected):
            self.queue.retry(entry, {error.plugin})
        else:
            if not isinstance(error, StatusError | ConnectionError | TimeoutError):
                log.error("binding pod %s", pod.key, exc_info=error)
            self.queue.retry(entry, None)
        self._tell_failure(pod, algorithm, "SchedulerError", str(error), "")

    def _unfit(self, entry: Entry, algorithm: Algorithm, unfit: Unfit) -> None:
        """Find out how room could be made, say why not now, wait."""
        pod, diagnosis = entry.pod, unfit.diagnosis
        room = Room()
        for plugin in algorithm.post_filters if diagnosis.verdicts else ():
            room = plugin.post_filter(unfit.cycle, pod, diagnosis)
            if room.node:
                break
        if room.node:
            algorithm.nominated[pod.uid] = (pod, room.node)
        for victim in room.victims:
            self._spawn(self._evict(victim, pod, algorithm, room.node))
        self.queue.retry(entry, set(diagnosis.rejected_by))
        message = f"{unfit} {room.message}".rstrip()
        self._tell_failure(pod, algorithm, "Unschedulable", message, room.node)

    async def _evict(self, victim: PodInfo, pod: PodInfo, algorithm: Algorithm, node: str) -> None:
        name = algorithm.profile.scheduler_name
        disruption = {
            "type": "DisruptionTarget",
            "status": "True",
            "lastTransitionTime": meta.now(),
            "reason": "PreemptionByScheduler",
            "message": f"{name}: preempting to accommodate a higher priority pod",
        }
        try:
            await self._patch_status(victim.object, {"conditions": [disruption]})
            await self.client.delete(
                PODS, meta.name(victim.object), meta.namespace(victim.object), uid=victim.uid
            )
        except (StatusError, ConnectionError) as error:
            if not isinstance(error, StatusError) or error.code != 404:
                log.warning("preempting pod %s: %s", victim.key, error)
            return
        message = f"Preempted by pod {pod.uid} on node {node}"
        self.recorders[name].event(PODS, victim.object, NORMAL, "Preempted", message)

    def _tell_failure(
        self, pod: PodInfo, algorithm: Algorithm, reason: str, message: str, nominated: str
    ) -> None:
        """To the user as an event, to programs as the pod's condition PodScheduled."""
        recorder = self.recorders[algorithm.profile.scheduler_name]
        recorder.event(PODS, pod.object, WARNING, "FailedScheduling", message)
        status = pod.object.get("status") or {}
        known: Object = next(
            (c for c in status.get("conditions") or () if c.get("type") == "PodScheduled"), {}
        )
        patch: Object = {}
        if (known.get("status"), known.get("reason"), known.get("message")) != (
            "False",
            reason,
            message,
        ):
            condition = {
                "type": "PodScheduled",
                "status": "False",
                "reason": reason,
                "message": message,
            }
            if known.get("status") != "False":
                condition["lastTransitionTime"] = meta.now()
            patch["conditions"] = [condition]
        if nominated and status.get("nominatedNodeName") != nominated:
            patch["nominatedNodeName"] = nominated
        if patch:
            self._spawn(self._report(pod.object, patch))

    async def _report(self, pod: Object, status: Object) -> None:
        try:
            await self._patch_status(pod, status)
        except (StatusError, ConnectionError) as error:
            # The event told it already, and the next attempt will say it again.
            log.debug("status of pod %s: %s", meta.key(pod), error)

    async def _patch_status(self, pod: Object, status: Object) -> None:
        await self.client.patch(
            PODS,
            meta.name(pod),
            {"metadata": {"uid": meta.uid(pod)}, "status": status},
            meta.namespace(pod),
            content_type=STRATEGIC_MERGE_PATCH,
            subresource="status",
        )


def _heed(plugin: str, verdict: Rejection | None) -> None:
    if verdict is not None:
        raise Rejected(plugin, verdict)


def _is_finished(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _matters(old: Object, new: Object) -> bool:
    """Whether something changed that decides where pods go."""
    if old["metadata"].get("labels") != new["metadata"].get("labels"):
        return True
    before, after = old["spec"], new["spec"]
    if before is after or before == after:
        return False
    return {**before, "nodeName": None} != {**after, "nodeName": None}


def node_changes(old: Object, new: Object) -> list[Change]:
    """In what a node changed, as far as pods care; a heartbeat is no change."""
    changes = []
    before, after = old.get("spec") or {}, new.get("spec") or {}
    was, now = old.get("status") or {}, new.get("status") or {}
    if was.get("allocatable") != now.get("allocatable") or was.get("capacity") != now.get(
        "capacity"
    ):
        changes.append(Change.NODE_ALLOCATABLE)
    if meta.labels(old) != meta.labels(new):
        changes.append(Change.NODE_LABELS)
    if before.get("taints") != after.get("taints") or before.get("unschedulable") != after.get(
        "unschedulable"
    ):
        changes.append(Change.NODE_TAINTS)
    if _states(was) != _states(now):
        changes.append(Change.NODE_CONDITIONS)
    return changes


def _states(status: Object) -> dict[str, str]:
    return {c["type"]: c.get("status", "") for c in status.get("conditions") or ()}
