"""The resources of aggregated API servers, for controllers that concern themselves with all there
are.

The APIServices are watched: what a server serves is asked of it when it becomes available, and its
resources are followed from then on. As long as one is not available nobody can say what it holds;
``unknown`` names these group versions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from wherry.kube.api import conditions, meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import API_SERVICES, Resource
from wherry.kube.client.client import Client
from wherry.kube.client.informer import Informer, SharedInformers
from wherry.kube.client.transport import Object

log = logging.getLogger(__name__)

_AGAIN = 5.0  # seconds until a server that did not say what it serves is asked again


def resources_of(group: str, version: str, listed: Object) -> list[Resource]:
    """The resources of an APIResourceList, without what is below them."""
    return [
        Resource(
            group,
            version,
            entry["kind"],
            entry["name"],
            entry.get("singularName") or entry["kind"].lower(),
            bool(entry.get("namespaced")),
            "",
            verbs=tuple(sorted(entry.get("verbs") or ())),
            storage_prefix=f"{group}/{entry['name']}",
        )
        for entry in listed.get("resources") or ()
        if "/" not in entry["name"]
    ]


class AggregatedResources:
    """Calls ``join`` and ``leave`` as aggregated resources come and go, and ``changed`` when
    ``unknown`` does.

    Args:
        services: the informer of APIServices.
        informers: where a resource's informer ends with it.
    """

    def __init__(
        self,
        services: Informer,
        client: Client,
        informers: SharedInformers,
        *,
        join: Callable[[Resource], None],
        leave: Callable[[Resource], None],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        assert services.resource == API_SERVICES
        self._client = client
        self._informers = informers
        self._join, self._leave, self._changed = join, leave, changed
        self._known: dict[str, list[Resource]] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self.unknown: dict[str, str] = {}
        """By APIService, the group version of which nobody knows what there is."""
        services.add_handlers(
            on_add=self._put, on_update=lambda _, o: self._put(o), on_delete=self._drop
        )

    def _put(self, o: Object) -> None:
        name, spec = meta.name(o), o.get("spec") or {}
        if spec.get("service") is None or not spec.get("group"):
            self._drop(o)
            return
        found = conditions.find((o.get("status") or {}).get("conditions") or (), "Available")
        if found is None or found.get("status") != "True":
            self._stop_asking(name)
            self.unknown[name] = f"{spec['group']}/{spec['version']}"
        elif name not in self._asking and (name in self.unknown or name not in self._known):
            self.unknown[name] = f"{spec['group']}/{spec['version']}"
            asking = self._ask(name, spec["group"], spec["version"])
            self._asking[name] = asyncio.get_running_loop().create_task(asking)

    def _drop(self, o: Object) -> None:
        name = meta.name(o)
        self._stop_asking(name)
        for resource in self._known.pop(name, ()):
            self._end(resource)
        if self.unknown.pop(name, None) is not None:
            self._changed()

    def _stop_asking(self, name: str) -> None:
        task = self._asking.pop(name, None)
        if task is not None:
            task.cancel()

    async def _ask(self, name: str, group: str, version: str) -> None:
        path = f"/apis/{group}/{version}"
        while True:
            try:
                listed = await self._client.transport.request("GET", path)
                break
            except (StatusError, ConnectionError) as error:
                log.info("%s: what it serves is not to be had: %s", name, error)
                await asyncio.sleep(_AGAIN)
        before = self._known.get(name, [])
        now = resources_of(group, version, listed)
        self._known[name] = now
        for resource in before:
            if resource not in now:
                self._end(resource)
        for resource in now:
            if resource not in before:
                self._join(resource)
        del self._asking[name]
        del self.unknown[name]
        self._changed()

    def _end(self, resource: Resource) -> None:
        self._leave(resource)
        self._informers.drop(resource)
