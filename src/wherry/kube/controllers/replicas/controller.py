"""The loop around ``plan``, for ReplicaSets and for ReplicationControllers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from wherry.kube.api import meta
from wherry.kube.api.resources import REPLICA_SETS, REPLICATION_CONTROLLERS
from wherry.kube.api.selectors import LabelSelector, labels_from_set
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import now, split_key
from wherry.kube.controllers.ownership import from_template
from wherry.kube.controllers.pod_owners import PodOwnerController
from wherry.kube.controllers.replicas.plan import next_available, plan, status


class ReplicaController(PodOwnerController):
    """Keeps as many pods as one kind of owner asks for."""

    reports_terminating: ClassVar[bool] = True

    async def sync(self, key: str) -> None:
        owner = self.owners.get(*split_key(key))
        await self.settle_doubt(key, owner)
        if owner is None:
            return
        owned = await self.claim(owner)
        failure: tuple[str, str] | None = None
        error: Exception | None = None
        if not meta.is_deleting(owner):
            wanted = plan(owner, owned, self._related(owner, owned), self.removed, now())
            if wanted.create:
                body = from_template(owner["spec"]["template"], owner, self.resource)
                error = await self.make(owner, [body] * wanted.create)
                failure = ("FailedCreate", str(error)) if error else None
            elif wanted.delete:
                error = await self.remove(owner, wanted.delete)
                failure = ("FailedDelete", str(error)) if error else None
            if wanted.create or wanted.delete:
                owned = self.owned(owner)
        moment = now()
        wait = next_available(owner, owned, moment)
        if wait is not None:
            self.queue.add_after(key, wait + 0.01)
        terminating = self.reports_terminating
        new = status(owner, owned, self.removed, failure, moment, terminating=terminating)
        await self.report(owner, new)
        if error is not None:
            raise error

    def _related(self, owner: Object, owned: Sequence[Object]) -> Sequence[Object]:
        """The pods of the owner and of its siblings under one controller."""
        controller = meta.controller_of(owner)
        if controller is None:
            return owned
        return [
            pod
            for sibling in self.owners.by_index("controller", controller["uid"])
            for pod in self.pods.by_index("controller", meta.uid(sibling))
        ]


class ReplicaSetController(ReplicaController):
    """Pods of ReplicaSets."""

    name = "replicaset-controller"
    component = "replicaset-controller"
    resource = REPLICA_SETS


class ReplicationControllerController(ReplicaController):
    """Pods of ReplicationControllers."""

    name = "replicationcontroller-controller"
    account = "replication-controller"
    component = "replication-controller"
    resource = REPLICATION_CONTROLLERS
    reports_terminating = False

    @staticmethod
    def selector(owner: Object) -> LabelSelector:
        return labels_from_set(owner["spec"].get("selector"))
