"""Emptying and removing the directories of volumes, by pods on the nodes that have them.

As upstream's recycler does; what is not a directory of a node's, or not one that we made, cannot be
removed by us.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import Final

from wherry.kube.api import meta, pods
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import PERSISTENT_VOLUMES, PODS
from wherry.kube.api.volume_matching import PROVISIONED_BY
from wherry.kube.client.client import Client
from wherry.kube.client.informer import Informer
from wherry.kube.client.recorder import NORMAL, EventRecorder
from wherry.kube.client.transport import Object
from wherry.kube.controllers.volumes import local_path

NAMESPACE: Final = "kube-system"
LABEL: Final = "wherry.io/scrubs"
"""On a pod: the volume whose directory it empties."""
IMAGE: Final = "wherry.io/busybox:1"
"""Every node makes it from its own static busybox."""

_DELETABLE: Final = "/tmp/"  # noqa: S108 - a rule of upstream's, no file of ours
_DEADLINE: Final = 300  # seconds a pod may take; it is tried again then


def when_ended(tell: Callable[[str], None]) -> Callable[[Object, Object], None]:
    """An informer's ``on_update`` that tells the volume whose pod has ended."""

    def on_update(_: Object, pod: Object) -> None:
        volume = meta.labels(pod).get(LABEL)
        if volume and pods.is_finished(pod):
            tell(volume)

    return on_update


def refusal(volume: Object, *, remove: bool) -> str:
    """Why the volume cannot be scrubbed; empty where it can."""
    name, spec = meta.name(volume), volume["spec"]
    if not remove:
        if "hostPath" in spec or "nfs" in spec:
            return ""
        return f'no volume plugin matched the volume "{name}" that can be recycled'
    if "hostPath" not in spec:
        return (
            f'error getting deleter volume plugin for volume "{name}": '
            "no deletable volume plugin matched"
        )
    path = posixpath.normpath(spec["hostPath"].get("path") or "/")
    ours = meta.annotations(volume).get(PROVISIONED_BY) == local_path.PROVISIONER
    if ours or (path.startswith(_DELETABLE) and ".." not in path.split("/")):
        return ""
    return f"host_path deleter only supports /tmp/.+ but received provided {path}"


def make_pod(volume: Object, *, remove: bool) -> Object:
    """The pod that empties the volume, or removes its directory."""
    spec = volume["spec"]
    if remove:
        parent, leaf = posixpath.split(posixpath.normpath(spec["hostPath"]["path"]))
        source = {"hostPath": {"path": parent}}
        command = ["rm", "-rf", "--", f"/scrub/{leaf}"]
    else:
        source = {kind: spec[kind] for kind in ("hostPath", "nfs") if kind in spec}
        # Not every busybox has find's -delete.
        every = "find /scrub -mindepth 1 -maxdepth 1 -exec rm -rf -- {} +"
        script = f'{every} && test -z "$(ls -A /scrub)"'
        command = ["sh", "-c", script]
    pod: Object = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": _DEADLINE,
        "automountServiceAccountToken": False,
        "tolerations": [{"operator": "Exists"}],
        "volumes": [{"name": "volume", **source}],
        "containers": [
            {
                "name": "scrub",
                "image": IMAGE,
                "imagePullPolicy": "IfNotPresent",
                "command": command,
                "volumeMounts": [{"name": "volume", "mountPath": "/scrub"}],
            }
        ],
    }
    required = (spec.get("nodeAffinity") or {}).get("required")
    if required:
        demanded = {"requiredDuringSchedulingIgnoredDuringExecution": required}
        pod["affinity"] = {"nodeAffinity": demanded}
    verb = "remover" if remove else "recycler"
    metadata = {
        "name": f"{verb}-for-{meta.name(volume)}"[:253],
        "namespace": NAMESPACE,
        "labels": {LABEL: meta.name(volume)[:63]},
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}


class Scrubber:
    """Runs one pod for each volume that is to be scrubbed."""

    def __init__(self, client: Client, pods: Informer, recorder: EventRecorder) -> None:
        self._client = client
        self._pods = pods
        self._recorder = recorder

    async def scrub(self, volume: Object, *, remove: bool) -> str | None:
        """One step: None while it is under way, empty when it is done, else why it failed."""
        why = refusal(volume, remove=remove)
        if why:
            return why
        body = make_pod(volume, remove=remove)
        pod = self._pods.get(NAMESPACE, meta.name(body))
        if pod is None:
            await self._create(volume, body)
            return None
        if not pods.is_finished(pod):
            return None
        if not meta.is_deleting(pod):
            await self._delete(pod)
        if pods.phase(pod) == "Succeeded":
            return ""
        status = pod.get("status") or {}
        return status.get("message") or f"pod {meta.name(pod)} failed: {status.get('reason', '')}"

    async def _create(self, volume: Object, body: Object) -> None:
        try:
            made = await self._client.create(PODS, body)
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise
            return
        text = f"Recycler pod: {meta.name(made)} created"
        self._recorder.event(PERSISTENT_VOLUMES, volume, NORMAL, "RecyclerPod", text)
        await self._pods.reached(made)

    async def _delete(self, pod: Object) -> None:
        try:
            await self._client.delete(PODS, meta.name(pod), NAMESPACE, uid=meta.uid(pod))
        except StatusError as error:
            if error.code != 404:
                raise
