"""The loop around ``plan``."""

from __future__ import annotations

import time

from wherry.kube.api import meta
from wherry.kube.api.resources import CONTROLLER_REVISIONS, DAEMON_SETS, NODES
from wherry.kube.client.recorder import NORMAL, WARNING
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, now, split_key
from wherry.kube.controllers.claims import claim_dependents
from wherry.kube.controllers.daemon_set.placement import make_pod
from wherry.kube.controllers.daemon_set.plan import View, plan, status
from wherry.kube.controllers.histories import HASH_LABEL, Collision, Histories
from wherry.kube.controllers.ownership import by_controller
from wherry.kube.controllers.pod_owners import PodOwnerController

_FIRST_HOLD = 1.0  # seconds before a node's failed pod is replaced, doubled each time
_LONGEST_HOLD = 15 * 60.0


class _Holds:
    """How long the failed pods of each node are left alone."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], tuple[float, float]] = {}

    def remaining(self, owner: str, node: str) -> float:
        until, _ = self._held.get((owner, node), (0.0, 0.0))
        return until - time.monotonic()

    def extend(self, owner: str, node: str) -> None:
        until, length = self._held.get((owner, node), (0.0, 0.0))
        moment = time.monotonic()
        forgotten = moment - until > 2 * _LONGEST_HOLD
        length = _FIRST_HOLD if forgotten or not length else min(2 * length, _LONGEST_HOLD)
        self._held[owner, node] = moment + length, length

    def forget(self, owner: str) -> None:
        self._held = {key: held for key, held in self._held.items() if key[0] != owner}


class DaemonSetController(PodOwnerController):
    """Keeps a pod of each DaemonSet on each node that qualifies."""

    name = "daemonset-controller"
    account = "daemon-set-controller"
    component = "daemonset-controller"
    resource = DAEMON_SETS

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.nodes = self.watch(NODES)
        self.nodes.add_handlers(
            on_add=self._node_came_or_went,
            on_update=self._node_changed,
            on_delete=self._node_came_or_went,
        )
        self.revisions = self.watch(CONTROLLER_REVISIONS)
        self.revisions.add_indexer("controller", by_controller)
        self.histories = Histories(self.client, self.revisions, self.resource, HASH_LABEL)
        self._holds = _Holds()

    def _node_came_or_went(self, node: Object) -> None:
        for set in self.owners.list():
            self.enqueue(set)

    def _node_changed(self, old: Object, node: Object) -> None:
        taints = (node.get("spec") or {}).get("taints"), (old.get("spec") or {}).get("taints")
        if meta.labels(old) != meta.labels(node) or taints[0] != taints[1]:
            self._node_came_or_went(node)

    # -- acting

    async def sync(self, key: str) -> None:
        set = self.owners.get(*split_key(key))
        await self.settle_doubt(key, set)
        if set is None:
            self._holds.forget(key)
            return
        selector = self.selector(set)
        if selector.empty:
            message = "This daemon set is selecting all pods. A non-empty selector is required."
            self.tell(set, WARNING, "SelectingAll", message)
            return
        owned = await self.claim(set)
        revisions = await claim_dependents(
            self.client, set, self.resource, selector, self.revisions
        )
        try:
            current = await self.histories.current(set, revisions)
        except Collision:
            before = set.get("status") or {}
            collisions = (before.get("collisionCount") or 0) + 1
            await self.report(set, {**before, "collisionCount": collisions})
            return
        hash = meta.labels(current)[HASH_LABEL]
        view = View(set, self.nodes.list(), owned, self.removed, now())
        step = plan(set, hash, view, lambda node: self._holds.remaining(key, node))
        for node, pod in step.failed:
            self._holds.extend(key, node)
            self._tell_ended(set, WARNING, "FailedDaemonPod", "failed", "kill", node, pod)
        for node, pod in step.succeeded:
            self._tell_ended(set, NORMAL, "SucceededDaemonPod", "succeeded", "delete", node, pod)
        error = await self.remove(set, step.delete)
        bodies = [make_pod(set, node, hash) for node in step.create]
        error = await self.make(set, bodies) or error
        view = View(set, self.nodes.list(), self.owned(set), self.removed, now())
        set = await self.report(set, status(set, hash, view))
        if not meta.is_deleting(set):
            live = {meta.labels(pod).get(HASH_LABEL, "") for pod in self.owned(set)}
            known = {meta.name(r): r for r in (*revisions, current)}
            names = {n for n, r in known.items() if meta.labels(r).get(HASH_LABEL) in live}
            await self.histories.truncate(set, list(known.values()), names | {meta.name(current)})
        if step.check_after is not None:
            self.queue.add_after(key, step.check_after + 0.01)
        if error is not None:
            raise error

    def _tell_ended(
        self, set: Object, type: str, reason: str, how: str, verb: str, node: str, pod: Object
    ) -> None:
        self.tell(
            set,
            type,
            reason,
            f"Found {how} daemon pod {meta.key(pod)} on node {node}, will try to {verb} it",
        )
