"""CustomResourceDefinitions at work: what they define is served as soon as they are stored.

The catalogue changes within the event that tells of a definition, before anybody else sees it, so a
client that has been told of an established definition can use it. What a definition's status says,
and the removal of instances of one that is deleted, is written by one task behind.

What makes kinds of definitions is loaded when there is the first.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from wherry.kube.api.catalogue import Catalogue
from wherry.kube.api.errors import StatusError
from wherry.kube.api.meta import is_deleting
from wherry.kube.api.resources import CUSTOM_RESOURCE_DEFINITIONS, Resource
from wherry.kube.apiserver.cache import Cache, Event, ResourceCache
from wherry.kube.client.transport import Transport

log = logging.getLogger(__name__)

Object = dict[str, Any]

_AGAIN = 1.0  # seconds until something that failed is tried again


class Definitions:
    """Follows the definitions. ``follow`` serves those that are there; ``start`` begins to write.

    Args:
        transport: as whom statuses are written and instances removed.
    """

    def __init__(self, catalogue: Catalogue, cache: Cache, transport: Transport) -> None:
        self._catalogue = catalogue
        self._cache = cache
        self._transport = transport
        self._served: dict[str, tuple[object, ...]] = {}
        self._emptied: set[Resource] = set()
        self._concerned: dict[str, None] = {}
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def _definitions(self) -> ResourceCache:
        return self._cache.of(CUSTOM_RESOURCE_DEFINITIONS)

    def follow(self) -> None:
        """Serve what is defined, from now on."""
        self._definitions.listen(self._changed)
        for stored in self._definitions.list():
            self._serve(stored.object)

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _changed(self, event: Event) -> None:
        if event.current is not None:
            self._serve(event.current.object)
        else:
            self._served.pop(event.key, None)
            self._catalogue.replace(event.key, ())
            for stored in self._definitions.list():  # a name may have become free
                self._concern(stored.key)

    def _serve(self, crd: Object) -> None:
        from wherry.kube.api.custom.definition import kinds_of

        name = crd["metadata"]["name"]
        self._concern(name)
        status = crd.get("status") or {}
        kinds = kinds_of(crd)
        state = (
            crd["metadata"]["uid"],
            crd["metadata"].get("generation"),
            bool(kinds),
            is_deleting(crd),
            repr(status.get("acceptedNames")),
        )
        if self._served.get(name) != state:
            self._served[name] = state
            self._catalogue.replace(name, kinds)

    def _concern(self, name: str) -> None:
        self._concerned[name] = None
        self._news.set()

    # --- writing --------------------------------------------------------------------------------

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._news.wait()
            self._news.clear()
            names, self._concerned = list(self._concerned), {}
            for name in names:
                try:
                    await self._reconcile(name)
                except (StatusError, ConnectionError) as error:
                    if not (isinstance(error, StatusError) and error.code in (404, 409)):
                        log.warning("custom resource definition %s: %s", name, error)
                    loop.call_later(_AGAIN, self._concern, name)
                except Exception:
                    log.exception("custom resource definition %s", name)

    async def _reconcile(self, name: str) -> None:
        from wherry.kube.api.custom.definition import FINALIZER, status_of

        found = self._definitions.get("", name)
        if found is None:
            return
        crd = found.object
        group = crd["spec"]["group"]
        others = [
            stored.object
            for stored in self._definitions.list()
            if stored.key != name and stored.object["spec"]["group"] == group
        ]
        status = status_of(crd, others)
        if status != crd.get("status"):
            path = CUSTOM_RESOURCE_DEFINITIONS.path(None, name, "status")
            await self._transport.request("PUT", path, body={**crd, "status": status})
            return  # its event brings us here again
        if is_deleting(crd) and FINALIZER in (crd["metadata"].get("finalizers") or ()):
            await self._clean_up(crd)

    async def _clean_up(self, crd: Object) -> None:
        """Delete the instances; when there are none left, let the definition go."""
        from wherry.kube.api.custom.definition import FINALIZER, kinds_of

        name = crd["metadata"]["name"]
        kinds = kinds_of(crd)
        if kinds:
            resource = kinds[0].resource
            instances = self._cache.of(resource)
            if resource not in self._emptied:
                self._emptied.add(resource)
                instances.listen(lambda event: self._concern(name))
            present = [stored.object for stored in instances.list()]
            if present:
                alive = [o for o in present if not is_deleting(o)]
                served = next((k.resource for k in kinds if not k.resource.hidden), resource)
                for namespace in {o["metadata"].get("namespace", "") for o in alive}:
                    await self._transport.request("DELETE", served.path(namespace or None))
                return
            self._emptied.discard(resource)
        metadata = crd["metadata"]
        finalizers = [f for f in metadata["finalizers"] if f != FINALIZER]
        await self._transport.request(
            "PUT",
            CUSTOM_RESOURCE_DEFINITIONS.path(None, name),
            body={**crd, "metadata": {**metadata, "finalizers": finalizers}},
        )
