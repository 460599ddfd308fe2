"""Resource quota: what the objects of a namespace use together, counted anew when some of it is
free again.

Admission charges quotas as objects come (`apiserver.admission.resource_quota`); only here are they
credited. A count must not give away what was charged for an object that is not stored yet, so it
takes the quota first, then lists the objects, adds what is reserved, and is written only if the
quota is still the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Container, Iterable, Mapping

from wherry.kube.api import amounts, meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.quota import reservations, usage
from wherry.kube.api.resources import (
    CUSTOM_RESOURCE_DEFINITIONS,
    PODS,
    RESOURCE_QUOTAS,
    RESOURCES,
    Resource,
)
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, Controller, split_key
from wherry.kube.controllers.defined import DefinedResources

RESYNC = 300.0  # seconds until a quota is counted again, whatever happened
_GATHER = 0.05  # seconds in which what goes together is counted together
_TIDY = 2.0  # seconds until reservations that were kept are looked at again


def recount(
    quota: Object,
    objects: Mapping[Resource, Iterable[Object]],
    now: float,
    gone: Container[str] = (),
) -> tuple[Object, bool]:
    """The quota with what ``objects``, those it is about, use; and whether anything is reserved
    besides. ``now`` in seconds since the epoch; ``gone`` are uids of what has been there, and is
    not any more."""
    hard = (quota.get("spec") or {}).get("hard") or {}
    used: amounts.Amounts = {}
    revisions: dict[str, str] = {}
    for resource, found in objects.items():
        listed = list(found)
        amounts.add(used, usage.total(quota, resource, listed, now))
        revisions.update((meta.uid(o), o["metadata"]["resourceVersion"]) for o in listed)
    noted = {uid: r for uid, r in reservations.read(quota).items() if uid not in gone}
    pending = reservations.pending(noted, revisions.get, now)
    for each in pending.values():
        amounts.add(used, amounts.masked(each.used, used))
    status = {"hard": dict(hard), "used": amounts.write(used)}
    return {**reservations.write(quota, pending), "status": status}, bool(pending)


def freed(resource: Resource, old: Object, new: Object, now: float) -> bool:
    """Whether a changed object uses less, or something else."""
    before, after = usage.of(resource, old, now), usage.of(resource, new, now)
    return bool(amounts.growth(before, after))


class ResourceQuotaController(Controller):
    """Keys are quotas."""

    name = "resourcequota-controller"
    workers = 5

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._resources: set[Resource] = set()
        self._gone: dict[str, float] = {}  # uids, the oldest first, and until when to remember
        self.quotas = self.watch(RESOURCE_QUOTAS)
        self.quotas.add_handlers(on_add=self.enqueue, on_update=self._quota_changed)
        for resource in RESOURCES:
            self._join(resource)
        self._defined = DefinedResources(
            self.watch(CUSTOM_RESOURCE_DEFINITIONS),
            context.informers,
            join=self._join,
            leave=self._leave,
        )

    def _join(self, resource: Resource) -> None:
        if not usage.countable(resource) or resource.stored_as is not None:
            return
        if not {"list", "watch", "delete"} <= set(resource.verbs):
            return
        self._resources.add(resource)
        changed = resource is PODS or usage.charged_on_update(resource)
        self.watch(resource).add_handlers(
            on_delete=lambda o: self._deleted(resource, o),
            on_update=self._observer(resource) if changed else None,
        )

    def _leave(self, resource: Resource) -> None:
        self._resources.discard(resource)
        self.unwatch(resource)

    def _observer(self, resource: Resource) -> Callable[[Object, Object], None]:
        def observe(old: Object, new: Object) -> None:
            namespace = meta.namespace(new)
            if self.quotas.list(namespace) and freed(resource, old, new, time.time()):
                self._credit(resource, new)

        return observe

    def _quota_changed(self, old: Object, quota: Object) -> None:
        status, spec = quota.get("status") or {}, quota.get("spec") or {}
        if (status.get("hard") or {}) != (spec.get("hard") or {}):
            self.enqueue(quota)
        elif reservations.read(quota):
            self.queue.add_after(meta.key(quota), _TIDY)

    def _deleted(self, resource: Resource, o: Object) -> None:
        """It may be gone so soon that it is still noted as one that is to come."""
        if not self.quotas.list(meta.namespace(o)):
            return
        now = time.time()
        while self._gone and self._gone[next(iter(self._gone))] < now:
            del self._gone[next(iter(self._gone))]
        self._gone[meta.uid(o)] = now + 2 * reservations.SECONDS
        self._credit(resource, o)

    def _credit(self, resource: Resource, o: Object) -> None:
        for quota in self.quotas.list(meta.namespace(o)):
            if usage.matching(resource, (quota.get("spec") or {}).get("hard") or ()):
                self.queue.add_after(meta.key(quota), _GATHER)

    async def sync(self, key: str) -> None:
        namespace, name = split_key(key)
        try:
            quota = await self._quota(namespace, name)
            if quota is None:
                return
            counted, reserved = recount(quota, await self._objects(quota), time.time(), self._gone)
            if counted != quota:
                await self.client.update_status(RESOURCE_QUOTAS, counted)
        except StatusError as error:
            if error.code != 404:
                raise
            return
        self.queue.add_after(key, _TIDY if reserved else RESYNC)

    async def _quota(self, namespace: str, name: str) -> Object | None:
        """As it is now, not as a copy says. By a list: that is what its role may do."""
        one = f"metadata.name={name}"
        found = await self.client.list(RESOURCE_QUOTAS, namespace, field_selector=one)
        return found["items"][0] if found["items"] else None

    async def _objects(self, quota: Object) -> dict[Resource, list[Object]]:
        """All objects the quota may be about, as they are now."""
        hard = (quota.get("spec") or {}).get("hard") or ()
        wanted = [r for r in self._resources if usage.matching(r, hard)]
        lists = await asyncio.gather(*(self.client.list(r, meta.namespace(quota)) for r in wanted))
        return {r: listed["items"] for r, listed in zip(wanted, lists, strict=True)}
