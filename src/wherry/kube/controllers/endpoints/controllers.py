"""The loops around ``slices.reconcile`` and ``legacy.reconcile``."""

from __future__ import annotations

from collections.abc import Iterable

from wherry.kube.api import meta
from wherry.kube.api.endpoint_slices import SERVICE_NAME
from wherry.kube.api.errors import StatusError
from wherry.kube.api.pods import is_ready
from wherry.kube.api.quantity import to_milli
from wherry.kube.api.resources import ENDPOINT_SLICES, ENDPOINTS, NODES, PODS, SERVICES
from wherry.kube.client.recorder import NORMAL, WARNING
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, Controller, namespace_is_leaving, split_key
from wherry.kube.controllers.endpoints import backends, hints, legacy, slices
from wherry.kube.controllers.endpoints.writing import write

_ZONE = "topology.kubernetes.io/zone"
_LOCK = "control-plane.alpha.kubernetes.io/leader"  # elections were held on Endpoints once


class _ServiceController(Controller):
    """What both have in common: Services, and the pods their selectors take."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.recorder = context.recorder(self.name)
        self.triggers = backends.TriggerTimes()
        self.services = self.watch(SERVICES)
        self.pods = self.watch(PODS)
        self.services.add_handlers(
            on_add=self.enqueue, on_update=self.enqueue_update, on_delete=self.enqueue
        )
        self.pods.add_handlers(
            on_add=self._pod_changed, on_update=self._pod_updated, on_delete=self._pod_changed
        )

    def _pod_changed(self, *states: Object) -> None:
        for service in self.services.list(meta.namespace(states[0])):
            if any(backends.takes(service, pod) for pod in states):
                self.enqueue(service)

    def _pod_updated(self, old: Object, new: Object) -> None:
        if meta.labels(old) != meta.labels(new):
            self._pod_changed(old, new)
        elif backends.concern(old) != backends.concern(new):
            self._pod_changed(new)

    def _selected(self, service: Object) -> list[Object]:
        in_namespace = self.pods.list(meta.namespace(service))
        return [pod for pod in in_namespace if backends.takes(service, pod)]


class EndpointSliceController(_ServiceController):
    """Keeps the EndpointSlices of every Service that has a selector."""

    name = "endpointslice-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.slices = self.watch(ENDPOINT_SLICES)
        self.slices.add_indexer("service", _service_of)
        self.slices.add_handlers(on_update=self._slice_updated, on_delete=self._slice_gone)
        self.nodes = self.watch(NODES)
        self.nodes.add_handlers(
            on_add=self._node_changed, on_update=self._node_updated, on_delete=self._node_changed
        )

    def _slice_updated(self, old: Object, new: Object) -> None:
        for key in {*_service_of(old), *_service_of(new)}:
            self.queue.add(key)

    def _slice_gone(self, slice: Object) -> None:
        for key in _service_of(slice):
            self.queue.add(key)

    def _node_updated(self, old: Object, new: Object) -> None:
        if meta.labels(old).get(_ZONE) != meta.labels(new).get(_ZONE):
            self._node_changed(new)
        elif _capacity(old) != _capacity(new):
            self._node_changed(new, zone=False)

    def _node_changed(self, node: Object, zone: bool = True) -> None:
        """Its zone is part of the endpoints on it, and its CPUs are of the automatic hints."""
        everyone = zone and meta.labels(node).get(_ZONE)
        for service in self.services.list():
            if everyone or hints.is_automatic(service):
                self.enqueue(service)

    async def sync(self, key: str) -> None:
        service = self.services.get(*split_key(key))
        if service is None or meta.is_deleting(service):
            self.triggers.forget(key)
            return  # its slices go with it, by their owner references
        if service["spec"].get("type") == "ExternalName" or not service["spec"].get("selector"):
            return
        selected = self._selected(service)
        changes = slices.reconcile(
            service,
            selected,
            self._zones(selected),
            self.slices.by_index("service", key),
            self.triggers.observe(service, selected),
            self._cpus() if hints.is_automatic(service) else None,
        )
        try:
            await write(self, changes)
        except StatusError as error:
            if error.reason != "Conflict":
                message = f"Error updating Endpoint Slices for Service {key}: {error}"
                reason = "FailedToUpdateEndpointSlices"
                self.recorder.event(SERVICES, service, WARNING, reason, message)
            raise
        for reason, message in changes.told:
            type = NORMAL if reason.endswith("Enabled") else WARNING
            self.recorder.event(SERVICES, service, type, reason, message)

    def _cpus(self) -> dict[str, float]:
        """Of the ready nodes by zone, but for those of the control plane; nothing where a node does
        not tell its zone or its CPUs."""
        result: dict[str, float] = {}
        for node in self.nodes.list():
            zone, (counts, cpus) = meta.labels(node).get(_ZONE), _capacity(node)
            if not counts:
                continue
            if not zone or not cpus:
                return {}
            result[zone] = result.get(zone, 0.0) + cpus
        return result

    def _zones(self, selected: Iterable[Object]) -> dict[str, str]:
        names = {pod["spec"].get("nodeName") or "" for pod in selected}
        nodes = ((name, self.nodes.get(None, name)) for name in names)
        return {name: meta.labels(node).get(_ZONE, "") for name, node in nodes if node is not None}


_CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")


def _capacity(node: Object) -> tuple[bool, float]:
    """Whether the node is ready and for pods, and how many CPUs it has to give."""
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    controls = any(role in meta.labels(node) for role in _CONTROL_PLANE)
    return is_ready(node) and not controls, to_milli(allocatable.get("cpu") or 0) / 1000


def _service_of(slice: Object) -> Iterable[str]:
    """Indexer: the key of the Service a slice of ours belongs to."""
    labels = meta.labels(slice)
    if labels.get(slices.MANAGED_BY) == slices.MANAGER and labels.get(SERVICE_NAME):
        yield f"{meta.namespace(slice)}/{labels[SERVICE_NAME]}"


class EndpointsController(_ServiceController):
    """Keeps the Endpoints object of every Service that has a selector."""

    name = "endpoints-controller"
    account = "endpoint-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.endpoints = self.watch(ENDPOINTS)
        self.endpoints.add_handlers(
            on_add=self._written,
            on_update=lambda _, endpoints: self._written(endpoints),
            on_delete=self.enqueue,
        )

    def _written(self, endpoints: Object) -> None:
        """Ours may have lost their Service while nobody watched; those that a user makes by hand
        may well be there before their Service is."""
        ours = meta.labels(endpoints).get(legacy.MANAGED_BY) == legacy.MANAGER
        if ours or self.services.get(meta.namespace(endpoints), meta.name(endpoints)) is not None:
            self.enqueue(endpoints)

    async def sync(self, key: str) -> None:
        namespace, name = split_key(key)
        service = self.services.get(namespace, name)
        existing = self.endpoints.get(namespace, name)
        if service is None:
            self.triggers.forget(key)
            if existing is not None and _LOCK not in meta.annotations(existing):
                await self._delete(existing)
            return
        if not service["spec"].get("selector") or service["spec"].get("type") == "ExternalName":
            return
        selected = self._selected(service)
        trigger = self.triggers.observe(service, selected)
        wanted = legacy.reconcile(service, selected, existing, trigger)
        if wanted is None:
            return
        try:
            if existing is None:
                written = await self.client.create(ENDPOINTS, wanted)
            else:
                written = await self.client.update(ENDPOINTS, wanted)
        except StatusError as error:
            if namespace_is_leaving(error):
                return
            if error.reason not in ("Conflict", "AlreadyExists"):
                doing = "create" if existing is None else "update"
                message = f"Failed to {doing} endpoint {key}: {error}"
                reason = f"FailedTo{doing.capitalize()}Endpoint"
                self.recorder.event(SERVICES, service, WARNING, reason, message)
            raise
        await self.seen(ENDPOINTS, written)

    async def _delete(self, endpoints: Object) -> None:
        try:
            await self.client.delete(
                ENDPOINTS, meta.name(endpoints), meta.namespace(endpoints), uid=meta.uid(endpoints)
            )
        except StatusError as error:
            if error.code != 404:
                raise
