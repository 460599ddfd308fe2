"""Which PersistentVolume is behind a pod's claim.

A node may only get the claims and volumes of its own pods
(https://kubernetes.io/docs/reference/access-authn-authz/node/); what was found is kept as long as
the pod is here, as a bound claim stays with its volume.
"""

from __future__ import annotations

from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES
from wherry.kube.client.client import Client

Object = dict[str, Any]


class ClaimError(Exception):
    """The claim leads to no volume (yet); ``str()`` says why, in upstream's words."""


def claim_name(pod: Object, volume: Object) -> str | None:
    """The claim that ``volume`` of ``pod`` means; None where it means none."""
    if volume.get("persistentVolumeClaim"):
        return str(volume["persistentVolumeClaim"]["claimName"])
    if volume.get("ephemeral") is not None:
        return f"{meta.name(pod)}-{volume['name']}"
    return None


def check_claim(pod: Object, volume: Object, claim: Object, *, begun: bool) -> None:
    """Whether the pod may use its claim now. ``begun``: it has used it before.

    Raises:
        ClaimError: it may not.
    """
    if volume.get("ephemeral") is not None:
        owners = claim["metadata"].get("ownerReferences") or ()
        if not any(o.get("uid") == meta.uid(pod) and o.get("controller") for o in owners):
            raise ClaimError(
                f"PVC {meta.namespace(claim)}/{meta.name(claim)} was not created for pod "
                f"{meta.namespace(pod)}/{meta.name(pod)} (pod is not owner)"
            )
    if meta.is_deleting(claim) and not begun:
        raise ClaimError("PVC is being deleted")
    if (claim.get("status") or {}).get("phase") != "Bound":
        raise ClaimError("PVC is not bound")
    if not claim["spec"].get("volumeName"):
        raise ClaimError("PVC has empty pvc.Spec.VolumeName")


def check_volume(persistent: Object, claim: Object) -> None:
    """Whether the volume belongs to the claim.

    Raises:
        ClaimError: it does not.
    """
    name, reference = meta.name(persistent), persistent["spec"].get("claimRef")
    if not reference:
        raise ClaimError(
            f"found PV object {name} but it has a nil pv.Spec.ClaimRef indicating it is not yet "
            "bound to the claim"
        )
    if reference.get("uid") != meta.uid(claim):
        raise ClaimError(
            f"found PV object {name} but its pv.Spec.ClaimRef.UID {reference.get('uid')} does not "
            f"point to claim.UID {meta.uid(claim)}"
        )


def check_mode(pod: Object, volume: Object, persistent: Object) -> None:
    """Whether the containers use the volume for what it is: a file system or a device.

    Raises:
        ClaimError: one does not.
    """
    mode = persistent["spec"].get("volumeMode") or "Filesystem"
    wrong = "volumeDevices" if mode == "Filesystem" else "volumeMounts"
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in pod["spec"].get(kind) or ():
            if any(use["name"] == volume["name"] for use in container.get(wrong) or ()):
                name = volume["name"]
                text = f"volume {name} has volumeMode {mode}, but is specified in {wrong}"
                raise ClaimError(text)


class Claims:
    """The volumes behind the claims of this node's pods."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._found: dict[tuple[str, str], Object] = {}

    async def volume_of(self, pod: Object, volume: Object, *, begun: bool) -> Object:
        """The PersistentVolume behind ``volume``, a claim of ``pod``.

        Raises:
            ClaimError: there is none yet, or none for this pod.
            ConnectionError: the API cannot be reached.
        """
        key = (meta.uid(pod), volume["name"])
        if key in self._found:
            return self._found[key]
        name = claim_name(pod, volume)
        assert name is not None
        namespace = meta.namespace(pod)
        try:
            claim = await self._client.get(PERSISTENT_VOLUME_CLAIMS, name, namespace)
        except StatusError as error:
            raise ClaimError(
                f"error processing PVC {namespace}/{name}: failed to fetch PVC from API server: "
                f"{error.message}"
            ) from error
        try:
            check_claim(pod, volume, claim, begun=begun)
            persistent = await self._volume(claim)
        except ClaimError as error:
            raise ClaimError(f"error processing PVC {namespace}/{name}: {error}") from error
        check_mode(pod, volume, persistent)
        self._found[key] = persistent
        return persistent

    async def _volume(self, claim: Object) -> Object:
        name = claim["spec"]["volumeName"]
        try:
            persistent = await self._client.get(PERSISTENT_VOLUMES, name)
        except StatusError as error:
            text = f"failed to fetch PV {name} from API server: {error.message}"
            raise ClaimError(text) from error
        check_volume(persistent, claim)
        return persistent

    def release(self, pod_uid: str) -> None:
        """The pod has gone."""
        for key in [key for key in self._found if key[0] == pod_uid]:
            del self._found[key]
