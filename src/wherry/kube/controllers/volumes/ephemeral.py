"""Ephemeral volumes: a pod whose volume says ``ephemeral`` gets a claim of its own for it.

The claim is the pod's, so it goes with the pod, and with it what was provisioned
(https://kubernetes.io/docs/concepts/storage/ephemeral-volumes/#generic-ephemeral-volumes).
"""

from __future__ import annotations

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import PERSISTENT_VOLUME_CLAIMS, PODS
from wherry.kube.client.recorder import WARNING
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, Controller, namespace_is_leaving, split_key
from wherry.kube.controllers.ownership import controller_reference


def volumes(pod: Object) -> list[Object]:
    """Its ephemeral volumes."""
    return [volume for volume in pod["spec"].get("volumes") or () if volume.get("ephemeral")]


def claim_name(pod: Object, volume: Object) -> str:
    return f"{meta.name(pod)}-{volume['name']}"


def claim_for(pod: Object, volume: Object) -> Object:
    """The claim of one of the pod's ephemeral volumes."""
    template = volume["ephemeral"]["volumeClaimTemplate"]
    given = template.get("metadata") or {}
    metadata: Object = {
        "name": claim_name(pod, volume),
        "namespace": meta.namespace(pod),
        "ownerReferences": [controller_reference(pod, PODS)],
    }
    for part in ("labels", "annotations"):
        if given.get(part):
            metadata[part] = given[part]
    return {
        "apiVersion": PERSISTENT_VOLUME_CLAIMS.api_version,
        "kind": PERSISTENT_VOLUME_CLAIMS.kind,
        "metadata": metadata,
        "spec": template["spec"],
    }


class EphemeralVolumeController(Controller):
    """Makes the claims of ephemeral volumes. Keys are pods."""

    name = "ephemeral-volume-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.recorder = context.recorder("ephemeral_volume")
        self._waiting: dict[str, str] = {}
        """Pods whose claim's name is taken by another claim, by that claim's key."""
        self.pods = self.watch(PODS)
        self.claims = self.watch(PERSISTENT_VOLUME_CLAIMS)
        self.pods.add_handlers(on_add=self._pod_added)
        self.claims.add_handlers(on_delete=self._claim_gone)

    def _pod_added(self, pod: Object) -> None:
        if volumes(pod):
            self.enqueue(pod)

    def _claim_gone(self, claim: Object) -> None:
        waiting = self._waiting.pop(meta.key(claim), None)
        if waiting is not None:
            self.queue.add(waiting)
        owner = meta.controller_of(claim)
        if owner is not None and owner.get("kind") == PODS.kind:
            self.queue.add(f"{meta.namespace(claim)}/{owner['name']}")

    async def sync(self, key: str) -> None:
        pod = self.pods.get(*split_key(key))
        if pod is None or meta.is_deleting(pod):
            return
        for volume in volumes(pod):
            claim = self.claims.get(meta.namespace(pod), claim_name(pod, volume))
            try:
                await self._see_to(pod, volume, claim)
            except StatusError as error:
                if namespace_is_leaving(error):
                    return
                message = f"ephemeral volume {volume['name']}: {error}"
                self.recorder.event(PODS, pod, WARNING, "FailedBinding", message)
                raise

    async def _see_to(self, pod: Object, volume: Object, claim: Object | None) -> None:
        if claim is None:
            try:
                made = await self.client.create(PERSISTENT_VOLUME_CLAIMS, claim_for(pod, volume))
            except StatusError as error:
                if error.reason != "AlreadyExists":
                    raise
                claim = await self.client.get(
                    PERSISTENT_VOLUME_CLAIMS, claim_name(pod, volume), meta.namespace(pod)
                )
            else:
                await self.seen(PERSISTENT_VOLUME_CLAIMS, made)
                return
        if not meta.is_controlled_by(claim, pod):
            # Another's claim of that name: the pod waits until it is gone.
            message = (
                f"PVC {meta.key(claim)} was not created for pod {meta.key(pod)} (pod is not owner)"
            )
            self.recorder.event(
                PODS, pod, WARNING, "FailedBinding", f"ephemeral volume {volume['name']}: {message}"
            )
            self._waiting[meta.key(claim)] = meta.key(pod)
