"""What happens in the cluster, brought to the snapshot and to the pods that wait."""

from __future__ import annotations

from collections.abc import Callable

from wherry.kube.api import meta, pods
from wherry.kube.client.informer import Informer
from wherry.kube.client.transport import Object
from wherry.kube.scheduler.framework import Change
from wherry.kube.scheduler.nominations import Nominations
from wherry.kube.scheduler.queue import SchedulingQueue
from wherry.kube.scheduler.snapshot import PodInfo, Snapshot


class Following:
    """The handlers of the informers of nodes and pods.

    ``is_ours`` tells of a pod whether a profile of ours is responsible for it.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        queue: SchedulingQueue,
        nominations: Nominations,
        is_ours: Callable[[Object], bool],
    ) -> None:
        self.snapshot = snapshot
        self.queue = queue
        self.nominations = nominations
        self.is_ours = is_ours

    def follow(self, nodes: Informer, pods: Informer) -> None:
        """Hear of everything from now on."""
        nodes.add_handlers(
            on_add=self._node_added, on_update=self._node_updated, on_delete=self._node_gone
        )
        pods.add_handlers(
            on_add=self._pod_added, on_update=self._pod_updated, on_delete=self.pod_gone
        )

    # -- nodes

    def _node_added(self, node: Object) -> None:
        self.snapshot.set_node(node)
        self.queue.wake(Change.NODE_ADDED, None, node)

    def _node_updated(self, old: Object, node: Object) -> None:
        changes = node_changes(old, node)
        if changes or _images(old) != _images(node):
            self.snapshot.set_node(node)
            for change in changes:
                self.queue.wake(change, old, node)

    def _node_gone(self, node: Object) -> None:
        self.snapshot.remove_node(meta.name(node))
        self.queue.wake(Change.NODE_REMOVED, node, None)

    # -- pods

    def _pod_added(self, pod: Object) -> None:
        if pods.is_finished(pod):
            return
        if pod["spec"].get("nodeName"):
            self._placed(pod)
        elif self.is_ours(pod) and not meta.is_deleting(pod):
            info = PodInfo(pod)
            self._nominate(info)
            self.queue.add(info)

    def _pod_updated(self, old: Object, pod: Object) -> None:
        if pods.is_finished(pod):
            self.pod_gone(pod)
        elif pod["spec"].get("nodeName"):
            if not old["spec"].get("nodeName"):
                self._placed(pod)
            elif matters(old, pod):
                self._changed(old, pod)
            else:
                self._refresh(pod)
        elif meta.is_deleting(pod):
            self.pod_gone(pod)
        elif self.is_ours(pod) and self.snapshot.place_of(meta.uid(pod)) is None:
            if matters(old, pod):
                info = PodInfo(pod)
                self._nominate(info)
                self.queue.update(info)
            else:
                self._renominate(pod)
                self.queue.refresh(pod)

    def _refresh(self, pod: Object) -> None:
        """A pod on a node changed in nothing that counts; plugins see its latest state."""
        info = self.snapshot.pod(meta.uid(pod))
        if info is not None:
            info.object = pod

    def _changed(self, old: Object, pod: Object) -> None:
        """A pod on a node has other labels, requests less, or begins to leave."""
        self.snapshot.put(PodInfo(pod), pod["spec"]["nodeName"])
        self.queue.wake(Change.POD_CHANGED, old, pod)

    def _placed(self, pod: Object) -> None:
        """The pod is on a node, as we assumed or as somebody else decided."""
        uid = meta.uid(pod)
        self.queue.remove(uid)
        self.nominations.remove(uid)
        node = pod["spec"]["nodeName"]
        info = self.snapshot.pod(uid) if self.snapshot.place_of(uid) == node else None
        if info is not None and not matters(info.object, pod):
            info.object = pod
        else:
            self.snapshot.put(PodInfo(pod), node)
        self.queue.wake(Change.POD_ADDED, None, pod)

    def pod_gone(self, pod: Object) -> None:
        """The pod needs no place any more."""
        uid = meta.uid(pod)
        self.queue.remove(uid)
        self.nominations.remove(uid)
        if self.snapshot.remove(uid) is not None:
            self.queue.wake(Change.POD_REMOVED, pod, None)

    def _nominate(self, pod: PodInfo) -> None:
        node = (pod.object.get("status") or {}).get("nominatedNodeName")
        if node:
            self.nominations.put(pod, node)
        else:
            self.nominations.remove(pod.uid)

    def _renominate(self, pod: Object) -> None:
        """Somebody else has promised the pod a node, or taken the promise back."""
        uid = meta.uid(pod)
        node = (pod.get("status") or {}).get("nominatedNodeName") or ""
        if node and node != self.nominations.node_of(uid):
            self.nominations.put(PodInfo(pod), node)


def matters(old: Object, new: Object) -> bool:
    """Whether something changed that decides where pods go."""
    before, after = old["metadata"], new["metadata"]
    if before.get("labels") != after.get("labels"):
        return True
    if ("deletionTimestamp" in before) != ("deletionTimestamp" in after):
        return True
    was, now = old["spec"], new["spec"]
    if was is now or was == now:
        return False
    return bool({**was, "nodeName": None} != {**now, "nodeName": None})


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


def _images(node: Object) -> object:
    return (node.get("status") or {}).get("images")
