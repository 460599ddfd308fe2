"""The Service at which pods find the cluster's name server: one answers on every node.

The name server of a node listens at the first address of the node's pod range. The Service has no
selector; its slice is kept here, and each node's pods go to their own (internal traffic policy
``Local``). Its Endpoints are kept, too, for clients that know nothing of slices.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from wherry.kube.api import meta
from wherry.kube.api.cluster_dns import NAME, NAMESPACE, listening_address
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import ENDPOINT_SLICES, ENDPOINTS, NODES, SERVICES, Resource
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, Controller

_SLICE: Final = "kube-dns-nodes"
_LABELS: Final = {
    "k8s-app": "kube-dns",
    "kubernetes.io/cluster-service": "true",
    "kubernetes.io/name": "CoreDNS",
}
_PORTS: Final = (("dns", "UDP", 53), ("dns-tcp", "TCP", 53))


def service(address: str) -> Object:
    """The Service at ``address``."""
    ports = [
        {"name": name, "protocol": protocol, "port": port, "targetPort": port}
        for name, protocol, port in _PORTS
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": dict(_LABELS)},
        "spec": {"clusterIP": address, "internalTrafficPolicy": "Local", "ports": ports},
    }


def endpoint_slice(nodes: Iterable[Object]) -> Object:
    """Where the nodes' name servers are."""
    endpoints = [
        {
            "addresses": [address],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": meta.name(node),
        }
        for node in sorted(nodes, key=meta.name)
        if (address := listening_address(node)) is not None
    ]
    labels = {
        **_LABELS,
        "kubernetes.io/service-name": NAME,
        "endpointslice.kubernetes.io/managed-by": "cluster-dns-controller",
    }
    return {
        "apiVersion": ENDPOINT_SLICES.api_version,
        "kind": ENDPOINT_SLICES.kind,
        "metadata": {"name": _SLICE, "namespace": NAMESPACE, "labels": labels},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [
            {"name": name, "protocol": protocol, "port": port} for name, protocol, port in _PORTS
        ],
    }


def endpoints(nodes: Iterable[Object]) -> Object:
    """The same as an Endpoints object."""
    addresses = [
        {"ip": address, "nodeName": meta.name(node)}
        for node in sorted(nodes, key=meta.name)
        if (address := listening_address(node)) is not None
    ]
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
        if self.options.cluster_dns:
            self.queue.add(NAME)

    def _node_came_or_went(self, node: Object) -> None:
        if self.options.cluster_dns:
            self.queue.add(NAME)

    def _node_changed(self, old: Object, new: Object) -> None:
        if listening_address(old) != listening_address(new):
            self._node_came_or_went(new)

    def _look_again(self, o: Object) -> None:
        if meta.namespace(o) == NAMESPACE and meta.name(o) in (NAME, _SLICE):
            self.queue.add(NAME)

    async def sync(self, key: str) -> None:
        if self.services.get(NAMESPACE, NAME) is None:
            await self._create(SERVICES, service(self.options.cluster_dns))
        slice = endpoint_slice(self.nodes.list())
        await self._keep(
            ENDPOINT_SLICES, slice, self.slices.get(NAMESPACE, _SLICE), ("endpoints", "ports")
        )
        listed = endpoints(self.nodes.list())
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
