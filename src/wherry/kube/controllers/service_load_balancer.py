"""Services of type LoadBalancer get their addresses, so that none stays ``<pending>``.

One worker: of two Services that want the same port of a node the older claim holds, and the other
is told by an event and waits until it is free.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from wherry.kube.api import meta, pods
from wherry.kube.api.endpoint_slices import SERVICE_NAME, is_ready
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import ENDPOINT_SLICES, NODES, SERVICES
from wherry.kube.client.recorder import NORMAL, WARNING
from wherry.kube.client.transport import Object
from wherry.kube.controllers import load_balancing
from wherry.kube.controllers.base import Context, Controller, split_key
from wherry.kube.controllers.load_balancing import NoNodes, Port, Unavailable

_API_SERVER = "default/kubernetes"


def _service_of(slice: Object) -> Iterable[str]:
    name = meta.labels(slice).get(SERVICE_NAME)
    if name:
        yield f"{meta.namespace(slice)}/{name}"


def _stands(node: Object) -> object:
    """All of a node that addresses depend on."""
    excluded = load_balancing.EXCLUDED in meta.labels(node)
    known = (node.get("status") or {}).get("addresses")
    return excluded, pods.is_ready(node), meta.is_deleting(node), known


def _serving(slice: Object) -> list[str]:
    return sorted(
        str(endpoint["nodeName"])
        for endpoint in slice.get("endpoints") or ()
        if endpoint.get("nodeName") and is_ready(endpoint)
    )


class ServiceLoadBalancerController(Controller):
    """Writes ``status.loadBalancer`` of the Services that are ours."""

    name = "service-lb-controller"
    account = "service-controller"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.recorder = context.recorder("service-controller")
        self.pool = [ipaddress.ip_network(text) for text in self.options.load_balancer_pool]
        self._told: dict[str, str] = {}
        """What was last said of Services that have no address."""
        self.services = self.watch(SERVICES)
        self.nodes = self.watch(NODES)
        self.slices = self.watch(ENDPOINT_SLICES)
        self.slices.add_indexer("any service", _service_of)
        self.services.add_handlers(
            on_add=self._service_added, on_update=self._service_changed, on_delete=self._gone
        )
        self.nodes.add_handlers(
            on_add=self._all_concerned, on_update=self._node_changed, on_delete=self._all_concerned
        )
        self.slices.add_handlers(
            on_add=self._slice_changed,
            on_update=self._slice_updated,
            on_delete=self._slice_changed,
        )

    # -- what concerns whom

    def _service_added(self, service: Object) -> None:
        if load_balancing.is_balanced(service) or load_balancing.addresses(service):
            self.enqueue(service)

    def _service_changed(self, old: Object, new: Object) -> None:
        was, is_ = old["spec"].get("type"), new["spec"].get("type")
        if was != is_ and "LoadBalancer" in (was, is_):
            self.recorder.event(SERVICES, new, NORMAL, "Type", f"{was} -> {is_}")
        elif is_ == "LoadBalancer":
            for reason, message in load_balancing.changes(old["spec"], new["spec"]):
                self.recorder.event(SERVICES, new, NORMAL, reason, message)
        if load_balancing.claims((old,)).items() - load_balancing.claims((new,)).items():
            self._waiting_concerned()
        self._service_added(new)

    def _gone(self, service: Object) -> None:
        self._told.pop(meta.key(service), None)
        if load_balancing.addresses(service):
            self._waiting_concerned()

    def _waiting_concerned(self) -> None:
        for key in self._told:
            self.queue.add(key)

    def _node_changed(self, old: Object, new: Object) -> None:
        if _stands(old) != _stands(new):
            self._all_concerned(new)

    def _all_concerned(self, node: Object) -> None:
        for service in self.services.list():
            self._service_added(service)

    def _slice_updated(self, old: Object, new: Object) -> None:
        if _serving(old) != _serving(new):
            self._slice_changed(new)

    def _slice_changed(self, slice: Object) -> None:
        for key in _service_of(slice):
            service = self.services.get(*split_key(key))
            if service is not None and service["spec"].get("externalTrafficPolicy") == "Local":
                self._service_added(service)

    # -- acting

    async def sync(self, key: str) -> None:
        service = self.services.get(*split_key(key))
        if service is None:
            return
        has = load_balancing.addresses(service)
        if not load_balancing.is_balanced(service):
            self._told.pop(key, None)
            if has and service["spec"].get("type") != "LoadBalancer":
                self._tell(service, NORMAL, "DeletingLoadBalancer", "Deleting load balancer")
                await self._write(service, [])
                self._tell(service, NORMAL, "DeletedLoadBalancer", "Deleted load balancer")
            return
        if not load_balancing.is_ours(service):
            return
        try:
            wanted = self._addresses(service)
        except Unavailable as error:
            message = f"Error syncing load balancer: failed to ensure load balancer: {error}"
            if self._told.get(key) != message:
                self._told[key] = message
                self._tell(service, WARNING, "SyncLoadBalancerFailed", message)
                if isinstance(error, NoNodes):
                    reason = "There are no available nodes for LoadBalancer"
                    self._tell(service, WARNING, "UnAvailableLoadBalancer", reason)
            if has:
                await self._write(service, [])
            return
        self._told.pop(key, None)
        if wanted == has:
            return
        if not has:
            self._tell(service, NORMAL, "EnsuringLoadBalancer", "Ensuring load balancer")
        await self._write(service, wanted)
        if has:
            message = "Updated load balancer with new hosts"
            self._tell(service, NORMAL, "UpdatedLoadBalancer", message)
        else:
            self._tell(service, NORMAL, "EnsuredLoadBalancer", "Ensured load balancer")

    def _addresses(self, service: Object) -> list[str]:
        others = [s for s in self.services.list() if meta.uid(s) != meta.uid(service)]
        if self.pool:
            used = (address for other in others for address in load_balancing.addresses(other))
            return load_balancing.from_pool(service, self.pool, used)
        local = service["spec"].get("externalTrafficPolicy") == "Local"
        slices = self.slices.by_index("any service", meta.key(service)) if local else ()
        serving = [name for slice in slices for name in _serving(slice)]
        chosen = load_balancing.candidates(self.nodes.list(), serving, local=local)
        taken = {**load_balancing.claims(others), **self._cluster_ports()}
        return load_balancing.from_nodes(service, chosen, taken)

    def _cluster_ports(self) -> dict[tuple[str, Port], str]:
        """Ports of nodes without which there is no cluster."""
        result: dict[tuple[str, Port], str] = {}
        for node in self.nodes.list():
            status = node.get("status") or {}
            port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port")
            if port:
                for address in status.get("addresses") or ():
                    result[address["address"], ("TCP", port)] = "the kubelet"
        for slice in self.slices.by_index("any service", _API_SERVER):
            for endpoint in slice.get("endpoints") or ():
                for address in endpoint["addresses"]:
                    for port in slice.get("ports") or ():
                        result[address, ("TCP", port["port"])] = "the API server"
        return result

    async def _write(self, service: Object, wanted: list[str]) -> None:
        balancer = {"ingress": [{"ip": address} for address in wanted]} if wanted else {}
        status = {**(service.get("status") or {}), "loadBalancer": balancer}
        try:
            written = await self.client.update_status(SERVICES, {**service, "status": status})
        except StatusError as error:
            if error.reason not in ("Conflict", "NotFound"):
                message = (
                    f"Error syncing load balancer: failed to update load balancer status: {error}"
                )
                self._tell(service, WARNING, "SyncLoadBalancerFailed", message)
            raise
        await self.seen(SERVICES, written)

    def _tell(self, service: Object, type: str, reason: str, message: str) -> None:
        self.recorder.event(SERVICES, service, type, reason, message)
