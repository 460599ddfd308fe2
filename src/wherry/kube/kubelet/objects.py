"""ConfigMaps and Secrets that pods of this node use, each watched as long as a pod needs it.

One watch an object, as nodes are allowed to read only what their own pods refer to
(https://kubernetes.io/docs/reference/access-authn-authz/node/). What says that it is immutable is
read once, and kept: not watching it is what it is immutable for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wherry.kube.api.resources import CLUSTER_TRUST_BUNDLES, CONFIG_MAPS, SECRETS
from wherry.kube.client.client import Client
from wherry.kube.client.informer import Informer
from wherry.kube.kubelet.volumes.sources import content

Object = dict[str, Any]
Reference = tuple[str, str, str]
"""Kind, namespace (of the pod, also for what has none), name."""

_RESOURCES = {
    "ConfigMap": CONFIG_MAPS,
    "Secret": SECRETS,
    "ClusterTrustBundle": CLUSTER_TRUST_BUNDLES,
}


def _scope(kind: str, namespace: str) -> str | None:
    return namespace if _RESOURCES[kind].namespaced else None


@dataclass(slots=True)
class _Watched:
    informer: Informer
    users: set[str] = field(default_factory=set)
    kept: Object | None = None  # immutable, and no longer watched


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
            watched = self._watched[reference]
            if watched.kept is None:
                await watched.informer.wait_synced()
                self._keep(reference, watched)

    def release(self, pod_uid: str) -> None:
        """The pod needs nothing any more."""
        for reference, watched in list(self._watched.items()):
            if pod_uid in watched.users:
                self._leave(reference, watched, pod_uid)

    def data(self, kind: str, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """The content of an object in use, None where it does not exist."""
        watched = self._watched.get((kind, namespace, name))
        if watched is None:
            return None
        object = watched.kept or watched.informer.get(_scope(kind, namespace), name)
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
            namespace=_scope(kind, namespace),
            field_selector=f"metadata.name={name}",
        )

        def changed(_object: Object, _new: Object | None = None) -> None:
            watched = self._watched.get(reference)
            if watched is not None and watched.kept is None:
                self._keep(reference, watched)
            for uid in list(watched.users) if watched is not None else ():
                self._on_change(uid)

        informer.add_handlers(on_add=changed, on_update=changed, on_delete=changed)
        informer.start()
        return informer

    def _keep(self, reference: Reference, watched: _Watched) -> None:
        """Stop watching what will not change."""
        kind, namespace, name = reference
        object = watched.informer.get(_scope(kind, namespace), name)
        if object is not None and object.get("immutable"):
            watched.kept = object
            self._stop(watched.informer)

    def _stop(self, informer: Informer) -> None:
        task = asyncio.get_running_loop().create_task(informer.stop())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _leave(self, reference: Reference, watched: _Watched, pod_uid: str) -> None:
        watched.users.discard(pod_uid)
        if not watched.users:
            del self._watched[reference]
            self._stop(watched.informer)
