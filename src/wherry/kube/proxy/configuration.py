"""A proxy from what is said of it, and what it leaves taken away again."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

from wherry.kube.client.informer import SharedInformers
from wherry.kube.proxy.health import Health
from wherry.kube.proxy.loopback import WithLoopback
from wherry.kube.proxy.modes import IPTABLES, NFTABLES, USERSPACE, KernelMode, Mode, UserspaceMode
from wherry.kube.proxy.proxy import Proxy
from wherry.kube.proxy.ranges import Ways
from wherry.net.conntrack import tcp_window
from wherry.net.nftables.nft import Nftables
from wherry.net.service.iptables.chains import Names
from wherry.net.service.iptables.tables import IptablesServices
from wherry.net.service.nftables.tables import NftablesServices
from wherry.net.service.userspace import Balancers

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """What must be known of the node.

    ``node_ips`` are the addresses of this machine that pods can answer, at most one a family;
    ``pods`` all pods' ranges, ``services`` those of cluster IPs. ``table`` is the name of nftables'
    tables that are ours alone, ``chains`` the beginning of the names of iptables' chains that are,
    ``bridge`` the interface behind which this node's pods are.
    ``healthz`` and ``metrics`` are where to serve those, None for nowhere. ``further_ranges`` is
    the file in which those of ServiceCIDRs are noted. With ``tcp_be_liberal`` the kernel tracks TCP
    so (``net.conntrack.tcp_window``).
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
    further_ranges: Path | None = None
    tcp_be_liberal: bool = False

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
    if config.tcp_be_liberal:
        try:
            tcp_window.be_liberal()
        except OSError as error:
            log.error("conntrack.tcpBeLiberal: connections are tracked strictly: %s", error)
    mode = _mode(nft, config)
    six = config.node_ip("::/0")
    return Proxy(
        informers,
        WithLoopback(mode, six) if six else mode,
        node_name=config.node_name,
        told=config.services,
        ways=_ways(config),
        health=Health(
            config.healthz, config.metrics, config.mode, config.node_name, hosts=config.hosts
        ),
    )


def _mode(nft: Nftables, config: ProxyConfig) -> Mode:
    nftables, iptables = _rules(nft, config)
    if config.mode == NFTABLES:
        return KernelMode(NFTABLES, nftables, iptables, config.bridge)
    if config.mode == IPTABLES:
        return KernelMode(IPTABLES, iptables, nftables, config.bridge)
    assert config.mode == USERSPACE, config.mode
    return UserspaceMode(Balancers(config.node_ips), nftables, iptables, config.bridge)


def _rules(nft: Nftables, config: ProxyConfig) -> tuple[NftablesServices, IptablesServices]:
    services, pods = config.services, config.pods
    return (
        NftablesServices(nft, config.table, services=services, pods=pods),
        IptablesServices(Names(config.chains), services=services, pods=pods),
    )


async def withdraw(nft: Nftables, config: ProxyConfig) -> None:
    """Lead nobody anywhere, as all pods have ended: the machine's ports are others' again. What is
    sent to a Service does not leave the machine all the same. No error where there is nothing."""
    await asyncio.to_thread(_ways(config).close)
    for rules in _rules(nft, config):
        await rules.refuse_loopback((config.bridge,))
        await rules.remove()


async def teardown(nft: Nftables, config: ProxyConfig) -> None:
    """Take away all that a proxy leaves in the kernel; no error where there is nothing."""
    await withdraw(nft, config)
    await asyncio.to_thread(_ways(config).remove)


def _ways(config: ProxyConfig) -> Ways:
    return Ways(config.services, config.node_ip, config.further_ranges, config.pods)
