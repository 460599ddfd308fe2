"""The provisioner of the default class: a volume is a directory on the node where its pod runs.

The directory is made by the kubelet when the first pod mounts it; the binder has it removed.
"""

from __future__ import annotations

import posixpath
from typing import Final

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import (
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    STORAGE_CLASSES,
)
from wherry.kube.api.volume_matching import (
    PROVISIONED_BY,
    SELECTED_NODE,
    class_of,
    waits_for_consumer,
)
from wherry.kube.client.recorder import NORMAL, WARNING, reference
from wherry.kube.client.transport import Object
from wherry.kube.controllers.base import Context, Controller, split_key

PROVISIONER: Final = "wherry.io/local-path"
_HOST_NAME: Final = "kubernetes.io/hostname"
_ASKED: Final = "volume.kubernetes.io/storage-provisioner"


def is_due(claim: Object, storage_class: Object | None) -> bool:
    """Whether a volume is to be made for the claim now, by us."""
    if storage_class is None or storage_class["provisioner"] != PROVISIONER:
        return False
    if claim["spec"].get("volumeName") or meta.is_deleting(claim):
        return False
    annotations = meta.annotations(claim)
    if annotations.get(_ASKED) != PROVISIONER:
        return False
    return not waits_for_consumer(storage_class) or SELECTED_NODE in annotations


def make_volume(claim: Object, storage_class: Object, node: Object, directory: str) -> Object:
    """The volume for the claim, a directory below ``directory`` of the node."""
    name = f"pvc-{meta.uid(claim)}"
    leaf = f"{name}_{meta.namespace(claim)}_{meta.name(claim)}"
    host_name = meta.labels(node).get(_HOST_NAME, meta.name(node))
    here = {"key": _HOST_NAME, "operator": "In", "values": [host_name]}
    spec: Object = {
        "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
        "accessModes": claim["spec"].get("accessModes") or ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy") or "Delete",
        "storageClassName": class_of(claim),
        "volumeMode": "Filesystem",
        "hostPath": {"path": posixpath.join(directory, leaf), "type": "DirectoryOrCreate"},
        "claimRef": reference(PERSISTENT_VOLUME_CLAIMS, claim),
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
    }
    if storage_class.get("mountOptions"):
        spec["mountOptions"] = storage_class["mountOptions"]
    metadata = {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec}


def refusal(claim: Object) -> str:
    """Why no directory can serve the claim; empty where one can."""
    if claim["spec"].get("volumeMode") == "Block":
        return "a directory cannot be a block volume"
    shared = set(claim["spec"].get("accessModes") or ()) & {"ReadOnlyMany", "ReadWriteMany"}
    if shared:
        return "NodePath only supports ReadWriteOnce and ReadWriteOncePod (1.22+) access modes"
    if claim["spec"].get("selector"):
        return "claim.Spec.Selector is not supported"
    return ""


class LocalPathProvisioner(Controller):
    """Makes volumes for claims of classes with our provisioner. Keys are claims."""

    name = "local-path-provisioner"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.recorder = context.recorder(PROVISIONER)
        self.claims = self.watch(PERSISTENT_VOLUME_CLAIMS)
        self.classes = self.watch(STORAGE_CLASSES)
        self.nodes = self.watch(NODES)
        self.volumes = self.watch(PERSISTENT_VOLUMES)
        self.claims.add_handlers(on_add=self.enqueue, on_update=self.enqueue_update)

    async def sync(self, key: str) -> None:
        claim = self.claims.get(*split_key(key))
        if claim is None:
            return
        storage_class = self.classes.get(None, class_of(claim)) if class_of(claim) else None
        if not is_due(claim, storage_class):
            return
        assert storage_class is not None
        if self.volumes.get(None, f"pvc-{meta.uid(claim)}") is not None:
            return
        why = refusal(claim)
        name = meta.annotations(claim).get(SELECTED_NODE)
        nodes = [self.nodes.get(None, name)] if name else self.nodes.list()
        node = next((n for n in nodes if n is not None), None)
        if node is None:
            why = why or f'node "{name or ""}" not found'
        if why:
            text = f'failed to provision volume with StorageClass "{class_of(claim)}": {why}'
            self.recorder.event(
                PERSISTENT_VOLUME_CLAIMS, claim, WARNING, "ProvisioningFailed", text
            )
            return
        assert node is not None
        text = f'External provisioner is provisioning volume for claim "{key}"'
        self.recorder.event(PERSISTENT_VOLUME_CLAIMS, claim, NORMAL, "Provisioning", text)
        body = make_volume(claim, storage_class, node, self.options.volumes)
        try:
            made = await self.client.create(PERSISTENT_VOLUMES, body)
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise
            return
        text = f"Successfully provisioned volume {meta.name(made)}"
        self.recorder.event(PERSISTENT_VOLUME_CLAIMS, claim, NORMAL, "ProvisioningSucceeded", text)
        await self.seen(PERSISTENT_VOLUMES, made)
