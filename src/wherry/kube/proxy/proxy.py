"""The loop around the rules: watch, decide, apply in one transaction."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.endpoint_slices import service_key
from wherry.kube.api.kinds.service_ranges import overlap, places
from wherry.kube.api.resources import ENDPOINT_SLICES, NODES, SERVICE_CIDRS, SERVICES
from wherry.kube.client.backoff import Backoff
from wherry.kube.client.informer import Informer, SharedInformers
from wherry.kube.client.recorder import EventRecorder
from wherry.kube.proxy import ranges
from wherry.kube.proxy.claims import Claims
from wherry.kube.proxy.health import Health
from wherry.kube.proxy.modes import Changes, Mode
from wherry.kube.proxy.ports import Place, health_check, ports
from wherry.kube.proxy.ranges import Ways
from wherry.net.conntrack.open_connections import OpenConnections
from wherry.net.link.changes import RouteChanges
from wherry.net.nftables.nft import NftError

log = logging.getLogger(__name__)

Object = dict[str, Any]
_ZONE = "topology.kubernetes.io/zone"
OVERLAPS = "RangeOverlaps"


class Proxy:
    """Keeps the node's service rules as the cluster says.

    Args:
        informers: those of the process; whoever gives them starts and stops them.
        mode: makes the rules.
        node_name: of this node, for what is meant for it alone.
        told: the ranges of cluster IPs, beside those of ServiceCIDRs.
        ways: this machine's to those ranges.
        health: tells how we are.
    """

    def __init__(
        self,
        informers: SharedInformers,
        mode: Mode,
        *,
        node_name: str,
        told: Sequence[str] = (),
        ways: Ways | None = None,
        health: Health | None = None,
    ) -> None:
        self._mode = mode
        self._place = Place(node_name)
        self._told = tuple(told)
        self._ways = ways or Ways((), lambda _: "")
        self._changed = asyncio.Event()
        self._ranges = self._told  # that there are rules and ways for
        self._cidrs = informers.informer(SERVICE_CIDRS)
        self._nodes = informers.informer(NODES)
        self._refused: dict[str, str] = {}  # of further ranges, with what is there already
        self._surroundings = RouteChanges(self._changed.set)
        self._health = health or Health()
        self._services = informers.informer(SERVICES)
        self._slices = informers.informer(ENDPOINT_SLICES)
        self._slices.add_indexer("service", lambda slice_: (service_key(slice_),))
        self._node = Informer(informers.client, NODES, field_selector=f"metadata.name={node_name}")
        self._recorder = EventRecorder(informers.client, "kube-proxy", node_name)
        self._claims = Claims()
        self._lost: dict[str, list[str]] = {}
        self._dirty: set[str] = set()
        self._turn = 0  # the next one of the loop
        self._busy = False
        self._connections = OpenConnections()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    async def run(self) -> None:
        """Keep the rules current until cancelled; they stay in force afterwards."""
        self._recorder.start()
        await self._health.start(self._recorder)
        try:
            self._ranges = await asyncio.to_thread(self._ways.open)
            await self._mode.use(self._ranges)
            self._node.start()
            self._watch()
            await asyncio.gather(
                self._services.wait_synced(), self._slices.wait_synced(), self._node.wait_synced()
            )
            await self._follow()
        finally:
            self._surroundings.close()
            await self._health.stop()
            await self._mode.stop()
            await self._node.stop()
            await self._recorder.stop()

    def _watch(self) -> None:
        self._node.add_handlers(
            on_add=self._touch_node,
            on_update=lambda _old, new: self._touch_node(new),
            on_delete=self._touch_node,
        )
        self._cidrs.add_handlers(
            on_add=lambda _: self._changed.set(),
            on_update=lambda _old, _new: self._changed.set(),
            on_delete=lambda _: self._changed.set(),
        )
        self._nodes.add_handlers(
            on_add=lambda _: self._changed.set(),
            on_update=self._touch_neighbour,
            on_delete=lambda _: self._changed.set(),
        )
        self._services.add_handlers(
            on_add=self._touch_service,
            on_update=lambda _old, new: self._touch_service(new),
            on_delete=self._touch_service,
        )
        self._slices.add_handlers(
            on_add=self._touch_slice,
            on_update=self._touch_slices,
            on_delete=self._touch_slice,
        )

    async def _follow(self) -> None:
        backoff = Backoff(0.1, 30)
        started = False
        while True:
            try:
                await self._use_ranges()
                turn, self._turn, self._busy = self._turn, self._turn + 1, True
                changes = self._update()
                if started:
                    if changes:
                        await self._mode.change(changes)
                else:
                    await self._mode.start(self._claims.all())
            except (NftError, OSError) as error:
                started = False
                delay = backoff.next()
                log.error("service rules were refused, trying again in %.1f s: %s", delay, error)
                await asyncio.sleep(delay)
                continue
            started = True
            backoff.reset()
            self._busy = False
            self._health.applied()
            self._tell_done(turn)
            await self._changed.wait()
            self._changed.clear()

    async def _use_ranges(self) -> None:
        """Follow the ServiceCIDRs, as far as they are known: nobody waits for them. Ways come
        before rules and leave after them: what nobody serves does not leave the machine."""
        if not (self._cidrs.synced and self._nodes.synced):
            return
        further = ranges.further(self._told, self._cidrs.list())
        if not further and self._ranges == self._told and not self._refused:
            return
        self._surroundings.open()
        nodes = self._nodes.list()
        self._refuse(await asyncio.to_thread(self._ways.clashes, further, nodes), further)
        wanted = (*self._told, *(cidr for cidr in further if cidr not in self._refused))
        if wanted == self._ranges:
            return
        before = [cidr for cidr in self._ranges if cidr not in wanted]
        await asyncio.to_thread(self._ways.use, (*wanted, *before))
        await self._mode.use(wanted)
        if before:
            await asyncio.to_thread(self._ways.use, wanted)
        self._ranges = wanted

    def _refuse(self, refused: dict[str, str], further: Mapping[str, Object]) -> None:
        """Serve nobody in these ranges, and say so."""
        before, self._refused = self._refused, refused
        for cidr, what in refused.items():
            if before.get(cidr) != what:
                text = f"{cidr} is not served on node {self._place.node_name}: it overlaps {what}"
                log.warning("ServiceCIDR %s: %s", meta.name(further[cidr]), text)
                self._recorder.event(SERVICE_CIDRS, further[cidr], "Warning", OVERLAPS, text)
        changed = [cidr for cidr in {*before, *refused} if before.get(cidr) != refused.get(cidr)]
        for service in self._services.list() if changed else ():
            if any(overlap(cidr, at) for cidr in changed for at in _cluster_ips(service)):
                self._touch_service(service)

    def _refusal(self, address: str) -> str:
        """Why nobody is led to ``address`` by this node, empty where that is not so."""
        for cidr, what in self._refused.items():
            if overlap(cidr, address):
                return f"{address} is not served on this node: {cidr} overlaps {what}"
        return ""

    def _update(self) -> Changes:
        dirty, self._dirty = self._dirty, set()
        changes: dict[Any, Any] = {}
        for key in dirty:
            namespace, name = key.split("/", 1)
            service = self._services.get(namespace, name)
            slices = self._slices.by_index("service", key)
            if service is None:
                changes |= self._claims.set(key, "", ())
                self._health.forget(key)
                continue
            created = service["metadata"].get("creationTimestamp") or ""
            asked = ports(service, slices, self._place)
            granted = [port for port in asked if not self._refusal(port.cluster_ip)]
            changes |= self._claims.set(key, created, granted)
            number, here = health_check(service, slices, self._place.node_name)
            self._health.serve(key, service, number, here)
        self._tell_lost(dirty)
        return changes

    def _tell_lost(self, services: set[str]) -> None:
        """Say of what Services ask for in vain; once, until that changes."""
        for key in services:
            lost = {str(one): "AddressTaken" for one in self._claims.lost(key)}
            for protocol in sorted(self._claims.protocols(key) - self._mode.protocols):
                text = (
                    f"{protocol.upper()} is not served: the proxy's mode {self._mode.name} cannot"
                )
                lost[text] = "ProtocolNotServed"
            service = self._services.get(*key.split("/", 1))
            for address in _cluster_ips(service) if self._refused and service else ():
                if text := self._refusal(address):
                    lost[text] = "AddressTaken"
            for text, reason in lost.items():
                if text not in self._lost.get(key, ()):
                    if service is not None:
                        self._recorder.event(SERVICES, service, "Warning", reason, text)
                    log.warning("service %s: %s", key, text)
            if lost:
                self._lost[key] = list(lost)
            else:
                self._lost.pop(key, None)

    # -- what others of this process may ask

    async def withdrawn(self, namespace: str, address: str) -> None:
        """Return when no new connection is led to ``address`` of a pod that goes, and none is under
        way to it; at once where no Service leads there. A client may keep one for hours: give us a
        time."""
        if not any(
            address in endpoint.get("addresses", ())
            for slice_ in self._slices.list(namespace)
            for endpoint in slice_.get("endpoints") or ()
        ):
            return
        while any(self._answers(slice_, address) for slice_ in self._slices.list(namespace)):
            await self._turn_done(self._turn)
        if self._dirty:
            await self._turn_done(self._turn)
        elif self._busy:
            await self._turn_done(self._turn - 1)
        try:
            await self._connections.ended(address)
        except OSError as error:
            log.warning("connections to %s are not waited for: %s", address, error)

    def _answers(self, slice_: Object, address: str) -> bool:
        return any(
            address in endpoint.get("addresses", ())
            and not (endpoint.get("conditions") or {}).get("terminating")
            for endpoint in slice_.get("endpoints") or ()
        )

    async def _turn_done(self, turn: int) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, future))
        await future

    def _tell_done(self, turn: int) -> None:
        waiting, self._waiting = self._waiting, []
        for wanted, future in waiting:
            if wanted > turn:
                self._waiting.append((wanted, future))
            elif not future.done():
                future.set_result(None)

    # -- what has changed

    def _touch(self, key: str) -> None:
        self._dirty.add(key)
        self._changed.set()
        self._health.queued()

    def _touch_service(self, service: Object) -> None:
        self._touch(meta.key(service))

    def _touch_slice(self, slice_: Object) -> None:
        self._touch(service_key(slice_))

    def _touch_slices(self, old: Object, new: Object) -> None:
        self._touch_slice(old)
        self._touch_slice(new)

    def _touch_neighbour(self, old: Object, new: Object) -> None:
        """It may be found elsewhere now: ranges that were free are not, or the other way round."""
        if places(old) != places(new):
            self._changed.set()

    def _touch_node(self, node: Object) -> None:
        """Endpoints may be meant for another zone than the node was in."""
        self._health.node(node)
        zone = meta.labels(node).get(_ZONE, "")
        if zone != self._place.zone:
            self._place = Place(self._place.node_name, zone)
            for service in self._services.list():
                self._touch_service(service)


def _cluster_ips(service: Object) -> Sequence[str]:
    return (service.get("spec") or {}).get("clusterIPs") or ()
