"""Claims and volumes that are being deleted go when nobody uses them any more.

Admission gives every claim and volume a finalizer (StorageObjectInUseProtection); here it is taken
off: of a claim when no pod that has a node names it, of a volume when no claim is bound to it.
https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import (
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    Resource,
)
from wherry.kube.client.client import Client
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, Controller, split_key

_CLAIM = "kubernetes.io/pvc-protection"
_VOLUME = "kubernetes.io/pv-protection"


def claims_of(pod: Object) -> Iterator[str]:
    """The keys of the claims a pod uses: those it names, and those made for it."""
    for volume in pod["spec"].get("volumes") or ():
        if claim := volume.get("persistentVolumeClaim"):
            yield f"{meta.namespace(pod)}/{claim['claimName']}"
        elif volume.get("ephemeral") is not None:
            yield f"{meta.namespace(pod)}/{meta.name(pod)}-{volume['name']}"


def in_use(pods: Iterable[Object]) -> bool:
    """Whether any of those that name a claim has a node: before, none can have mounted it."""
    return any(pod["spec"].get("nodeName") for pod in pods)


def released(o: Object, finalizer: str) -> Object | None:
    """The object without the finalizer, or None where that is not there or not due."""
    finalizers = o["metadata"].get("finalizers") or []
    if not meta.is_deleting(o) or finalizer not in finalizers:
        return None
    kept = [each for each in finalizers if each != finalizer]
    return {**o, "metadata": {**o["metadata"], "finalizers": kept}}


async def _release(client: Client, resource: Resource, o: Object, finalizer: str) -> None:
    freed = released(o, finalizer)
    if freed is None:
        return
    try:
        await client.update(resource, freed)
    except StatusError as error:
        if error.code != 404:
            raise


class ClaimProtectionController(Controller):
    """Keys are claims."""

    name = "persistentvolumeclaim-protection-controller"
    account = "pvc-protection-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.claims = self.watch(PERSISTENT_VOLUME_CLAIMS)
        self.pods = self.watch(PODS)
        self.pods.add_indexer("claim", lambda pod: tuple(claims_of(pod)))
        self.claims.add_handlers(on_add=self._deleting, on_update=lambda _, c: self._deleting(c))
        self.pods.add_handlers(on_delete=self._pod_gone)

    def _deleting(self, claim: Object) -> None:
        if meta.is_deleting(claim):
            self.enqueue(claim)

    def _pod_gone(self, pod: Object) -> None:
        for key in claims_of(pod):
            self.queue.add(key)

    async def sync(self, key: str) -> None:
        claim = self.claims.get(*split_key(key))
        if claim is None or in_use(self.pods.by_index("claim", key)):
            return
        if released(claim, _CLAIM) is None or await self._is_in_use(key):
            return
        await _release(self.client, PERSISTENT_VOLUME_CLAIMS, claim, _CLAIM)

    async def _is_in_use(self, key: str) -> bool:
        """By what the API has: news of a pod may still be on their way to us, and what is on a
        volume is lost when its claim goes."""
        namespace, _ = split_key(key)
        listed = await self.client.list(PODS, namespace)
        return in_use(pod for pod in listed["items"] if key in claims_of(pod))


class VolumeProtectionController(Controller):
    """Keys are volumes."""

    name = "persistentvolume-protection-controller"
    account = "pv-protection-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.volumes = self.watch(PERSISTENT_VOLUMES)
        self.volumes.add_handlers(on_add=self._deleting, on_update=lambda _, v: self._deleting(v))

    def _deleting(self, volume: Object) -> None:
        if meta.is_deleting(volume):
            self.enqueue(volume)

    async def sync(self, key: str) -> None:
        volume = self.volumes.get(*split_key(key))
        if volume is None or (volume.get("status") or {}).get("phase") == "Bound":
            return
        await _release(self.client, PERSISTENT_VOLUMES, volume, _VOLUME)
