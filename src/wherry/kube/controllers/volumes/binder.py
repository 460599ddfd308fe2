"""The loop around ``binding``: claims get volumes, volumes that lost their claim are reclaimed."""

from __future__ import annotations

from collections.abc import Iterable

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import (
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    STORAGE_CLASSES,
    Resource,
)
from wherry.kube.api.volume_matching import (
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    PROVISIONED_BY,
    class_of,
    requested,
    size,
)
from wherry.kube.client.recorder import NORMAL, WARNING, reference
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, Controller, split_key
from wherry.kube.controllers.storage_protection import claims_of
from wherry.kube.controllers.volumes import local_path, scrubbing
from wherry.kube.controllers.volumes.binding import decide_claim, decide_volume

_VOLUME = "volume "
"""Begins the keys of volumes; all others are claims."""

_PROVISIONERS = (
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/storage-provisioner",
)


def _claim_key(volume: Object) -> Iterable[str]:
    wanted = volume["spec"].get("claimRef")
    return (f"{wanted.get('namespace')}/{wanted.get('name')}",) if wanted else ()


class VolumeBinderController(Controller):
    """Binds claims and volumes to each other, one to one."""

    name = "persistentvolume-binder-controller"
    account = "persistent-volume-binder"
    workers = 1
    """Two claims must not choose one volume: choices are made one after the other."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.recorder = context.recorder("persistentvolume-controller")
        self.volumes = self.watch(PERSISTENT_VOLUMES)
        self.volumes.add_indexer("claim", _claim_key)
        self.claims = self.watch(PERSISTENT_VOLUME_CLAIMS)
        self.classes = self.watch(STORAGE_CLASSES)
        self.pods = self.watch(PODS)
        self.pods.add_indexer("claim", lambda pod: tuple(claims_of(pod)))
        self.claims.add_handlers(
            on_add=self._claim_changed,
            on_update=lambda _, claim: self._claim_changed(claim),
            on_delete=self._claim_changed,
        )
        self.volumes.add_handlers(
            on_add=self._volume_changed,
            on_update=lambda _, volume: self._volume_changed(volume),
            on_delete=self._volume_gone,
        )
        self.classes.add_handlers(on_add=self._class_changed)
        self.pods.add_handlers(
            on_add=self._pod_came, on_update=scrubbing.when_ended(self._scrubbed)
        )
        self._scrubber = scrubbing.Scrubber(self.client, self.pods, self.recorder)

    # -- what concerns whom

    def _claim_changed(self, claim: Object) -> None:
        self.enqueue(claim)
        name = claim["spec"].get("volumeName")
        if name:
            self.queue.add(_VOLUME + name)
        for volume in self.volumes.by_index("claim", meta.key(claim)):
            self.queue.add(_VOLUME + meta.name(volume))

    def _volume_changed(self, volume: Object) -> None:
        self.queue.add(_VOLUME + meta.name(volume))
        if (volume.get("status") or {}).get("phase") == "Available":
            self._retry(class_of(volume))

    def _volume_gone(self, volume: Object) -> None:
        for key in _claim_key(volume):
            self.queue.add(key)

    def _class_changed(self, storage_class: Object) -> None:
        self._retry(meta.name(storage_class))

    def _pod_came(self, pod: Object) -> None:
        for key in claims_of(pod):
            claim = self.claims.get(*split_key(key))
            if claim is not None and not claim["spec"].get("volumeName"):
                self.queue.add(key)

    def _retry(self, name: str) -> None:
        """Look again at the claims of a class that have no volume."""
        for claim in self.claims.list():
            if not claim["spec"].get("volumeName") and class_of(claim) == name:
                self.enqueue(claim)

    def _scrubbed(self, volume: str) -> None:
        self.queue.add(_VOLUME + volume)

    # -- acting

    async def sync(self, key: str) -> None:
        if key.startswith(_VOLUME):
            volume = self.volumes.get(None, key.removeprefix(_VOLUME))
            if volume is not None:
                await self._sync_volume(volume)
            return
        claim = self.claims.get(*split_key(key))
        if claim is not None:
            await self._sync_claim(claim)

    async def _sync_claim(self, claim: Object) -> None:
        name = claim["spec"].get("volumeName")
        chosen = self.volumes.get(None, name) if name else None
        storage_class = self.classes.get(None, class_of(claim)) if class_of(claim) else None
        waiting = [
            pod
            for pod in self.pods.by_index("claim", meta.key(claim))
            if not pod["spec"].get("nodeName")
        ]
        step = decide_claim(claim, self.volumes.list(), chosen, storage_class, waiting)
        for event in step.events:
            self.recorder.event(PERSISTENT_VOLUME_CLAIMS, claim, *event)
        if step.bind is not None:
            await self._bind(step.bind, claim, storage_class)
            return
        if step.provision:
            assert storage_class is not None
            claim = await self._provision(claim, storage_class)
        if step.phase and (claim.get("status") or {}).get("phase") != step.phase:
            status = {**(claim.get("status") or {}), "phase": step.phase}
            await self._write_status(PERSISTENT_VOLUME_CLAIMS, claim, status)

    async def _bind(self, volume: Object, claim: Object, storage_class: Object | None) -> None:
        """Make the two point to each other: the volume first, so that nobody else takes it."""
        wanted = volume["spec"].get("claimRef")
        if wanted is None or wanted.get("uid") != meta.uid(claim):
            metadata = volume["metadata"]
            if wanted is None:
                metadata = _annotated(volume, {BOUND_BY_CONTROLLER: "yes"})
            spec = {**volume["spec"], "claimRef": reference(PERSISTENT_VOLUME_CLAIMS, claim)}
            changed = {**volume, "metadata": metadata, "spec": spec}
            volume = await self._write(PERSISTENT_VOLUMES, changed)
        await self._set_phase(volume, "Bound")
        annotations = {BIND_COMPLETED: "yes"}
        if not claim["spec"].get("volumeName"):
            annotations[BOUND_BY_CONTROLLER] = "yes"
        named = claim["spec"].get("volumeName") == meta.name(volume)
        if not named or BIND_COMPLETED not in meta.annotations(claim):
            spec = {**claim["spec"], "volumeName": meta.name(volume)}
            changed = {**claim, "metadata": _annotated(claim, annotations), "spec": spec}
            claim = await self._write(PERSISTENT_VOLUME_CLAIMS, changed)
        status = {
            **(claim.get("status") or {}),
            "phase": "Bound",
            "accessModes": volume["spec"].get("accessModes") or [],
        }
        status.setdefault("capacity", volume["spec"].get("capacity") or {})
        if status != (claim.get("status") or {}):
            claim = await self._write_status(PERSISTENT_VOLUME_CLAIMS, claim, status)
        if requested(claim) > size(volume):
            await self._expand(volume, claim, storage_class)

    async def _expand(self, volume: Object, claim: Object, storage_class: Object | None) -> None:
        """A directory is as large as its disk: the new size needs writing down alone."""
        if meta.annotations(volume).get(PROVISIONED_BY) != local_path.PROVISIONER:
            text = "waiting for an external controller to expand this PVC"
            self.recorder.event(PERSISTENT_VOLUME_CLAIMS, claim, NORMAL, "ExternalExpanding", text)
            return
        wanted = claim["spec"]["resources"]["requests"]["storage"]
        capacity = {**(volume["spec"].get("capacity") or {}), "storage": wanted}
        spec = {**volume["spec"], "capacity": capacity}
        await self._write(PERSISTENT_VOLUMES, {**volume, "spec": spec})
        status = {**(claim.get("status") or {}), "capacity": {"storage": wanted}}
        await self._write_status(PERSISTENT_VOLUME_CLAIMS, claim, status)
        text = "Require file system resize of volume on node is not needed"
        self.recorder.event(PERSISTENT_VOLUME_CLAIMS, claim, NORMAL, "VolumeResizeSuccessful", text)

    async def _provision(self, claim: Object, storage_class: Object) -> Object:
        """Have the class's provisioner make a volume for the claim, which is ours or another's."""
        provisioner = storage_class["provisioner"]
        wanted: dict[str, str] = dict.fromkeys(_PROVISIONERS, str(provisioner))
        if not wanted.items() <= meta.annotations(claim).items():
            changed = {**claim, "metadata": _annotated(claim, wanted)}
            claim = await self._write(PERSISTENT_VOLUME_CLAIMS, changed)
        if provisioner != local_path.PROVISIONER:
            text = (
                "Waiting for a volume to be created either by the external provisioner "
                f"'{provisioner}' or manually by the system administrator. If volume creation is "
                "delayed, please verify that the provisioner is running and correctly registered."
            )
            self.recorder.event(
                PERSISTENT_VOLUME_CLAIMS, claim, NORMAL, "ExternalProvisioning", text
            )
        return claim

    async def _sync_volume(self, volume: Object) -> None:
        wanted = volume["spec"].get("claimRef")
        claim = None
        if wanted is not None:
            claim = self.claims.get(wanted.get("namespace"), wanted.get("name") or "")
            if wanted.get("uid") and (claim is None or meta.uid(claim) != wanted["uid"]):
                claim = await self._fresh(wanted)
        step = decide_volume(volume, claim)
        if step.unbind:
            await self._unbind(volume)
            return
        phase = (volume.get("status") or {}).get("phase")
        if step.phase != phase and not (step.phase == "Released" and phase == "Failed"):
            volume = await self._set_phase(volume, step.phase)
        if step.claim:
            self.queue.add(step.claim)
        if step.reclaim:
            await self._reclaim(volume)

    async def _fresh(self, wanted: Object) -> Object | None:
        """The claim as the server has it: a volume is not reclaimed on the word of a copy."""
        try:
            return await self.client.get(
                PERSISTENT_VOLUME_CLAIMS, wanted["name"], wanted["namespace"]
            )
        except StatusError as error:
            if error.code == 404:
                return None
            raise

    async def _unbind(self, volume: Object) -> None:
        spec = dict(volume["spec"])
        annotations = dict(meta.annotations(volume))
        if annotations.pop(BOUND_BY_CONTROLLER, None):
            del spec["claimRef"]
        else:
            spec["claimRef"] = {
                k: v for k, v in spec["claimRef"].items() if k not in ("uid", "resourceVersion")
            }
        metadata = {**volume["metadata"], "annotations": annotations}
        changed = {**volume, "metadata": metadata, "spec": spec}
        volume = await self._write(PERSISTENT_VOLUMES, changed)
        await self._set_phase(volume, "Available")

    async def _reclaim(self, volume: Object) -> None:
        """Do with a released volume what its policy says."""
        policy = volume["spec"].get("persistentVolumeReclaimPolicy") or "Retain"
        if policy == "Retain" or (volume.get("status") or {}).get("phase") == "Failed":
            return
        provisioner = meta.annotations(volume).get(PROVISIONED_BY, "")
        if policy == "Delete" and provisioner not in ("", local_path.PROVISIONER):
            return  # its provisioner watches, too
        done = await self._scrubber.scrub(volume, remove=policy == "Delete")
        if done is None:
            return
        if done:
            kind = "VolumeFailedDelete" if policy == "Delete" else "VolumeFailedRecycle"
            self.recorder.event(PERSISTENT_VOLUMES, volume, WARNING, kind, done)
            status = {**(volume.get("status") or {}), "phase": "Failed", "message": done}
            await self._write_status(PERSISTENT_VOLUMES, volume, status)
        elif policy == "Delete":
            await self._delete(volume)
        else:
            text = "Volume recycled"
            self.recorder.event(PERSISTENT_VOLUMES, volume, NORMAL, "VolumeRecycled", text)
            await self._unbind(volume)

    async def _delete(self, volume: Object) -> None:
        try:
            await self.client.delete(PERSISTENT_VOLUMES, meta.name(volume), uid=meta.uid(volume))
        except StatusError as error:
            if error.code != 404:
                raise

    # -- writing

    async def _set_phase(self, volume: Object, phase: str) -> Object:
        old = volume.get("status") or {}
        if old.get("phase") == phase:
            return volume
        status = {k: v for k, v in old.items() if k not in ("message", "reason")}
        status.update(phase=phase, lastPhaseTransitionTime=meta.now())
        return await self._write_status(PERSISTENT_VOLUMES, volume, status)

    async def _write(self, resource: Resource, o: Object) -> Object:
        return await self.seen(resource, await self.client.update(resource, o))

    async def _write_status(self, resource: Resource, o: Object, status: Object) -> Object:
        body = {**o, "status": status}
        return await self.seen(resource, await self.client.update_status(resource, body))


def _annotated(o: Object, annotations: dict[str, str]) -> Object:
    metadata: Object = o["metadata"]
    return {**metadata, "annotations": {**(metadata.get("annotations") or {}), **annotations}}
