"""Namespace: one that is being deleted is emptied, then let go.

Pods go first, so that nothing they rely on is taken from under them; then everything else
(https://kep.k8s.io/5080). What has a finalizer or a grace period is waited for, by its deletion
event. The informers tell when nothing is left, and a look at the server itself confirms it before
the finalizer ``kubernetes`` is removed, which ends the namespace.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from wherry.kube.api import conditions, meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import (
    API_SERVICES,
    CUSTOM_RESOURCE_DEFINITIONS,
    NAMESPACES,
    PODS,
    RESOURCES,
    Resource,
)
from wherry.kube.client.informer import Informer
from wherry.kube.client.transport import Object
from wherry.kube.controllers.aggregated import AggregatedResources
from wherry.kube.controllers.base import Context, Controller, now
from wherry.kube.controllers.defined import DefinedResources

FINALIZER = "kubernetes"
_MESSAGE_SECONDS = 1.0
"""Counts in messages are brought up to date no more often than this."""


def is_terminating(namespace: Object) -> bool:
    """Whether it is being deleted and still waits for us."""
    finalizers = (namespace.get("spec") or {}).get("finalizers") or ()
    return meta.is_deleting(namespace) and FINALIZER in finalizers


def report(
    namespace: Object,
    left: Mapping[Resource, Sequence[Object]],
    failures: Sequence[str],
    now: datetime,
    unknown: Collection[str] = (),
) -> Object:
    """The status of a namespace in which ``left`` remains and ``failures`` happened; of the group
    versions in ``unknown`` nobody knows what they have there."""
    undiscovered = ", ".join(f"{gv}: stale GroupVersion discovery: {gv}" for gv in sorted(unknown))
    counts = [
        f"{resource.plural}.{resource.group} has {len(objects)} resource instances"
        for resource, objects in sorted(left.items(), key=lambda item: item[0].plural)
        if objects
    ]
    finalizers = Counter(
        f for objects in left.values() for o in objects for f in meta.finalizers(o)
    )
    held = [f"{name} in {count} resource instances" for name, count in sorted(finalizers.items())]
    states = [
        (
            "NamespaceDeletionDiscoveryFailure",
            (
                "True",
                "DiscoveryFailed",
                f"Discovery failed for some groups, {len(unknown)} failing: unable to retrieve "
                f"the complete list of server APIs: {undiscovered}",
            )
            if unknown
            else ("False", "ResourcesDiscovered", "All resources successfully discovered"),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            ("False", "ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        (
            "NamespaceDeletionContentFailure",
            (
                "True",
                "ContentDeletionFailed",
                f"Failed to delete all resource types, {len(failures)} remaining: "
                + ", ".join(failures),
            )
            if failures
            else (
                "False",
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            ),
        ),
        (
            "NamespaceContentRemaining",
            ("True", "SomeResourcesRemain", f"Some resources are remaining: {', '.join(counts)}")
            if counts
            else ("False", "ContentRemoved", "All content successfully removed"),
        ),
        (
            "NamespaceFinalizersRemaining",
            (
                "True",
                "SomeFinalizersRemain",
                f"Some content in the namespace has finalizers remaining: {', '.join(held)}",
            )
            if held
            else (
                "False",
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished",
            ),
        ),
    ]
    status = namespace.get("status") or {}
    kept = list(status.get("conditions") or ())
    for type, (state, reason, message) in states:
        known = conditions.find(kept, type)
        new = {
            "type": type,
            "status": state,
            "lastTransitionTime": meta.format_time(now),
            "reason": reason,
            "message": message,
        }
        if known is None:
            kept.append(new)
        elif (known["status"], known["reason"], known["message"]) != (state, reason, message):
            if known["status"] == state:
                new["lastTransitionTime"] = known["lastTransitionTime"]
            kept[kept.index(known)] = new
    return {**status, "phase": "Terminating", "conditions": kept}


def _essence(status: Object) -> object:
    """A status but for the counts in its messages."""
    states = [(c["type"], c["status"], c["reason"]) for c in status.get("conditions") or ()]
    return status.get("phase"), states


class NamespaceController(Controller):
    """Empties namespaces. Keys are namespaces."""

    name = "namespace-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.namespaces = self.watch(NAMESPACES)
        self.namespaces.add_handlers(
            on_add=self._namespace_changed,
            on_update=lambda _, namespace: self._namespace_changed(namespace),
            on_delete=self._namespace_gone,
        )
        self._reported: dict[str, float] = {}
        self.contents: dict[Resource, Informer] = {}
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
            changed=self._all_concerned,
        )

    def _all_concerned(self) -> None:
        for namespace in self.namespaces.list():
            self._namespace_changed(namespace)

    def _join(self, resource: Resource) -> None:
        if resource.namespaced and {"list", "watch", "delete"} <= set(resource.verbs):
            informer = self.contents[resource] = self.watch(resource)
            informer.add_handlers(on_add=self._content_changed, on_delete=self._content_changed)

    def _leave(self, resource: Resource) -> None:
        if self.contents.pop(resource, None) is not None:
            self.unwatch(resource)

    def _namespace_changed(self, namespace: Object) -> None:
        if is_terminating(namespace):
            self.enqueue(namespace)

    def _namespace_gone(self, namespace: Object) -> None:
        self._reported.pop(meta.name(namespace), None)

    def _content_changed(self, object: Object) -> None:
        namespace = self.namespaces.get(None, meta.namespace(object))
        if namespace is not None and is_terminating(namespace):
            self.enqueue(namespace)

    async def sync(self, key: str) -> None:
        namespace = self.namespaces.get(None, key)
        if namespace is None or not is_terminating(namespace):
            return
        failures = await self._empty(key)
        left = {resource: informer.list(key) for resource, informer in self.contents.items()}
        if failures or any(left.values()) or self._aggregated.unknown:
            await self._report(namespace, left, failures)
            if failures:
                raise StatusError(500, "InternalError", "; ".join(failures))
            return
        if not await self._is_empty(key):
            # The informers are behind, or something was made in the last moment.
            self.queue.add_rate_limited(key)
            return
        await self._finalize(namespace)

    async def _empty(self, name: str) -> list[str]:
        """Delete what is there and not yet being deleted; what could not be."""
        if self.contents[PODS].list(name):
            resources = [PODS]
        else:
            resources = [resource for resource in self.contents if resource is not PODS]
        asked = [
            resource
            for resource in resources
            if any(not meta.is_deleting(o) for o in self.contents[resource].list(name))
        ]
        results = await asyncio.gather(
            *(self._delete_all(resource, name) for resource in asked),
            return_exceptions=True,
        )
        failures = []
        for resource, result in zip(asked, results, strict=True):
            if isinstance(result, StatusError | ConnectionError):
                failures.append(f"{resource.plural}.{resource.group}: {result}")
            elif isinstance(result, BaseException):
                raise result
        return failures

    async def _delete_all(self, resource: Resource, name: str) -> None:
        """One by one where the server knows no other way."""
        if "deletecollection" in resource.verbs:
            await self.client.delete_collection(resource, name)
            return
        for o in (await self.client.list(resource, name))["items"]:
            try:
                await self.client.delete(resource, meta.name(o), name)
            except StatusError as error:
                if error.code != 404:
                    raise

    async def _is_empty(self, name: str) -> bool:
        """Ask the server itself; delete what the informers do not show yet."""

        async def check(resource: Resource) -> bool:
            if not (await self.client.list(resource, name, limit=1))["items"]:
                return True
            await self._delete_all(resource, name)
            return False

        return all(await asyncio.gather(*map(check, self.contents)))

    async def _report(
        self, namespace: Object, left: Mapping[Resource, Sequence[Object]], failures: Sequence[str]
    ) -> None:
        name, old = meta.name(namespace), namespace.get("status") or {}
        new = report(namespace, left, failures, now(), set(self._aggregated.unknown.values()))
        if new == old:
            return
        moment = time.monotonic()
        wait = self._reported.get(name, 0.0) + _MESSAGE_SECONDS - moment
        if _essence(new) == _essence(old) and wait > 0:
            self.queue.add_after(name, wait)
            return
        self._reported[name] = moment
        written = await self.client.update_status(NAMESPACES, {**namespace, "status": new})
        await self.seen(NAMESPACES, written)

    async def _finalize(self, namespace: Object) -> None:
        spec = namespace.get("spec") or {}
        rest = [f for f in spec.get("finalizers") or () if f != FINALIZER]
        body = {**namespace, "spec": {**spec, "finalizers": rest}}
        try:
            await self.client.update(NAMESPACES, body, subresource="finalize")
        except StatusError as error:
            if error.code != 404:
                raise
