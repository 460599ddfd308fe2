"""The loop around ``plan``, for ReplicaSets and for ReplicationControllers."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import PODS, REPLICA_SETS, REPLICATION_CONTROLLERS, Resource
from wherry.kube.api.selectors import LabelSelector, labels_from_object, labels_from_set
from wherry.kube.client.recorder import NORMAL, WARNING
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import (
    Context,
    Controller,
    namespace_is_leaving,
    now,
    split_key,
)
from wherry.kube.controllers.claims import claim_dependents
from wherry.kube.controllers.pods import by_controller, from_template
from wherry.kube.controllers.replicas.plan import next_available, plan, status


class ReplicaController(Controller):
    """Keeps as many pods as one kind of owner asks for."""

    resource: ClassVar[Resource]
    component: ClassVar[str]
    reports_terminating: ClassVar[bool] = True

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.recorder = context.recorder(self.component)
        # Deletion was asked for and has not shown yet. The creation of a pod is waited for;
        # its deletion need not be, as a uid that was removed never comes back.
        self.removed: set[str] = set()
        self.doubtful: set[str] = set()
        """Owners for whom a pod may have been made although the answer was lost."""
        self.owners = self.watch(self.resource)
        self.owners.add_indexer("uid", lambda owner: (meta.uid(owner),))
        self.owners.add_indexer("controller", by_controller)
        self.pods = self.watch(PODS)
        self.pods.add_indexer("controller", by_controller)
        self.owners.add_handlers(
            on_add=self.enqueue, on_update=self.enqueue_update, on_delete=self.enqueue
        )
        self.pods.add_handlers(
            on_add=self._pod_added, on_update=self._pod_changed, on_delete=self._pod_gone
        )

    @staticmethod
    @abstractmethod
    def selector(owner: Object) -> LabelSelector:
        """Which pods the owner claims."""

    # -- what concerns whom

    def _pod_added(self, pod: Object) -> None:
        controller = meta.controller_of(pod)
        if controller is not None:
            self._enqueue_controller(controller)
        elif not meta.is_deleting(pod):
            self._enqueue_takers(pod)

    def _pod_changed(self, old: Object, pod: Object) -> None:
        if meta.is_deleting(pod):
            self.removed.discard(meta.uid(pod))
        before, controller = meta.controller_of(old), meta.controller_of(pod)
        if before is not None and before != controller:
            self._enqueue_controller(before)
        if controller is not None:
            self._enqueue_controller(controller)
        elif before is not None or meta.labels(old) != meta.labels(pod):
            self._enqueue_takers(pod)

    def _pod_gone(self, pod: Object) -> None:
        self.removed.discard(meta.uid(pod))
        controller = meta.controller_of(pod)
        if controller is not None:
            self._enqueue_controller(controller)

    def _enqueue_controller(self, reference: Object) -> None:
        for owner in self.owners.by_index("uid", reference["uid"]):
            self.enqueue(owner)

    def _enqueue_takers(self, pod: Object) -> None:
        for owner in self.owners.list(meta.namespace(pod)):
            if self.selector(owner).matches(meta.labels(pod)):
                self.enqueue(owner)

    # -- acting

    async def sync(self, key: str) -> None:
        owner = self.owners.get(*split_key(key))
        if owner is None:
            self.doubtful.discard(key)
            return
        if key in self.doubtful:
            await self._resolve_doubt(owner)
            self.doubtful.discard(key)
        selector = self.selector(owner)
        owned = await claim_dependents(self.client, owner, self.resource, selector, self.pods)
        failure: tuple[str, str] | None = None
        error: Exception | None = None
        if not meta.is_deleting(owner):
            wanted = plan(owner, owned, self._related(owner, owned), self.removed, now())
            if wanted.create:
                error = await self._create(owner, wanted.create)
                failure = ("FailedCreate", str(error)) if error else None
            elif wanted.delete:
                error = await self._delete(owner, wanted.delete)
                failure = ("FailedDelete", str(error)) if error else None
            if wanted.create or wanted.delete:
                found = self.pods.by_index("controller", meta.uid(owner))
                owned = [pod for pod in found if selector.matches(meta.labels(pod))]
        moment = now()
        wait = next_available(owner, owned, moment)
        if wait is not None:
            self.queue.add_after(key, wait + 0.01)
        terminating = self.reports_terminating
        new = status(owner, owned, self.removed, failure, moment, terminating=terminating)
        await self._report(owner, new)
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

    async def _create(self, owner: Object, count: int) -> Exception | None:
        body = from_template(owner["spec"]["template"], owner, self.resource)

        async def create() -> None:
            try:
                pod = await self.client.create(PODS, body)
            except StatusError as error:
                if not namespace_is_leaving(error):
                    self._tell(owner, WARNING, "FailedCreate", f"Error creating: {error}")
                raise
            except ConnectionError:
                self.doubtful.add(meta.key(owner))
                raise
            self._tell(owner, NORMAL, "SuccessfulCreate", f"Created pod: {meta.name(pod)}")
            await self.seen(PODS, pod)

        error = await slow_start(count, create)
        if namespace_is_leaving(error):
            return None
        return error

    async def _resolve_doubt(self, owner: Object) -> None:
        """Ask the server which pods there are, and wait until the informer shows them all."""
        answer = await self.client.list(PODS, meta.namespace(owner))
        for pod in answer["items"]:
            if meta.is_controlled_by(pod, owner):
                await self.seen(PODS, pod)

    async def _delete(self, owner: Object, surplus: Sequence[Object]) -> Exception | None:
        async def delete(pod: Object) -> None:
            name, uid = meta.name(pod), meta.uid(pod)
            self.removed.add(uid)
            try:
                await self.client.delete(PODS, name, meta.namespace(pod), uid=uid)
            except (StatusError, ConnectionError) as error:
                if isinstance(error, StatusError) and error.code == 404:
                    return
                self.removed.discard(uid)
                self._tell(owner, WARNING, "FailedDelete", f"Error deleting: {error}")
                raise
            self._tell(owner, NORMAL, "SuccessfulDelete", f"Deleted pod: {name}")

        results = await asyncio.gather(*map(delete, surplus), return_exceptions=True)
        return _first_error(results)

    async def _report(self, owner: Object, new: Object) -> None:
        if new == (owner.get("status") or {}):
            return
        try:
            written = await self.client.update_status(self.resource, {**owner, "status": new})
        except StatusError as error:
            if error.code == 404:
                return
            raise
        await self.seen(self.resource, written)

    def _tell(self, owner: Object, type: str, reason: str, message: str) -> None:
        self.recorder.event(self.resource, owner, type, reason, message)


def _first_error(results: Sequence[BaseException | None]) -> Exception | None:
    for result in results:
        if isinstance(result, Exception):
            return result
        if result is not None:
            raise result
    return None


async def slow_start(count: int, act: Callable[[], Awaitable[None]]) -> Exception | None:
    """``act`` so many times: once, then twice at a time, then four times …

    Stops behind the first batch in which something fails and returns its failure: where one pod is
    refused (by a quota, a webhook), five hundred are not tried.
    """
    size = 1
    while count:
        size = min(size, count)
        results = await asyncio.gather(*(act() for _ in range(size)), return_exceptions=True)
        error = _first_error(results)
        if error is not None:
            return error
        count -= size
        size *= 2
    return None


class ReplicaSetController(ReplicaController):
    """Pods of ReplicaSets."""

    name = "replicaset-controller"
    component = "replicaset-controller"
    resource = REPLICA_SETS

    @staticmethod
    def selector(owner: Object) -> LabelSelector:
        return labels_from_object(owner["spec"].get("selector"))


class ReplicationControllerController(ReplicaController):
    """Pods of ReplicationControllers."""

    name = "replicationcontroller-controller"
    component = "replication-controller"
    resource = REPLICATION_CONTROLLERS
    reports_terminating = False

    @staticmethod
    def selector(owner: Object) -> LabelSelector:
        return labels_from_set(owner["spec"].get("selector"))
