"""Node IPAM: each node gets a part of the cluster's range for the pods on it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from wherry.kube.api import meta
from wherry.kube.api.resources import NODES
from wherry.kube.client.recorder import NORMAL
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, Controller

_IPV6_MASK = 64

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def ranges_of(node: Object) -> list[str]:
    """The ranges the node has."""
    spec = node.get("spec") or {}
    return spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])


def first_free(cluster: Network, prefix: int, taken: Iterable[Network]) -> Network | None:
    """The first part of ``cluster`` with that prefix length that overlaps none of ``taken``."""
    size = 1 << (cluster.max_prefixlen - prefix)
    spans = sorted(
        (int(network.network_address), int(network.broadcast_address))
        for network in taken
        if network.version == cluster.version
    )
    start = int(cluster.network_address)
    for first, last in spans:
        if last < start:
            continue
        if first >= start + size:
            break
        start += (last - start) // size * size + size
    if start + size - 1 > int(cluster.broadcast_address):
        return None
    return ipaddress.ip_network((start, prefix))


def allocate(clusters: Sequence[str], mask: int, nodes: Iterable[Object]) -> list[str] | None:
    """Ranges for a node that has none, one of each of the cluster's; None if one is used up."""
    taken = [ipaddress.ip_network(cidr) for node in nodes for cidr in ranges_of(node)]
    result = []
    for cidr in clusters:
        cluster = ipaddress.ip_network(cidr)
        prefix = mask if cluster.version == 4 else _IPV6_MASK
        free = first_free(cluster, max(prefix, cluster.prefixlen), taken)
        if free is None:
            return None
        result.append(str(free))
    return result


class NodeIPAMController(Controller):
    """Writes ``spec.podCIDR`` and ``spec.podCIDRs``. Keys are nodes.

    One worker: who has not yet seen the last node's range must not give out the next.
    """

    name = "node-ipam-controller"
    account = "node-controller"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.recorder = context.recorder("cidrAllocator")
        self.clusters = [cidr for cidr in self.options.cluster_cidr.split(",") if cidr]
        self.nodes = self.watch(NODES)
        if self.clusters:
            self.nodes.add_handlers(
                on_add=self.enqueue, on_update=self.enqueue_update, on_delete=self._freed
            )

    def _freed(self, node: Object) -> None:
        for waiting in self.nodes.list():
            if not ranges_of(waiting):
                self.enqueue(waiting)

    async def sync(self, key: str) -> None:
        node = self.nodes.get(None, key)
        if node is None or meta.is_deleting(node) or ranges_of(node):
            return
        ranges = allocate(self.clusters, self.options.node_mask, self.nodes.list())
        if ranges is None:
            message = f"Node {key} status is now: CIDRNotAvailable"
            self.recorder.event(NODES, node, NORMAL, "CIDRNotAvailable", message)
            return
        patch = {
            "metadata": {"uid": meta.uid(node)},
            "spec": {"podCIDR": ranges[0], "podCIDRs": ranges},
        }
        await self.seen(NODES, await self.client.patch(NODES, key, patch))
