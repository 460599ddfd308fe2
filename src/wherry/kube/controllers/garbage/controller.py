"""The garbage collector: follows all resources, looks at what a change concerns, acts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import (
    API_SERVICES,
    CUSTOM_RESOURCE_DEFINITIONS,
    EVENTS,
    RESOURCES,
    Resource,
)
from wherry.kube.client.recorder import WARNING
from wherry.kube.client.transport import Object
from wherry.kube.controllers.aggregated import AggregatedResources
from wherry.kube.controllers.base import Context, Controller
from wherry.kube.controllers.defined import DefinedResources
from wherry.kube.controllers.garbage.decision import Delete, Disown, Keep, Owner, decide
from wherry.kube.controllers.garbage.graph import (
    FOREGROUND,
    ORPHAN,
    Graph,
    Node,
    blocks,
    may_own,
    node_of,
)

_REMEMBERED = 2048


class GarbageCollector(Controller):
    """Keys are uids."""

    name = "garbage-collector-controller"
    account = "generic-garbage-collector"
    workers = 20

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.recorder = context.recorder("garbage-collector-controller")
        self.graph = Graph()
        self._absent: dict[str, None] = {}
        self._resources: dict[tuple[str, str], Resource] = {}
        for resource in RESOURCES:
            self._join(resource)
        self._defined = DefinedResources(
            self.watch(CUSTOM_RESOURCE_DEFINITIONS),
            context.informers,
            join=self._join,
            leave=self._leave,
        )
        self._aggregated = AggregatedResources(
            self.watch(API_SERVICES),
            context.client,
            context.informers,
            join=self._join,
            leave=self._leave,
        )

    def _join(self, resource: Resource) -> None:
        if resource is EVENTS or not {"list", "watch", "delete"} <= set(resource.verbs):
            return
        self._resources[resource.group, resource.kind] = resource
        self.watch(resource).add_handlers(
            on_add=self._observer(resource),
            on_update=self._update_observer(resource),
            on_delete=self._gone,
        )

    def _leave(self, resource: Resource) -> None:
        self._resources.pop((resource.group, resource.kind), None)
        self.unwatch(resource)

    def _observer(self, resource: Resource) -> Callable[[Object], None]:
        def observe(object: Object) -> None:
            for uid in self.graph.put(node_of(resource, object)):
                self.queue.add(uid)

        return observe

    def _update_observer(self, resource: Resource) -> Callable[[Object, Object], None]:
        observe = self._observer(resource)

        def update(old: Object, new: Object) -> None:
            before, after = old["metadata"], new["metadata"]
            for part in ("ownerReferences", "finalizers", "deletionTimestamp"):
                if before.get(part) != after.get(part):
                    observe(new)
                    return

        return update

    def _gone(self, object: Object) -> None:
        uid = meta.uid(object)
        self._remember_absent(uid)
        for concerned in self.graph.remove(uid):
            self.queue.add(concerned)

    # -- acting

    async def sync(self, key: str) -> None:
        node = self.graph.nodes.get(key)
        if node is None:
            return
        if node.orphans_dependents:
            await self._orphan(node)
        elif node.waits_for_dependents:
            await self._wait_for_dependents(node)
        elif not node.deleting and node.owners:
            await self._look_at_owners(node)

    async def _look_at_owners(self, node: Node) -> None:
        if all(self.graph.keeps(reference["uid"], node) for reference in node.owners):
            return
        object = await self._live(node)
        if object is None or meta.is_deleting(object):
            return
        references = meta.owner_references(object)
        states = await asyncio.gather(*(self._state(node, r) for r in references))
        owners = {r["uid"]: state for r, state in zip(references, states, strict=True)}
        dependents = self.graph.dependents(node.uid)
        match decide(object, owners, has_dependents=bool(dependents)):
            case Keep():
                return
            case Disown(uids):
                await self._disown(node, object, uids)
            case Delete(propagation):
                if propagation == "Foreground" and any(d.waits_for_dependents for d in dependents):
                    object = await self._unblock(node, object)  # or a circle waits for itself
                await self._delete(node, object, propagation)

    async def _state(self, node: Node, reference: Object) -> Owner:
        """The state of one owner: what the graph knows, or else what the server says."""
        uid = reference["uid"]
        group = reference["apiVersion"].rpartition("/")[0]
        resource = self._resources.get((group, reference["kind"]))
        if resource is None:
            return Owner.PRESENT  # of a kind we do not follow: nobody can say that it is gone
        if resource.namespaced and not node.namespace:
            self._tell_invalid(node, reference)
            return Owner.PRESENT  # it cannot be looked up, so it cannot be missed either
        owner = self.graph.nodes.get(uid)
        if owner is not None and not may_own(owner, node):
            self._tell_invalid(node, reference)
            return Owner.ABSENT  # an owner in another namespace is none
        if owner is not None:
            return Owner.WAITING if owner.waits_for_dependents else Owner.PRESENT
        if uid in self._absent:
            return Owner.ABSENT
        try:
            found = await self.client.get(resource, reference["name"], node.namespace or None)
        except StatusError as error:
            if error.code != 404:
                raise
            found = None
        if found is None or meta.uid(found) != uid:
            self._remember_absent(uid)
            return Owner.ABSENT
        await self.seen(resource, found)
        known = self.graph.nodes.get(uid)
        if known is None:
            return Owner.ABSENT  # it went while we asked
        return Owner.WAITING if known.waits_for_dependents else Owner.PRESENT

    def _tell_invalid(self, node: Node, reference: Object) -> None:
        involved: Object = {
            "apiVersion": node.resource.api_version,
            "kind": node.resource.kind,
            "name": node.name,
            "uid": node.uid,
        }
        if node.namespace:
            involved["namespace"] = node.namespace
        owner = ", ".join(f"{k}: {reference[k]}" for k in ("apiVersion", "kind", "name", "uid"))
        message = f'ownerRef [{owner}] does not exist in namespace "{node.namespace}"'
        self.recorder.event_on(involved, WARNING, "OwnerRefInvalidNamespace", message)

    async def _wait_for_dependents(self, node: Node) -> None:
        """Foreground: let the object go once nothing that blocks it is left."""
        blocking = [d for d in self.graph.dependents(node.uid) if blocks(d, node.uid)]
        if not blocking:
            await self._remove_finalizer(node, FOREGROUND)
            return
        for dependent in blocking:
            if not dependent.waits_for_dependents:
                self.queue.add(dependent.uid)

    async def _orphan(self, node: Node) -> None:
        """Cut the dependents loose, then let the object go."""

        async def release(dependent: Node) -> None:
            object = await self._live(dependent)
            if object is not None:
                await self._disown(dependent, object, frozenset((node.uid,)))

        await asyncio.gather(*map(release, self.graph.dependents(node.uid)))
        await self._remove_finalizer(node, ORPHAN)

    # -- requests

    async def _live(self, node: Node) -> Object | None:
        """The object as it is on the server; None if it is gone or another has its name."""
        try:
            object = await self.client.get(node.resource, node.name, node.namespace or None)
        except StatusError as error:
            if error.code == 404:
                return None
            raise
        return object if meta.uid(object) == node.uid else None

    async def _disown(self, node: Node, object: Object, uids: frozenset[str]) -> None:
        kept = [r for r in meta.owner_references(object) if r["uid"] not in uids]
        if len(kept) == len(meta.owner_references(object)):
            return
        await self._patch(node, object, {"ownerReferences": kept or None})

    async def _unblock(self, node: Node, object: Object) -> Object:
        """Have no owner wait for this object."""
        references = [{**r, "blockOwnerDeletion": False} for r in meta.owner_references(object)]
        return await self._patch(node, object, {"ownerReferences": references}) or object

    async def _remove_finalizer(self, node: Node, finalizer: str) -> None:
        object = await self._live(node)
        if object is None or finalizer not in meta.finalizers(object):
            return
        kept = [f for f in meta.finalizers(object) if f != finalizer]
        await self._patch(node, object, {"finalizers": kept or None})

    async def _patch(self, node: Node, object: Object, metadata: Object) -> Object | None:
        version = meta.resource_version(object)
        patch = {"metadata": {"uid": node.uid, "resourceVersion": version, **metadata}}
        try:
            return await self.client.patch(node.resource, node.name, patch, node.namespace or None)
        except StatusError as error:
            if error.code != 404:
                raise
            return None

    async def _delete(self, node: Node, object: Object, propagation: str) -> None:
        try:
            await self.client.delete(
                node.resource,
                node.name,
                node.namespace or None,
                uid=node.uid,
                resource_version=meta.resource_version(object),
                propagation=propagation,
            )
        except StatusError as error:
            if error.code != 404:
                raise

    def _remember_absent(self, uid: str) -> None:
        """A uid never comes back."""
        self._absent[uid] = None
        if len(self._absent) > _REMEMBERED:
            del self._absent[next(iter(self._absent))]
