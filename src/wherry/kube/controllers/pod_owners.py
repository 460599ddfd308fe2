"""What controllers that keep pods share: who concerns whom, making, removing, reporting.

A pod that was made is waited for until the informer shows it. A removal need not be waited for: a
uid that is gone never comes back, so it is enough to remember it (``removed``) until it shows.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import ClassVar

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import PODS, Resource
from wherry.kube.api.selectors import LabelSelector, labels_from_object
from wherry.kube.client.recorder import NORMAL, WARNING
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, Controller, namespace_is_leaving
from wherry.kube.controllers.claims import claim_dependents
from wherry.kube.controllers.ownership import by_controller


class PodOwnerController(Controller):
    """Keeps pods for the objects of ``resource``. A subclass says which pods there should be."""

    resource: ClassVar[Resource]
    component: ClassVar[str]
    """Upstream's name of the component in events."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.recorder = context.recorder(self.component)
        self.removed: set[str] = set()
        """Uids of pods whose deletion was asked for and has not shown yet."""
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
    def selector(owner: Object) -> LabelSelector:
        """Which pods the owner claims."""
        return labels_from_object(owner["spec"].get("selector"))

    # -- what concerns whom

    def _pod_added(self, pod: Object) -> None:
        controller = meta.controller_of(pod)
        if controller is not None:
            self.enqueue_controller(controller)
        elif not meta.is_deleting(pod):
            self._enqueue_takers(pod)

    def _pod_changed(self, old: Object, pod: Object) -> None:
        if meta.is_deleting(pod):
            self.removed.discard(meta.uid(pod))
        before, controller = meta.controller_of(old), meta.controller_of(pod)
        if before is not None and before != controller:
            self.enqueue_controller(before)
        if controller is not None:
            self.enqueue_controller(controller)
        elif before is not None or meta.labels(old) != meta.labels(pod):
            self._enqueue_takers(pod)

    def _pod_gone(self, pod: Object) -> None:
        self.removed.discard(meta.uid(pod))
        controller = meta.controller_of(pod)
        if controller is not None:
            self.enqueue_controller(controller)

    def enqueue_controller(self, reference: Object) -> None:
        """Have the owner that an owner reference names looked at, if it is of our kind."""
        for owner in self.owners.by_index("uid", reference["uid"]):
            self.enqueue(owner)

    def _enqueue_takers(self, pod: Object) -> None:
        for owner in self.owners.list(meta.namespace(pod)):
            if self.selector(owner).matches(meta.labels(pod)):
                self.enqueue(owner)

    # -- the pods there are

    async def claim(self, owner: Object) -> list[Object]:
        """The owner's pods, once those it should have are adopted and others let go."""
        return await claim_dependents(
            self.client, owner, self.resource, self.selector(owner), self.pods
        )

    def owned(self, owner: Object) -> list[Object]:
        """The owner's pods as the informer has them now."""
        selector = self.selector(owner)
        found = self.pods.by_index("controller", meta.uid(owner))
        return [pod for pod in found if selector.matches(meta.labels(pod))]

    async def settle_doubt(self, key: str, owner: Object | None) -> None:
        """Where an answer was lost: ask which pods there are, and wait until all of them show."""
        if key not in self.doubtful:
            return
        if owner is not None:
            answer = await self.client.list(PODS, meta.namespace(owner))
            for pod in answer["items"]:
                if meta.is_controlled_by(pod, owner):
                    await self.seen(PODS, pod)
        self.doubtful.discard(key)

    # -- making and removing

    async def make(self, owner: Object, bodies: Sequence[Object]) -> Exception | None:
        """Create the pods, first one, then two at a time, then four …; the first failure.

        A namespace that is being deleted is no failure.
        """
        waiting = iter(bodies)

        async def create() -> None:
            body = next(waiting)
            try:
                pod = await self.client.create(PODS, body)
            except StatusError as error:
                if not namespace_is_leaving(error):
                    self.tell(owner, WARNING, "FailedCreate", f"Error creating: {error}")
                raise
            except ConnectionError:
                self.doubtful.add(meta.key(owner))
                raise
            self.tell(owner, NORMAL, "SuccessfulCreate", f"Created pod: {meta.name(pod)}")
            await self.seen(PODS, pod)

        error = await slow_start(len(bodies), create)
        return None if namespace_is_leaving(error) else error

    async def remove(self, owner: Object, surplus: Iterable[Object]) -> Exception | None:
        """Delete the pods, all at once; the first failure."""

        async def delete(pod: Object) -> None:
            name, uid = meta.name(pod), meta.uid(pod)
            self.removed.add(uid)
            try:
                await self.client.delete(PODS, name, meta.namespace(pod), uid=uid)
            except (StatusError, ConnectionError) as error:
                if isinstance(error, StatusError) and error.code == 404:
                    return
                self.removed.discard(uid)
                self.tell(owner, WARNING, "FailedDelete", f"Error deleting: {error}")
                raise
            self.tell(owner, NORMAL, "SuccessfulDelete", f"Deleted pod: {name}")

        results = await asyncio.gather(*map(delete, surplus), return_exceptions=True)
        return first_error(results)

    async def report(self, owner: Object, status: Object) -> Object:
        """Write the owner's status where it changed; returns the owner as it is then."""
        if status == (owner.get("status") or {}):
            return owner
        try:
            written = await self.client.update_status(self.resource, {**owner, "status": status})
        except StatusError as error:
            if error.code == 404:
                return owner
            raise
        return await self.seen(self.resource, written)

    def tell(self, owner: Object, type: str, reason: str, message: str) -> None:
        """An event of the owner's."""
        self.recorder.event(self.resource, owner, type, reason, message)

    @abstractmethod
    async def sync(self, key: str) -> None: ...


def first_error(results: Iterable[BaseException | None]) -> Exception | None:
    """The first failure among what ``gather`` returned; raises what is more than a failure."""
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
        error = first_error(results)
        if error is not None:
            return error
        count -= size
        size *= 2
    return None
