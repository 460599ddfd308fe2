"""The loop around ``plan``."""

from __future__ import annotations

import asyncio

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import DEPLOYMENTS, PODS, REPLICA_SETS
from wherry.kube.api.selectors import labels_from_object
from wherry.kube.client.recorder import NORMAL, WARNING
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, Controller, now, split_key
from wherry.kube.controllers.claims import claim_dependents
from wherry.kube.controllers.deployment.plan import plan
from wherry.kube.controllers.deployment.revisions import same_template
from wherry.kube.controllers.deployment.rolling import is_rolling, size
from wherry.kube.controllers.ownership import by_controller


class DeploymentController(Controller):
    """Moves ReplicaSets so that their pods become what the Deployment's template says."""

    name = "deployment-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.recorder = context.recorder("deployment-controller")
        self.deployments = self.watch(DEPLOYMENTS)
        self.deployments.add_indexer("uid", lambda d: (meta.uid(d),))
        self.replica_sets = self.watch(REPLICA_SETS)
        self.replica_sets.add_indexer("uid", lambda rs: (meta.uid(rs),))
        self.replica_sets.add_indexer("controller", by_controller)
        self.pods = self.watch(PODS)
        self.pods.add_indexer("controller", by_controller)
        self.deployments.add_handlers(
            on_add=self.enqueue, on_update=self.enqueue_update, on_delete=self.enqueue
        )
        self.replica_sets.add_handlers(
            on_add=self._set_changed, on_update=self._set_updated, on_delete=self._set_changed
        )
        self.pods.add_handlers(on_delete=self._pod_gone)

    # -- what concerns whom

    def _set_changed(self, rs: Object) -> None:
        controller = meta.controller_of(rs)
        if controller is not None:
            self._enqueue_owner(controller)
        elif not meta.is_deleting(rs):
            self._enqueue_takers(rs)

    def _set_updated(self, old: Object, rs: Object) -> None:
        before = meta.controller_of(old)
        if before is not None and before != meta.controller_of(rs):
            self._enqueue_owner(before)
        self._set_changed(rs)

    def _pod_gone(self, pod: Object) -> None:
        """A Deployment that recreates waits for the last of its old pods to go."""
        controller = meta.controller_of(pod)
        if controller is None:
            return
        for rs in self.replica_sets.by_index("uid", controller["uid"]):
            owner = meta.controller_of(rs)
            for deployment in self.deployments.by_index("uid", owner["uid"] if owner else ""):
                if not is_rolling(deployment):
                    self.enqueue(deployment)

    def _enqueue_owner(self, reference: Object) -> None:
        for deployment in self.deployments.by_index("uid", reference["uid"]):
            self.enqueue(deployment)

    def _enqueue_takers(self, rs: Object) -> None:
        for deployment in self.deployments.list(meta.namespace(rs)):
            if labels_from_object(deployment["spec"].get("selector")).matches(meta.labels(rs)):
                self.enqueue(deployment)

    # -- acting

    async def sync(self, key: str) -> None:
        deployment = self.deployments.get(*split_key(key))
        if deployment is None:
            return
        selector = labels_from_object(deployment["spec"].get("selector"))
        if selector.empty:
            self.recorder.event(
                DEPLOYMENTS,
                deployment,
                WARNING,
                "SelectingAll",
                "This deployment is selecting all pods. A non-empty selector is required.",
            )
            return
        owned = await claim_dependents(
            self.client, deployment, DEPLOYMENTS, selector, self.replica_sets
        )
        step = plan(deployment, owned, self._pods_of, now())
        if step.create is not None and not await self._create(deployment, step.create):
            return
        await asyncio.gather(*(self._update(deployment, *change) for change in step.update))
        await asyncio.gather(*(self._delete(rs) for rs in step.delete))
        if step.deployment is not None:
            await self._report(step.deployment)
        if step.check_after is not None:
            self.queue.add_after(key, step.check_after)

    def _pods_of(self, rs: Object) -> list[Object]:
        return self.pods.by_index("controller", meta.uid(rs))

    async def _create(self, deployment: Object, body: Object) -> bool:
        """Make the new ReplicaSet; False if its name was taken by another template's."""
        name, namespace = meta.name(body), meta.namespace(body)
        try:
            made = await self.client.create(REPLICA_SETS, body)
        except StatusError as error:
            if error.reason != "AlreadyExists":
                message = f'Failed to create new replica set "{name}": {error}'
                self._tell(deployment, WARNING, "ReplicaSetCreateError", message)
                raise
            taken = await self.client.get(REPLICA_SETS, name, namespace)
            ours = meta.is_controlled_by(taken, deployment)
            if ours and same_template(taken["spec"]["template"], body["spec"]["template"]):
                await self.seen(REPLICA_SETS, taken)
                return True
            # Another template has the same hash: count the collision, which changes the hash.
            status = dict(deployment.get("status") or {})
            status["collisionCount"] = (status.get("collisionCount") or 0) + 1
            await self._report({**deployment, "status": status})
            return False
        if size(made):
            message = f"Scaled up replica set {name} from 0 to {size(made)}"
            self._tell(deployment, NORMAL, "ScalingReplicaSet", message)
        await self.seen(REPLICA_SETS, made)
        return True

    async def _update(self, deployment: Object, old: Object, new: Object) -> None:
        written = await self.client.update(REPLICA_SETS, new)
        before, after = size(old), size(new)
        if before != after:
            direction = "up" if after > before else "down"
            name = meta.name(new)
            message = f"Scaled {direction} replica set {name} from {before} to {after}"
            self._tell(deployment, NORMAL, "ScalingReplicaSet", message)
        await self.seen(REPLICA_SETS, written)

    async def _delete(self, rs: Object) -> None:
        try:
            await self.client.delete(
                REPLICA_SETS, meta.name(rs), meta.namespace(rs), uid=meta.uid(rs)
            )
        except StatusError as error:
            if error.code != 404:
                raise

    async def _report(self, deployment: Object) -> None:
        await self.seen(DEPLOYMENTS, await self.client.update_status(DEPLOYMENTS, deployment))

    def _tell(self, deployment: Object, type: str, reason: str, message: str) -> None:
        self.recorder.event(DEPLOYMENTS, deployment, type, reason, message)
