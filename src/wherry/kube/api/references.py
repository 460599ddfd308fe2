"""Which other objects a pod or a volume needs: what its node must be able to read.

Upstream: pkg/api/v1/pod and pkg/api/v1/persistentvolume, the visitors of names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from wherry.kube.api.pods import all_containers

Object = Mapping[str, Any]

_SECRET_REFS = ("cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos")
"""Kinds of volumes whose ``secretRef`` names a Secret."""

_CSI_SECRET_REFS = (
    "controllerPublishSecretRef",
    "nodeStageSecretRef",
    "nodePublishSecretRef",
    "controllerExpandSecretRef",
    "nodeExpandSecretRef",
)


@dataclass(frozen=True, slots=True)
class References:
    """Names of objects in the pod's own namespace."""

    secrets: frozenset[str]
    config_maps: frozenset[str]
    claims: frozenset[str]
    resource_claims: frozenset[str]
    service_account: str


def of_pod(pod: Object) -> References:
    """What a pod refers to."""
    spec = pod.get("spec") or {}
    name = (pod.get("metadata") or {}).get("name", "")
    volumes = spec.get("volumes") or ()
    return References(
        frozenset(_some(_secrets(spec, volumes))),
        frozenset(_some(_config_maps(spec, volumes))),
        frozenset(_some(_claims(name, volumes))),
        frozenset(_some(_resource_claims(pod, spec))),
        spec.get("serviceAccountName") or "",
    )


def secrets_of_volume(volume: Object) -> set[tuple[str, str]]:
    """Namespace and name of the Secrets a PersistentVolume needs; where it gives no namespace it
    is that of the claim."""
    spec = volume.get("spec") or {}
    home = (spec.get("claimRef") or {}).get("namespace", "")
    refs: list[Object] = []
    if azure := spec.get("azureFile"):
        refs.append({"name": azure.get("secretName"), "namespace": azure.get("secretNamespace")})
    refs += [(spec.get(kind) or {}).get("secretRef") or {} for kind in _SECRET_REFS]
    csi = spec.get("csi") or {}
    refs += [csi.get(field) or {} for field in _CSI_SECRET_REFS]
    return {(ref.get("namespace") or home, ref["name"]) for ref in refs if ref.get("name")}


def _some(names: Iterable[str | None]) -> Iterator[str]:
    return (name for name in names if name)


def _secrets(spec: Object, volumes: Iterable[Object]) -> Iterator[str | None]:
    for ref in spec.get("imagePullSecrets") or ():
        yield ref.get("name")
    yield from _from_environment(spec, "secretRef", "secretKeyRef")
    for volume in volumes:
        yield (volume.get("secret") or {}).get("secretName")
        yield (volume.get("azureFile") or {}).get("secretName")
        for kind in _SECRET_REFS:
            if source := volume.get(kind):
                yield (source.get("secretRef") or {}).get("name")
        if csi := volume.get("csi"):
            yield (csi.get("nodePublishSecretRef") or {}).get("name")
        yield from _projected(volume, "secret")


def _config_maps(spec: Object, volumes: Iterable[Object]) -> Iterator[str | None]:
    yield from _from_environment(spec, "configMapRef", "configMapKeyRef")
    for volume in volumes:
        yield (volume.get("configMap") or {}).get("name")
        yield from _projected(volume, "configMap")


def _from_environment(spec: Object, whole: str, key: str) -> Iterator[str | None]:
    for container in all_containers(spec):
        for source in container.get("envFrom") or ():
            yield (source.get(whole) or {}).get("name")
        for variable in container.get("env") or ():
            yield ((variable.get("valueFrom") or {}).get(key) or {}).get("name")


def _projected(volume: Object, kind: str) -> Iterator[str | None]:
    for source in (volume.get("projected") or {}).get("sources") or ():
        yield (source.get(kind) or {}).get("name")


def _claims(pod: str, volumes: Iterable[Object]) -> Iterator[str | None]:
    for volume in volumes:
        yield (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if volume.get("ephemeral"):
            yield f"{pod}-{volume.get('name', '')}"


def _resource_claims(pod: Object, spec: Object) -> Iterator[str | None]:
    for claim in spec.get("resourceClaims") or ():
        yield claim.get("resourceClaimName")
    status = pod.get("status") or {}
    for made in status.get("resourceClaimStatuses") or ():
        yield made.get("resourceClaimName")
    yield (status.get("extendedResourceClaimStatus") or {}).get("resourceClaimName")
