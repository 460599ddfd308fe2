"""The loop around the plan: watch the Nodes and this machine's routes, compute, apply."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.resources import NODES
from wherry.kube.client.backoff import Backoff
from wherry.kube.client.informer import SharedInformers
from wherry.kube.client.recorder import EventRecorder
from wherry.kube.pod_network.plan import (
    VXLAN,
    Peer,
    Plan,
    bare,
    inside,
    internal_address,
    network_number,
    no_tunnels,
    own_range,
    peers,
    plan,
    pod_mtu,
)
from wherry.net.link import links, routes, tunnel_rules, vxlan
from wherry.net.link.changes import MTUChanges, RouteChanges
from wherry.net.nftables.nft import Nftables, NftError

log = logging.getLogger(__name__)

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """Who and where this node is, and what it may use.

    ``pod_range`` is the cluster's, with a comma where it has both families; ``device`` (of the
    tunnels) and ``table`` (of nftables) are its own in the kernel; ``mode`` is one of ``MODES``.
    """

    node_name: str
    node_ip: str
    pod_range: str
    device: str
    table: str
    mode: str


class PodRouter:
    """Keeps the routes and tunnels to other nodes' pods as the cluster says.

    Args:
        setting: who and where it is.
        informers: those of the process; whoever gives them starts and stops them.
        nft: applies nftables scripts.
        recorder: of events about nodes that cannot be reached.
        on_mtu: told how large packets of pods may be, before the first plan and when it changes.
        on_near: told which nodes see our pods' own addresses, when these change.
    """

    def __init__(
        self,
        setting: Setting,
        informers: SharedInformers,
        nft: Nftables,
        recorder: EventRecorder,
        *,
        on_mtu: Callable[[int], Awaitable[None]],
        on_near: Callable[[tuple[str, ...]], Awaitable[None]],
    ) -> None:
        self._setting = setting
        self._nodes = informers.informer(NODES)
        self._nft = nft
        self._recorder = recorder
        self._on_mtu = on_mtu
        self._on_near = on_near
        self._changed = asyncio.Event()
        self._routes = RouteChanges(self._changed.set)
        self._mtus = MTUChanges(self._changed.set)
        self._mtu: int | None = None
        self._near: tuple[str, ...] = ()
        self._told: dict[str, str] = {}
        self._no_tunnels = no_tunnels(setting.pod_range, setting.node_ip)
        self._rules = ""

    async def run(self) -> None:
        """Keep them until cancelled; they stay in force afterwards."""
        self._nodes.add_handlers(
            on_add=self._node, on_update=self._node_changed, on_delete=self._node
        )
        await self._nodes.wait_synced()
        self._changed.set()
        backoff = Backoff(0.1, 30)
        try:
            self._mtus.open()
            while True:
                await self._changed.wait()
                self._changed.clear()
                try:
                    await self._look()
                except (OSError, NftError) as error:
                    delay = backoff.next()
                    log.error("ways to other nodes, trying again in %.1f s: %s", delay, error)
                    await asyncio.sleep(delay)
                    self._changed.set()
                else:
                    backoff.reset()
        finally:
            self._routes.close()
            self._mtus.close()

    def _node(self, node: Object) -> None:
        self._changed.set()

    def _node_changed(self, old: Object, new: Object) -> None:
        name = meta.name(new)
        if peers([old], "") != peers([new], "") or own_range([old], name) != own_range([new], name):
            self._changed.set()

    async def _look(self) -> None:
        setting = self._setting
        nodes = self._nodes.list()
        others = peers(nodes, setting.node_name)
        if others:  # a node that is alone need not hear of its routes
            self._routes.open()
        wanted, mtu = await asyncio.to_thread(self._decide, others)
        if mtu != self._mtu:
            await self._on_mtu(mtu)
            self._mtu = mtu
        own = own_range(nodes, setting.node_name)
        if wanted.ends and own:
            try:
                await asyncio.to_thread(self._raise_device, inside(own), wanted, mtu)
            except vxlan.NotSupported as error:
                self._no_tunnels = str(error)
                wanted, _ = await asyncio.to_thread(self._decide, others)
        await self._set_rules(wanted)
        faults = {**wanted.faults, **await asyncio.to_thread(self._lead, wanted)}
        if not wanted.ends:
            await asyncio.to_thread(links.remove_link, setting.device)
        if wanted.near != self._near:
            await self._on_near(wanted.near)
            self._near = wanted.near
        self._tell(nodes, faults)

    def _decide(self, others: list[Peer]) -> tuple[Plan, int]:
        reaches = {address: routes.reach(address) for address in {p.address for p in others}}
        made = plan(
            others,
            reaches,
            mode=self._setting.mode,
            device=self._setting.device,
            tunnels=self._no_tunnels,
        )
        link = links.mtu_behind(self._setting.node_ip)
        tunnelled = bool(made.ends) or self._setting.mode == VXLAN
        overhead = vxlan.overhead(self._setting.node_ip)
        return made, pod_mtu(link, overhead, tunnelled=tunnelled)

    def _raise_device(self, within: str, wanted: Plan, mtu: int) -> None:
        setting = self._setting
        device = vxlan.Device(
            setting.device,
            network_number(setting.pod_range),
            setting.node_ip,
            within,
            mtu,
            ipv6=":" in setting.pod_range,
        )
        vxlan.ensure(device)
        vxlan.set_peers(device, wanted.ends)

    def _lead(self, wanted: Plan) -> dict[str, str]:
        """Set and forget routes; what the kernel refused, by node."""
        device = self._setting.device
        present = {
            bare(route, device)
            for cidr in self._setting.pod_range.split(",")
            for route in routes.led(cidr)
        }
        faults: dict[str, str] = {}
        by_range = {route.cidr for route in wanted.routes}
        for stale in present - wanted.routes:
            if stale.cidr not in by_range:
                routes.forget(stale.cidr)
        for route in sorted(wanted.routes - present, key=lambda r: r.cidr):
            try:
                routes.lead(route)
            except OSError as error:
                faults[route.cidr] = f"{route.cidr} via {route.gateway}: {error.strerror or error}"
        return faults

    async def _set_rules(self, wanted: Plan) -> None:
        table, device = self._setting.table, self._setting.device
        script = tunnel_rules.no_rules(table)
        if wanted.ends:
            script += tunnel_rules.rules(table, device, self._setting.pod_range)
        if script != self._rules and (wanted.ends or self._rules):
            await self._nft.run(script)
        self._rules = script if wanted.ends else ""

    def _tell(self, nodes: list[Object], faults: dict[str, str]) -> None:
        """Record what there is no way to, once."""
        for node in nodes:
            keys = [meta.name(node), *((node.get("spec") or {}).get("podCIDRs") or ())]
            why = next((faults[key] for key in keys if key in faults), "")
            name = meta.name(node)
            if why and self._told.get(name) != why:
                address = internal_address(node, 4) or internal_address(node, 6)
                message = (
                    f"Could not create route to the pods of node {name} ({address}) "
                    f"on node {self._setting.node_name}: {why}"
                )
                log.warning("%s", message)
                self._recorder.event(NODES, node, "Warning", "FailedToCreateRoute", message)
            self._told[name] = why
        for gone in self._told.keys() - {meta.name(node) for node in nodes}:
            del self._told[gone]

    @staticmethod
    async def teardown(setting: Setting, nft: Nftables) -> None:
        """Take away what it leaves in the kernel; no error where there is nothing."""

        def clear() -> None:
            for cidr in setting.pod_range.split(","):
                for route in routes.led(cidr):
                    routes.forget(route.cidr)
            links.remove_link(setting.device)

        await asyncio.to_thread(clear)
        await nft.run(tunnel_rules.no_rules(setting.table))
