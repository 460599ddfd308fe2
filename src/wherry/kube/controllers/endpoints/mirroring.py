"""The loop around ``mirrored.reconcile``."""

from __future__ import annotations

from collections.abc import Iterable

from wherry.kube.api import meta
from wherry.kube.api.endpoint_slices import SERVICE_NAME
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import ENDPOINT_SLICES, ENDPOINTS, SERVICES
from wherry.kube.client.recorder import WARNING
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, Controller, split_key
from wherry.kube.controllers.endpoints import mirrored, slices
from wherry.kube.controllers.endpoints.writing import write


def _mirror_of(slice: Object) -> Iterable[str]:
    """Indexer: the key of the Endpoints object a slice of ours mirrors."""
    labels = meta.labels(slice)
    if labels.get(slices.MANAGED_BY) == mirrored.MANAGER and labels.get(SERVICE_NAME):
        yield f"{meta.namespace(slice)}/{labels[SERVICE_NAME]}"


class EndpointSliceMirroringController(Controller):
    """Keeps the slices of Endpoints objects that are somebody's own."""

    name = "endpointslice-mirroring-controller"
    account = "endpointslicemirroring-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.recorder = context.recorder("endpoint-slice-mirroring-controller")
        self.services = self.watch(SERVICES)
        self.endpoints = self.watch(ENDPOINTS)
        self.slices = self.watch(ENDPOINT_SLICES)
        self.slices.add_indexer("mirror of", _mirror_of)
        self.services.add_handlers(
            on_add=self._service_changed,
            on_update=self._service_updated,
            on_delete=self._service_changed,
        )
        self.endpoints.add_handlers(
            on_add=self.enqueue, on_update=self.enqueue_update, on_delete=self.enqueue
        )
        self.slices.add_handlers(on_update=self._slice_updated, on_delete=self._slice_gone)

    def _service_updated(self, old: Object, new: Object) -> None:
        if bool(old["spec"].get("selector")) != bool(new["spec"].get("selector")):
            self.enqueue(new)

    def _service_changed(self, service: Object) -> None:
        if self.endpoints.get(meta.namespace(service), meta.name(service)) is not None:
            self.enqueue(service)

    def _slice_updated(self, old: Object, new: Object) -> None:
        for key in {*_mirror_of(old), *_mirror_of(new)}:
            self.queue.add(key)

    def _slice_gone(self, slice: Object) -> None:
        for key in _mirror_of(slice):
            self.queue.add(key)

    async def sync(self, key: str) -> None:
        endpoints = self.endpoints.get(*split_key(key))
        existing = self.slices.by_index("mirror of", key)
        if endpoints is None or not mirrored.is_mirrored(
            endpoints, self.services.get(*split_key(key))
        ):
            if existing:
                await write(self, slices.Changes(delete=existing))
            return
        mirror = mirrored.Mirror(endpoints)
        changes = mirrored.reconcile(endpoints, mirror, existing)
        if not (changes.create or changes.update or changes.delete):
            return
        if mirror.invalid:
            count = len(mirror.invalid)
            message = f"Skipped {count} invalid IP addresses when mirroring to EndpointSlices"
            self.recorder.event(ENDPOINTS, endpoints, WARNING, "InvalidIPAddress", message)
        if mirror.left_out:
            message = (
                f"A max of {mirrored.MOST} addresses can be mirrored to EndpointSlices per "
                f"Endpoints subset. {mirror.left_out} addresses were skipped"
            )
            self.recorder.event(ENDPOINTS, endpoints, WARNING, "TooManyAddressesToMirror", message)
        try:
            await write(self, changes)
        except StatusError as error:
            if error.reason != "Conflict":
                message = f"Error updating Endpoint Slices for Endpoints {key}: {error}"
                reason = "FailedToUpdateEndpointSlices"
                self.recorder.event(ENDPOINTS, endpoints, WARNING, reason, message)
            raise
