"""ServiceCIDRs: who is ready, and that none goes while Services have addresses of it.

One that has an address in common with a node or with pods is not ready: nobody checks that before
it is written, and of one that is not ready no address is given.

One that is being deleted gives no more addresses, and is held by a finalizer while an IPAddress is
in no other; then a little longer, for a server that had not heard of its end may still be storing
a Service.

Upstream: pkg/controller/servicecidrs;
https://kubernetes.io/docs/tasks/network/extend-service-ip-ranges/.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from wherry.kube.api import conditions, meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.kinds.service_ranges import DEFAULT, has_address, overlap, overlapped, places
from wherry.kube.api.resources import IP_ADDRESSES, NODES, SERVICE_CIDRS
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, Controller, now

FINALIZER: Final = "networking.k8s.io/service-cidr-finalizer"
GRACE: Final = 10.0
"""Seconds from the deletion until the finalizer goes at the earliest."""

_MANAGED_BY: Final = "ipaddress.kubernetes.io/managed-by"
_ALLOCATOR: Final = "ipallocator.k8s.io"
_HELD: Final = (
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new "
    "ServiceCIDR"
)


def cidrs(o: Object) -> Sequence[str]:
    """The ranges of a ServiceCIDR."""
    return (o.get("spec") or {}).get("cidrs") or ()


def is_held(o: Object, present: Iterable[Object], addresses: Iterable[Object]) -> bool:
    """Whether an address would be in no range without ``o``. Ranges that are going themselves keep
    none."""
    others = [
        cidr
        for other in present
        if meta.name(other) != meta.name(o) and not meta.is_deleting(other)
        for cidr in cidrs(other)
    ]
    alone = [cidr for cidr in cidrs(o) if not any(_within(cidr, other) for other in others)]
    return bool(alone) and any(
        any(has_address(cidr, meta.name(address)) for cidr in alone)
        and not any(has_address(cidr, meta.name(address)) for cidr in others)
        for address in addresses
        if meta.labels(address).get(_MANAGED_BY) == _ALLOCATOR
    )


def _within(cidr: str, other: str) -> bool:
    inner, outer = ipaddress.ip_network(cidr), ipaddress.ip_network(other)
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def taken(o: Object, pods: Iterable[str], nodes: Sequence[Object]) -> str:
    """What there is already in a range of ``o``, in a few words; empty where all is well.

    ``pods`` are the cluster's ranges of pods. The default one was judged when the cluster was made,
    and without it there is no cluster.
    """
    for cidr in cidrs(o) if meta.name(o) != DEFAULT else ():
        what = overlapped(cidr, nodes)
        if not what and (other := next((each for each in pods if overlap(cidr, each)), "")):
            what = f"{other}, the pods of the cluster"
        if what:
            return f"{cidr} overlaps {what}"
    return ""


def condition(o: Object, *, held: bool, moment: str, taken: str = "") -> Object | None:
    """What ``o`` is to say of itself; None where it stays as it is."""
    if held:
        return {
            "type": "Ready",
            "status": "False",
            "reason": "Terminating",
            "message": _HELD,
            "lastTransitionTime": moment,
        }
    if meta.is_deleting(o):
        return None
    if taken:
        return {
            "type": "Ready",
            "status": "False",
            "reason": "RangeOverlaps",
            "message": f"{taken}: no addresses are given of it",
            "lastTransitionTime": moment,
        }
    what = "default Service CIDR" if meta.name(o) == DEFAULT else "Service CIDR"
    return {
        "type": "Ready",
        "status": "True",
        "reason": "",
        "message": f"Kubernetes {what} is ready",
        "lastTransitionTime": moment,
    }


def remaining(o: Object, moment: datetime) -> float:
    """Seconds until one that is being deleted may go."""
    deleted = meta.parse_time(o["metadata"]["deletionTimestamp"])
    return GRACE - (moment - deleted).total_seconds()


class ServiceCIDRController(Controller):
    """Keys are ServiceCIDRs."""

    name = "service-cidr-controller"
    account = "service-cidrs-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.ranges = self.watch(SERVICE_CIDRS)
        self.addresses = self.watch(IP_ADDRESSES)
        self.nodes = self.watch(NODES)
        self.pods = [cidr for cidr in self.options.cluster_cidr.split(",") if cidr]
        self.ranges.add_handlers(
            on_add=self._changed,
            on_update=lambda _, o: self._changed(o),
            on_delete=self._changed,
        )
        self.addresses.add_handlers(on_delete=lambda _: self._leaving())
        self.nodes.add_handlers(
            on_add=lambda _: self._moved(),
            on_update=lambda old, new: self._moved() if places(old) != places(new) else None,
            on_delete=lambda _: self._moved(),
        )

    def _changed(self, o: Object) -> None:
        """It may be what another one waits for."""
        self.enqueue(o)
        self._leaving()

    def _leaving(self) -> None:
        for o in self.ranges.list():
            if meta.is_deleting(o):
                self.enqueue(o)

    def _moved(self) -> None:
        """Nodes are elsewhere now."""
        for o in self.ranges.list():
            self.enqueue(o)

    async def sync(self, key: str) -> None:
        o = self.ranges.get(None, key)
        if o is None:
            return
        present = meta.finalizers(o)
        try:
            if not meta.is_deleting(o):
                if FINALIZER not in present:
                    o = await self._written(o, [*present, FINALIZER])
                await self._say(o, held=False)
            elif FINALIZER in present:
                await self._leave(key, o)
        except StatusError as error:
            if error.code != 404:
                raise

    async def _leave(self, key: str, o: Object) -> None:
        if is_held(o, self.ranges.list(), self.addresses.list()):
            await self._say(o, held=True)
        elif (seconds := remaining(o, now())) > 0:
            self.queue.add_after(key, seconds)
        else:
            await self._written(o, [each for each in meta.finalizers(o) if each != FINALIZER])

    async def _written(self, o: Object, finalizers: list[str]) -> Object:
        metadata = {**o["metadata"], "finalizers": finalizers}
        return await self.client.update(SERVICE_CIDRS, {**o, "metadata": metadata})

    async def _say(self, o: Object, *, held: bool) -> None:
        status = o.get("status") or {}
        before = status.get("conditions") or ()
        clash = taken(o, self.pods, self.nodes.list())
        wanted = condition(o, held=held, moment=meta.now(), taken=clash)
        if wanted is None:
            return
        after = conditions.put(before, wanted)
        if after != list(before):
            changed = {**o, "status": {**status, "conditions": after}}
            await self.client.update_status(SERVICE_CIDRS, changed)
