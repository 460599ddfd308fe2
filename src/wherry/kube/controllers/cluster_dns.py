"""The Service at which pods find the cluster's name server: one answers on every node.

The name server of a node listens at the first address of the node's pod range. The Service has no
selector; its slice is kept here, and each node's pods go to their own (internal traffic policy
``Local``). Its Endpoints are kept, too, for clients that know nothing of slices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from wherry.kube.api import meta
from wherry.kube.api.cluster_dns import NAME, NAMESPACE, listening_addresses
from wherry.kube.api.endpoint_slices import SERVICE_NAME
from wherry.kube.api.errors import StatusError
from wherry.kube.api.families import family_of
from wherry.kube.api.resources import ENDPOINT_SLICES, ENDPOINTS, NODES, SERVICES, Resource
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, Controller

_SLICES: Final = {"IPv4": "kube-dns-nodes", "IPv6": "kube-dns-nodes-ipv6"}
_LABELS: Final = {
    "k8s-app": "kube-dns",
    "kubernetes.io/cluster-service": "true",
    "kubernetes.io/name": "CoreDNS",
}
_PORTS: Final = (("dns", "UDP", 53), ("dns-tcp", "TCP", 53))


def service(addresses: Sequence[str]) -> Object:
    """The Service at ``addresses``, at most one of each family."""
    ports = [
        {"name": name, "protocol": protocol, "port": port, "targetPort": port}
        for name, protocol, port in _PORTS
    ]
    spec: Object = {
        "clusterIP": addresses[0],
        "clusterIPs": list(addresses),
        "internalTrafficPolicy": "Local",
        "ports": ports,
    }
    if len(addresses) > 1:
        spec["ipFamilyPolicy"] = "PreferDualStack"
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": dict(_LABELS)},
        "spec": spec,
    }


def _listening(nodes: Iterable[Object], family: str) -> Iterator[tuple[str, str]]:
    """The addresses of that family, and by whom they are had."""
    for node in sorted(nodes, key=meta.name):
        for address in listening_addresses(node):
            if family_of(address) == family:
                yield address, meta.name(node)


def endpoint_slice(nodes: Iterable[Object], family: str = "IPv4") -> Object:
    """Where the nodes' name servers are."""
    endpoints = [
        {
            "addresses": [address],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": node,
        }
        for address, node in _listening(nodes, family)
    ]
    labels = {
        **_LABELS,
        SERVICE_NAME: NAME,
        "endpointslice.kubernetes.io/managed-by": "cluster-dns-controller",
    }
    return {
        "apiVersion": ENDPOINT_SLICES.api_version,
        "kind": ENDPOINT_SLICES.kind,
        "metadata": {"name": _SLICES[family], "namespace": NAMESPACE, "labels": labels},
        "addressType": family,
        "endpoints": endpoints,
        "ports": [
            {"name": name, "protocol": protocol, "port": port} for name, protocol, port in _PORTS
        ],
    }


def endpoints(nodes: Iterable[Object], family: str = "IPv4") -> Object:
    """The same as an Endpoints object, of the primary family."""
    addresses = [{"ip": address, "nodeName": node} for address, node in _listening(nodes, family)]
    ports = [{"name": name, "port": port, "protocol": protocol} for name, protocol, port in _PORTS]
    labels = {**_LABELS, "endpointslice.kubernetes.io/skip-mirror": "true"}
    result: Object = {
        "apiVersion": ENDPOINTS.api_version,
        "kind": ENDPOINTS.kind,
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels},
    }
    if addresses:
        result["subsets"] = [{"addresses": addresses, "ports": ports}]
    return result


class ClusterDNSController(Controller):
    """Keeps the Service and its slice as they should be. It has one key."""

    name = "cluster-dns-controller"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.addresses = [ip for ip in self.options.cluster_dns.split(",") if ip]
        self.families = [family_of(address) for address in self.addresses]
        self.nodes = self.watch(NODES)
        self.nodes.add_handlers(
            on_add=self._node_came_or_went,
            on_update=self._node_changed,
            on_delete=self._node_came_or_went,
        )
        self.services = self.watch(SERVICES)
        self.services.add_handlers(on_delete=self._look_again)
        self.slices = self.watch(ENDPOINT_SLICES)
        self.slices.add_handlers(
            on_update=lambda _, slice_: self._look_again(slice_), on_delete=self._look_again
        )
        self.endpoints = self.watch(ENDPOINTS)
        self.endpoints.add_handlers(
            on_update=lambda _, endpoints: self._look_again(endpoints), on_delete=self._look_again
        )
        if self.addresses:
            self.queue.add(NAME)

    def _node_came_or_went(self, node: Object) -> None:
        if self.addresses:
            self.queue.add(NAME)

    def _node_changed(self, old: Object, new: Object) -> None:
        if listening_addresses(old) != listening_addresses(new):
            self._node_came_or_went(new)

    def _look_again(self, o: Object) -> None:
        if meta.namespace(o) == NAMESPACE and meta.name(o) in (NAME, *_SLICES.values()):
            self.queue.add(NAME)

    async def sync(self, key: str) -> None:
        if self.services.get(NAMESPACE, NAME) is None:
            await self._create(SERVICES, service(self.addresses))
        nodes = self.nodes.list()
        for family in self.families:
            wanted = endpoint_slice(nodes, family)
            found = self.slices.get(NAMESPACE, _SLICES[family])
            await self._keep(ENDPOINT_SLICES, wanted, found, ("endpoints", "ports"))
        listed = endpoints(nodes, self.families[0])
        await self._keep(ENDPOINTS, listed, self.endpoints.get(NAMESPACE, NAME), ("subsets",))

    async def _keep(
        self, resource: Resource, wanted: Object, found: Object | None, parts: tuple[str, ...]
    ) -> None:
        if found is None:
            await self._create(resource, wanted)
        elif any(found.get(part) != wanted.get(part) for part in parts):
            changed = {**found, **{part: wanted.get(part) for part in parts}}
            await self.seen(resource, await self.client.update(resource, changed))

    async def _create(self, resource: Resource, body: Object) -> None:
        try:
            made = await self.client.create(resource, body)
        except StatusError as error:
            if error.reason == "AlreadyExists":
                return
            raise
        await self.seen(resource, made)
