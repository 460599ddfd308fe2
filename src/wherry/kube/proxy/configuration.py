"""A proxy from what is said of it, and what it leaves taken away again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from wherry.kube.client.informer import SharedInformers
from wherry.kube.proxy.health import Health
from wherry.kube.proxy.loopback import WithLoopback
from wherry.kube.proxy.modes import IPTABLES, NFTABLES, USERSPACE, KernelMode, Mode, UserspaceMode
from wherry.kube.proxy.proxy import Proxy
from wherry.net import service_route
from wherry.net.balancer import Balancers
from wherry.net.nft import Nftables
from wherry.net.routes import block, unblock
from wherry.net.service_chains import Names
from wherry.net.service_map import ServiceMap
from wherry.net.service_tables import ServiceTables


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """What must be known of the node.

    ``node_ips`` are the addresses of this machine that pods can answer, at most one a family;
    ``pods`` all pods' ranges, ``services`` those of cluster IPs. ``table`` is the name of nftables'
    tables that are ours alone, ``chains`` the beginning of the names of iptables' chains that are,
    ``bridge`` the interface behind which this node's pods are.
    ``healthz`` and ``metrics`` are where to serve those, None for nowhere.
    """

    node_name: str
    node_ips: tuple[str, ...]
    pods: tuple[str, ...]
    services: tuple[str, ...]
    table: str
    bridge: str = ""
    chains: str = "KUBE"
    mode: str = NFTABLES
    healthz: tuple[str, int] | None = None
    metrics: tuple[str, int] | None = None

    @property
    def hosts(self) -> tuple[str, ...]:
        """Where balancers ask for a Service's health: at every address of its families."""
        families = {":" in cidr for cidr in self.services}
        return tuple(host for host in ("0.0.0.0", "::") if (":" in host) in families)

    def node_ip(self, cidr: str) -> str:
        """The node's address of the family of ``cidr``, empty where there is none."""
        return next((ip for ip in self.node_ips if (":" in ip) == (":" in cidr)), "")


def make(informers: SharedInformers, nft: Nftables, config: ProxyConfig) -> Proxy:
    """The proxy of a node; ``run`` it once ``informers`` start."""

    async def prepare() -> None:
        for cidr in config.services:
            await asyncio.to_thread(block, cidr)
            await asyncio.to_thread(service_route.add, cidr, config.node_ip(cidr))

    mode = _mode(nft, config)
    six = config.node_ip("::/0")
    return Proxy(
        informers,
        WithLoopback(mode, six) if six else mode,
        node_name=config.node_name,
        prepare=(prepare,),
        health=Health(
            config.healthz, config.metrics, config.mode, config.node_name, hosts=config.hosts
        ),
    )


def _mode(nft: Nftables, config: ProxyConfig) -> Mode:
    services, pods = config.services, config.pods
    table = ServiceMap(nft, config.table, services=services, pods=pods)
    chains = ServiceTables(Names(config.chains), services=services, pods=pods)
    if config.mode == NFTABLES:
        return KernelMode(NFTABLES, table, chains, config.bridge)
    if config.mode == IPTABLES:
        return KernelMode(IPTABLES, chains, table, config.bridge)
    assert config.mode == USERSPACE, config.mode
    return UserspaceMode(Balancers(config.node_ips), table, chains)


async def teardown(nft: Nftables, config: ProxyConfig) -> None:
    """Take away what a proxy leaves in the kernel; no error where there is nothing."""
    for rules in (
        ServiceMap(nft, config.table, services=(), pods=()),
        ServiceTables(Names(config.chains), services=(), pods=()),
    ):
        await rules.refuse_loopback((config.bridge,))
        await rules.remove()
    for cidr in config.services:
        await asyncio.to_thread(service_route.remove, cidr)
        await asyncio.to_thread(unblock, cidr)
