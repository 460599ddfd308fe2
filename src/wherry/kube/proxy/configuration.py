"""A proxy from what is said of it, and what it leaves taken away again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from wherry.kube.client.informer import SharedInformers
from wherry.kube.proxy.health import Health
from wherry.kube.proxy.modes import NFTABLES, NftablesMode
from wherry.kube.proxy.proxy import Proxy
from wherry.net import service_route
from wherry.net.nft import Nftables
from wherry.net.routes import block, unblock
from wherry.net.service_map import ServiceMap, remove_tables


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """What must be known of the node.

    ``node_ips`` are the addresses of this machine that pods can answer, at most one a family;
    ``pods`` all pods' ranges, ``services`` those of cluster IPs. ``table`` is the name of nftables'
    tables that are ours alone, ``bridge`` the interface behind which this node's pods are.
    ``healthz`` and ``metrics`` are where to serve those, None for nowhere.
    """

    node_name: str
    node_ips: tuple[str, ...]
    pods: tuple[str, ...]
    services: tuple[str, ...]
    table: str
    bridge: str = ""
    mode: str = NFTABLES
    healthz: tuple[str, int] | None = None
    metrics: tuple[str, int] | None = None

    def node_ip(self, cidr: str) -> str:
        """The node's address of the family of ``cidr``, empty where there is none."""
        return next((ip for ip in self.node_ips if (":" in ip) == (":" in cidr)), "")


def make(informers: SharedInformers, nft: Nftables, config: ProxyConfig) -> Proxy:
    """The proxy of a node; ``run`` it once ``informers`` start."""

    async def prepare() -> None:
        for cidr in config.services:
            await asyncio.to_thread(block, cidr)
            await asyncio.to_thread(service_route.add, cidr, config.node_ip(cidr))

    services = ServiceMap(nft, config.table, services=config.services, pods=config.pods)
    return Proxy(
        informers,
        NftablesMode(services, config.bridge),
        node_name=config.node_name,
        prepare=(prepare,),
        health=Health(config.healthz, config.metrics, config.mode, config.node_name),
    )


async def teardown(nft: Nftables, config: ProxyConfig) -> None:
    """Take away what a proxy leaves in the kernel; no error where there is nothing."""
    await ServiceMap(nft, config.table, services=(), pods=()).refuse_loopback(config.bridge)
    await remove_tables(nft, config.table)
    for cidr in config.services:
        await asyncio.to_thread(service_route.remove, cidr)
        await asyncio.to_thread(unblock, cidr)
