"""ConfigMaps and Secrets that pods of this node use, each watched as long as a pod needs it.

One watch an object, as nodes are allowed to read only what their own pods refer to
(https://kubernetes.io/docs/reference/access-authn-authz/node/).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wherry.kube.api.resources import CONFIG_MAPS, SECRETS
from wherry.kube.client.client import Client
from wherry.kube.client.informer import Informer
from wherry.kube.kubelet.volumes.sources import content

Object = dict[str, Any]
Reference = tuple[str, str, str]
"""Kind (ConfigMap or Secret), namespace, name."""

_RESOURCES = {"ConfigMap": CONFIG_MAPS, "Secret": SECRETS}


@dataclass(slots=True)
class _Watched:
    informer: Informer
    users: set[str] = field(default_factory=set)


class ObjectCache:
    """The objects in use; ``on_change`` hears the uid of each pod that uses one that changed."""

    def __init__(self, client: Client, *, on_change: Callable[[str], None]) -> None:
        self._client = client
        self._on_change = on_change
        self._watched: dict[Reference, _Watched] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def use(self, pod_uid: str, references: Iterable[Reference]) -> None:
        """Watch exactly ``references`` for this pod; returns when all of them were looked up."""
        wanted = set(references)
        for reference, watched in list(self._watched.items()):
            if pod_uid in watched.users and reference not in wanted:
                self._leave(reference, watched, pod_uid)
        for reference in wanted:
            found = self._watched.get(reference)
            if found is None:
                found = self._watched[reference] = _Watched(self._watch(reference))
            found.users.add(pod_uid)
        for reference in wanted:
            await self._watched[reference].informer.wait_synced()

    def release(self, pod_uid: str) -> None:
        """The pod needs nothing any more."""
        for reference, watched in list(self._watched.items()):
            if pod_uid in watched.users:
                self._leave(reference, watched, pod_uid)

    def data(self, kind: str, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """The content of an object in use, None where it does not exist."""
        watched = self._watched.get((kind, namespace, name))
        object = watched.informer.get(namespace, name) if watched is not None else None
        return None if object is None else content(kind, object)

    async def close(self) -> None:
        """End all watches."""
        for watched in self._watched.values():
            await watched.informer.stop()
        self._watched.clear()
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _watch(self, reference: Reference) -> Informer:
        kind, namespace, name = reference
        informer = Informer(
            self._client,
            _RESOURCES[kind],
            namespace=namespace,
            field_selector=f"metadata.name={name}",
        )

        def changed(_object: Object, _new: Object | None = None) -> None:
            watched = self._watched.get(reference)
            for uid in list(watched.users) if watched is not None else ():
                self._on_change(uid)

        informer.add_handlers(on_add=changed, on_update=changed, on_delete=changed)
        informer.start()
        return informer

    def _leave(self, reference: Reference, watched: _Watched, pod_uid: str) -> None:
        watched.users.discard(pod_uid)
        if not watched.users:
            del self._watched[reference]
            task = asyncio.get_running_loop().create_task(watched.informer.stop())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
