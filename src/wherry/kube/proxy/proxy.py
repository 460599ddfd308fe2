"""The loop around the rules: watch, compute, apply in one transaction."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.resources import ENDPOINT_SLICES, SERVICES
from wherry.kube.client.backoff import Backoff
from wherry.kube.client.informer import SharedInformers
from wherry.kube.proxy.frontends import frontends
from wherry.net.nft import NftError
from wherry.net.routes import block, unblock
from wherry.net.service_map import (
    Backend,
    Frontend,
    Runner,
    ServiceMap,
    add_service_route,
    remove_service_route,
    remove_table,
)

log = logging.getLogger(__name__)

Object = dict[str, Any]
SERVICE_NAME = "kubernetes.io/service-name"


class Proxy:
    """Keeps the node's service rules as the cluster says.

    Args:
        informers: those of the process; whoever gives them starts and stops them.
        nft: applies nftables scripts.
        node_ip: the address of this machine that pods can answer.
        pod_cidr: addresses of all pods of the cluster.
        service_cidr: addresses of services.
        table: the nftables table that is ours alone.
        bridge: the interface behind which this node's pods are.
        node_name: for traffic policy ``Local``; the host's name by default.
    """

    def __init__(
        self,
        informers: SharedInformers,
        nft: Runner,
        *,
        node_ip: str,
        pod_cidr: str,
        service_cidr: str,
        table: str,
        bridge: str = "",
        node_name: str = "",
    ) -> None:
        self._node_ip = node_ip
        self._service_cidr = service_cidr
        self._bridge = bridge
        self._node_name = node_name or socket.gethostname().lower()
        self._map = ServiceMap(nft, table, service_cidr=service_cidr, pod_cidr=pod_cidr)
        self._services = informers.informer(SERVICES)
        self._slices = informers.informer(ENDPOINT_SLICES)
        self._slices.add_indexer("service", lambda slice_: (_service_of(slice_),))
        self._wanted: dict[str, dict[Frontend, Backend]] = {}
        self._dirty: set[str] = set()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Keep the rules current until cancelled; they stay in force afterwards."""
        await asyncio.to_thread(block, self._service_cidr)
        await asyncio.to_thread(add_service_route, self._service_cidr, self._node_ip)
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
        await self._services.wait_synced()
        await self._slices.wait_synced()
        self._changed.set()  # a former process's rules are replaced even if there is nothing
        await self._follow()

    @staticmethod
    async def teardown(nft: Runner, *, table: str, service_cidr: str = "") -> None:
        """Take away what a proxy leaves in the kernel; no error where there is nothing."""
        await remove_table(nft, table)
        if service_cidr:
            await asyncio.to_thread(remove_service_route, service_cidr)
            await asyncio.to_thread(unblock, service_cidr)

    async def _follow(self) -> None:
        backoff = Backoff(0.1, 30)
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._update_wanted()
            try:
                await self._map.apply(self._merged())
            except NftError as error:
                delay = backoff.next()
                log.error("service rules were refused, trying again in %.1f s: %s", delay, error)
                await asyncio.sleep(delay)
                self._changed.set()
            else:
                backoff.reset()
                await asyncio.to_thread(_accept_loopback_clients, self._bridge)

    def _update_wanted(self) -> None:
        dirty, self._dirty = self._dirty, set()
        for key in dirty:
            namespace, name = key.split("/", 1)
            service = self._services.get(namespace, name)
            if service is None:
                self._wanted.pop(key, None)
                continue
            slices = self._slices.by_index("service", key)
            self._wanted[key] = frontends(service, slices, node_name=self._node_name)

    def _merged(self) -> dict[Frontend, Backend]:
        """All services' frontends; of two services at one address the older here keeps it."""
        merged: dict[Frontend, Backend] = {}
        for wanted in self._wanted.values():
            for frontend, backend in wanted.items():
                merged.setdefault(frontend, backend)
        return merged

    def _touch(self, key: str) -> None:
        self._dirty.add(key)
        self._changed.set()

    def _touch_service(self, service: Object) -> None:
        self._touch(meta.key(service))

    def _touch_slice(self, slice_: Object) -> None:
        self._touch(_service_of(slice_))

    def _touch_slices(self, old: Object, new: Object) -> None:
        self._touch_slice(old)
        self._touch_slice(new)


def _service_of(slice_: Object) -> str:
    return f"{meta.namespace(slice_)}/{meta.labels(slice_).get(SERVICE_NAME, '')}"


def _accept_loopback_clients(bridge: str) -> None:
    """Let connections from 127.0.0.1 to node ports leave by the pods' bridge (blocking)."""
    setting = Path("/proc/sys/net/ipv4/conf") / bridge / "route_localnet"
    if bridge and setting.exists() and setting.read_text().strip() != "1":
        setting.write_text("1")
