"""Services and IPAddresses that do not fit together are mended, and it is told.

What the API server writes fits together; what others wrote, or what an older version left, may not.
A Service keeps its address in every case: it is the IPAddress that is made, or goes. Nobody waits
for that: both are written at once, so one that lacks the other is no Service that is just made.

Upstream: pkg/registry/core/service/ipallocator/controller/repairip.go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.families import family_of, normal
from wherry.kube.api.kinds import service_ranges
from wherry.kube.api.resources import IP_ADDRESSES, SERVICE_CIDRS, SERVICES, Resource
from wherry.kube.apiserver.allocation.addresses import (
    ALLOCATOR,
    MANAGED_BY,
    cluster_addresses,
    labels,
    parent,
)
from wherry.kube.apiserver.allocation.pools import AddressRange
from wherry.kube.apiserver.cache import Cache, Event, ResourceCache
from wherry.kube.apiserver.objects import Object
from wherry.kube.client.transport import Transport

if TYPE_CHECKING:
    from wherry.kube.client.recorder import EventRecorder

log = logging.getLogger(__name__)

_AGAIN = 1.0  # seconds until what failed is tried again
_AT_ONCE = 50  # are looked at before somebody else has a turn
_COMPONENT: Final = "ipallocator-repair-controller"

Find = Callable[[str], Object | None]
"""An object by its key."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: what is told of it (nothing, without a reason), which IPAddress goes
    and whether it is made anew for the Service."""

    reason: str = ""
    message: str = ""
    address: str = ""
    remove: bool = False
    make: bool = False


def judge_service(
    service: Object, addresses: Find, services: Find, ranges: Sequence[AddressRange]
) -> list[Finding]:
    """What is wrong with the addresses of a Service. ``ranges`` are all there are."""
    spec = service.get("spec") or {}
    own = f"{meta.namespace(service)}/{meta.name(service)}"
    found = []
    for text in spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else ()):
        if text == "None":
            continue
        address = normal(text)
        named = f"[{family_of(address)}]"
        wrong = f"the ClusterIP {named}: {address} for Service {own} has a wrong reference; "
        wrong += "repairing"
        if not any(address in range for range in ranges):
            told = f"Cluster IP {named}: {address} is not within any configured Service CIDR; "
            found.append(Finding("ClusterIPOutOfRange", told + "please recreate service"))
            continue
        there = addresses(address)
        if there is None:
            told = f"Cluster IP {named}: {address} is not allocated; repairing"
            found.append(Finding("ClusterIPNotAllocated", told, address, make=True))
            continue
        reference = (there.get("spec") or {}).get("parentRef") or {}
        if reference != parent(service):
            other = services(_service_key(reference)) if _is_service(reference) else None
            if other is None or address not in _cluster_ips(other):
                found.append(
                    Finding("ClusterIPNotAllocated", wrong, address, remove=True, make=True)
                )
            else:
                told = f"Cluster IP {named}:{address} was assigned to multiple services; "
                found.append(Finding("ClusterIPAlreadyAllocated", told + "please recreate service"))
        elif not labels(address).items() <= meta.labels(there).items():
            found.append(Finding(address=address, remove=True, make=True))
    return found


def judge_address(o: Object, services: Find) -> Finding | None:
    """What is wrong with an IPAddress of ours; nothing is with those of others."""
    if meta.labels(o).get(MANAGED_BY) != ALLOCATOR:
        return None
    address, reference = meta.name(o), (o.get("spec") or {}).get("parentRef") or {}
    if not _is_service(reference):
        told = f"IPAddress {address} appears to have been modified, not referencing a Service "
        told += f"{reference.get('resource', '')}.{reference.get('group', '')}: cleaning up"
        return Finding("IPAddressNotAllocated", told, address, remove=True)
    key = _service_key(reference)
    service = services(key)
    if service is None:
        told = f"IPAddress: {address} for Service {key} appears to have leaked: cleaning up"
        return Finding("IPAddressNotAllocated", told, address, remove=True)
    if address not in _cluster_ips(service):
        told = f"IPAddress: {address} for Service {key} has a wrong reference; cleaning up"
        return Finding("IPAddressWrongReference", told, address, remove=True)
    return None


def _is_service(reference: Object) -> bool:
    return not reference.get("group") and reference.get("resource") == "services"


def _service_key(reference: Object) -> str:
    return f"{reference.get('namespace', '')}/{reference.get('name', '')}"


def _cluster_ips(service: Object) -> set[str]:
    listed = (service.get("spec") or {}).get("clusterIPs") or ()
    return {normal(address) for address in listed if address != "None"}


class Repair:
    """Looks at each Service and IPAddress when the server starts, and when it changes.

    Args:
        cache: what there is.
        transport: by which it is changed.
        configured: the ranges that the server was started with.
    """

    def __init__(self, cache: Cache, transport: Transport, configured: Sequence[str]) -> None:
        self._cache = cache
        self._transport = transport
        self._configured = configured
        self._ranges: tuple[AddressRange, ...] = ()
        self._services, self._addresses = cache.of(SERVICES), cache.of(IP_ADDRESSES)
        self._dirty_services: dict[str, None] = {}
        self._dirty_addresses: dict[str, None] = {}
        self._right: set[str] = set()  # addresses of Services that were just found right
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._recorder: EventRecorder | None = None

    def start(self) -> None:
        self._ranges_changed()
        self._cache.of(SERVICE_CIDRS).listen(lambda event: self._ranges_changed())
        self._services.listen(self._service_changed)
        self._addresses.listen(self._address_changed)
        for stored in self._addresses.list():
            self._touch(self._dirty_addresses, stored.key)
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._recorder is not None:
            await self._recorder.stop()

    # --- what is to be looked at

    def _touch(self, dirty: dict[str, None], key: str) -> None:
        dirty[key] = None
        self._news.set()

    def _ranges_changed(self) -> None:
        """A Service may be outside of all of them now."""
        present = [stored.object for stored in self._cache.of(SERVICE_CIDRS).list()]
        known = dict.fromkeys(service_ranges.known(present, self._configured))
        if tuple(str(range.network) for range in self._ranges) == tuple(known):
            return
        self._ranges = tuple(map(AddressRange, known))
        for stored in self._services.list():
            self._touch(self._dirty_services, stored.key)

    def _service_changed(self, event: Event) -> None:
        if event.previous is None:
            self._touch(self._dirty_services, event.key)
        elif event.current is None:
            for address in cluster_addresses(event.previous.object):
                self._touch(self._dirty_addresses, address)  # a server that is older left it
        else:
            before, after = (state.object.get("spec") for state in (event.previous, event.current))
            if (before or {}).get("clusterIPs") != (after or {}).get("clusterIPs"):
                self._touch(self._dirty_services, event.key)

    def _address_changed(self, event: Event) -> None:
        """What is new is looked at itself; what was there may be missed by its Service."""
        self._touch(self._dirty_addresses, event.key)
        if event.previous is None:
            return
        for state in (event.previous, event.current):
            reference = ((state.object.get("spec") or {}).get("parentRef") or {}) if state else {}
            if _is_service(reference):
                self._touch(self._dirty_services, _service_key(reference))

    # --- looking, and mending

    async def _work(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            services, addresses = list(self._dirty_services), list(self._dirty_addresses)
            self._dirty_services.clear()
            self._dirty_addresses.clear()
            self._right.clear()
            failed = await self._look_at_all(SERVICES, services)
            failed_addresses = await self._look_at_all(IP_ADDRESSES, addresses)
            if failed or failed_addresses:
                await asyncio.sleep(_AGAIN)
                self._dirty_services.update(dict.fromkeys(failed))
                self._dirty_addresses.update(dict.fromkeys(failed_addresses))
                self._news.set()

    async def _look_at_all(self, resource: Resource, keys: Sequence[str]) -> list[str]:
        """Those that are to be looked at again."""
        failed = []
        for number, key in enumerate(keys, 1):
            if key not in self._right and not await self._look(resource, key):
                failed.append(key)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        return failed

    async def _look(self, resource: Resource, key: str) -> bool:
        """At one object; whether it is right now."""
        found = _find(self._services if resource is SERVICES else self._addresses, key)
        if found is None:
            return True
        findings: Iterable[Finding | None]
        try:
            if resource is SERVICES:
                findings = judge_service(found, self._address, self._service, self._ranges)
                if not findings:
                    self._right |= cluster_addresses(found)
            else:
                findings = (judge_address(found, self._service),)
            for finding in findings:
                if finding is not None:
                    await self._mend(resource, found, finding)
        except (StatusError, ConnectionError, ValueError) as error:
            log.warning("%s %s: %s", resource.plural, key, error)
            return isinstance(error, ValueError)  # an address that is none stays one
        return True

    def _service(self, key: str) -> Object | None:
        return _find(self._services, key)

    def _address(self, key: str) -> Object | None:
        return _find(self._addresses, key)

    async def _mend(self, resource: Resource, o: Object, finding: Finding) -> None:
        if finding.reason:
            log.warning("%s", finding.message)
            self._tell(resource, o, finding)
        if finding.remove:
            try:
                await self._transport.request("DELETE", IP_ADDRESSES.path(None, finding.address))
            except StatusError as error:
                if error.code != 404:
                    raise
        if finding.make:
            made = {
                "apiVersion": IP_ADDRESSES.api_version,
                "kind": IP_ADDRESSES.kind,
                "metadata": {"name": finding.address, "labels": labels(finding.address)},
                "spec": {"parentRef": parent(o)},
            }
            try:
                await self._transport.request("POST", IP_ADDRESSES.path(None), body=made)
            except StatusError as error:
                if error.reason != "AlreadyExists":  # by another server, which saw the same
                    raise

    def _tell(self, resource: Resource, o: Object, finding: Finding) -> None:
        if self._recorder is None:
            from wherry.kube.client.client import Client
            from wherry.kube.client.recorder import EventRecorder

            self._recorder = EventRecorder(Client(self._transport), _COMPONENT)
            self._recorder.start()
        self._recorder.event(resource, o, "Warning", finding.reason, finding.message)


def _find(cache: ResourceCache, key: str) -> Object | None:
    stored = cache.find(key)
    return None if stored is None else stored.object
