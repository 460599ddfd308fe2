"""PersistentVolumes.

Upstream: pkg/apis/core/v1/defaults.go, pkg/apis/core/validation/validation.go and
pkg/registry/core/persistentvolume/strategy.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from wherry.kube.api import names
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import access_modes, checks, fields
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.durations import age
from wherry.kube.api.kinds.equality import difference, equal
from wherry.kube.api.kinds.persistent_volume_claim import storage_class
from wherry.kube.api.kinds.podspec import resources
from wherry.kube.api.kinds.podspec.paths import check_no_backsteps
from wherry.kube.api.kinds.podspec.scheduling import check_node_selector
from wherry.kube.api.meta import now as time_now
from wherry.kube.api.quantity import ZERO

_SOURCES = (
    *("hostPath", "gcePersistentDisk", "awsElasticBlockStore", "glusterfs", "flocker", "nfs"),
    *("rbd", "quobyte", "cephfs", "iscsi", "cinder", "fc", "flexVolume", "azureFile"),
    *("vsphereVolume", "photonPersistentDisk", "portworxVolume", "azureDisk", "scaleIO"),
    *("local", "storageos", "csi"),
)
_NEEDED = {
    "hostPath": ("path",),
    "nfs": ("server", "path"),
    "glusterfs": ("endpoints", "path"),
    "rbd": ("monitors", "image"),
    "cephfs": ("monitors",),
    "iscsi": ("targetPortal", "iqn"),
    "cinder": ("volumeID",),
    "gcePersistentDisk": ("pdName",),
    "awsElasticBlockStore": ("volumeID",),
    "flexVolume": ("driver",),
    "azureFile": ("secretName", "shareName"),
    "vsphereVolume": ("volumePath",),
    "photonPersistentDisk": ("pdID",),
    "portworxVolume": ("volumeID",),
    "azureDisk": ("diskURI", "diskName"),
    "scaleIO": ("gateway", "system", "volumeName"),
    "local": ("path",),
    "csi": ("driver", "volumeHandle"),
}
_RECLAIM_POLICIES = ("Delete", "Recycle", "Retain")
_VOLUME_MODES = ("Block", "Filesystem")
_ONE_TYPE = "may not specify more than 1 volume type"


class PersistentVolume(Kind):
    """Storage that outlives the pods which use it."""

    columns = (
        NAME_COLUMN,
        Column("Capacity", description="Its size."),
        Column("Access Modes", description="How it may be used."),
        Column("Reclaim Policy", description="What happens to it after its claim is gone."),
        Column("Status", description="Available, Bound, Released, Failed or Pending."),
        Column("Claim", description="The claim it is bound to."),
        Column("StorageClass", description="Its class of storage."),
        Column("VolumeAttributesClass", description="Its class of attributes."),
        Column("Reason", description="Why it is in that state."),
        AGE_COLUMN,
        Column("VolumeMode", description="Filesystem or Block.", priority=1),
    )
    field_names = frozenset({"name"})

    def default(self, o: Object) -> None:
        status, spec = o.setdefault("status", {}), o.setdefault("spec", {})
        if not status.get("phase"):
            status["phase"] = "Pending"
        if not spec.get("persistentVolumeReclaimPolicy"):
            spec["persistentVolumeReclaimPolicy"] = "Retain"
        spec.setdefault("volumeMode", "Filesystem")
        resources.canonicalize(spec.get("capacity"))
        if (source := spec.get("hostPath")) is not None:
            source.setdefault("type", "")
        if (source := spec.get("iscsi")) is not None:
            source.setdefault("iscsiInterface", "default")

    def initial_status(self, o: Object) -> Object:
        return {"phase": "Pending", "lastPhaseTransitionTime": time_now()}

    def prepare_status_update(self, new: Object, old: Object) -> None:
        super().prepare_status_update(new, old)
        status, before = new.get("status") or {}, old.get("status") or {}
        if status.get("phase") != before.get("phase"):
            moved = status.get("lastPhaseTransitionTime")
            if moved in (None, before.get("lastPhaseTransitionTime")):
                new["status"] = {**status, "lastPhaseTransitionTime": time_now()}

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        spec = o.get("spec") or {}
        if not (modes := spec.get("accessModes") or ()):
            faults.append(fields.required("spec.accessModes"))
        access_modes.check(modes, "spec.accessModes", faults)
        _check_capacity(spec.get("capacity") or {}, faults)
        if policy := spec.get("persistentVolumeReclaimPolicy"):
            where = "spec.persistentVolumeReclaimPolicy"
            checks.one_of(policy, _RECLAIM_POLICIES, where, faults)
        _check_source(spec, faults)
        if (affinity := spec.get("nodeAffinity")) is not None:
            if affinity.get("required") is None:
                why = "must specify required node constraints"
                faults.append(fields.required("spec.nodeAffinity.required", why))
            else:
                check_node_selector(affinity["required"], "spec.nodeAffinity.required", faults)
        if (spec.get("hostPath") or {}).get("path") == "/" and policy == "Recycle":
            why = "may not be 'recycle' for a hostPath mount of '/'"
            faults.append(fields.forbidden("spec.persistentVolumeReclaimPolicy", why))
        if name := spec.get("storageClassName"):
            checks.dns_subdomain(name, "spec.storageClassName", faults)
        if (mode := spec.get("volumeMode")) is not None and mode not in _VOLUME_MODES:
            faults.append(fields.not_supported("spec.volumeMode", mode, _VOLUME_MODES))
        if name := spec.get("volumeAttributesClassName"):
            checks.dns_subdomain(name, "spec.volumeAttributesClassName", faults)
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        faults = self.validate_body(new)
        after, before = new.get("spec") or {}, old.get("spec") or {}
        was, source = ({k: s[k] for k in _SOURCES if k in s} for s in (before, after))
        if not equal(source, was):
            shown = "\n".join(difference(was, source))
            why = f"spec.persistentvolumesource is immutable after creation\n{shown}\n"
            faults.append(fields.forbidden("spec.persistentvolumesource", why))
        faults += fields.immutable(
            "spec.volumeMode", after.get("volumeMode"), before.get("volumeMode")
        )
        if before.get("nodeAffinity") and not equal(
            after.get("nodeAffinity"), before["nodeAffinity"]
        ):
            shown_affinity = after.get("nodeAffinity")
            faults.append(fields.invalid("spec.nodeAffinity", shown_affinity, fields.IMMUTABLE))
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, spec, status = o["metadata"], o.get("spec") or {}, o.get("status") or {}
        claim = spec.get("claimRef") or {}
        phase = "Terminating" if meta.get("deletionTimestamp") else status.get("phase", "")
        return [
            meta.get("name", ""),
            (spec.get("capacity") or {}).get("storage", "0"),
            access_modes.short(spec.get("accessModes") or ()),
            spec.get("persistentVolumeReclaimPolicy", ""),
            phase,
            f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
            storage_class(o),
            spec.get("volumeAttributesClassName") or "<unset>",
            status.get("reason", ""),
            age(meta.get("creationTimestamp"), now),
            spec.get("volumeMode") or "<unset>",
        ]

    def selectable_fields(self, o: Object) -> dict[str, str]:
        values = super().selectable_fields(o)
        return {**values, "name": values["metadata.name"]}


def _check_capacity(capacity: Object, faults: Faults) -> None:
    if not capacity:
        faults.append(fields.required("spec.capacity"))
    if "storage" not in capacity or len(capacity) > 1:
        faults.append(fields.not_supported("spec.capacity", capacity, ("storage",)))
    for name, value in capacity.items():
        where = f"spec.capacity[{name}]"
        quantity = resources.check_quantity(name, value, where, faults)
        if quantity is not None and quantity <= ZERO:
            faults.append(fields.invalid(where, str(quantity), "must be greater than zero"))


def _check_source(spec: Object, faults: Faults) -> None:
    given = [kind for kind in _SOURCES if kind in spec]
    if not given:
        faults.append(fields.required("spec", "must specify a volume type"))
        return
    for extra in given[1:]:
        faults.append(fields.forbidden(f"spec.{extra}", _ONE_TYPE))
    kind, source, path = given[0], spec[given[0]], f"spec.{given[0]}"
    for name in _NEEDED.get(kind, ()):
        if not source.get(name):
            faults.append(fields.required(f"{path}.{name}"))
    if kind in ("hostPath", "local"):
        check_no_backsteps(source.get("path", ""), f"{path}.path", faults)
    if kind == "nfs" and source.get("path") and not source["path"].startswith("/"):
        faults.append(fields.invalid(f"{path}.path", source["path"], "must be an absolute path"))
    if kind == "local" and not spec.get("nodeAffinity"):
        why = "Local volume requires node affinity"
        faults.append(fields.required("spec.nodeAffinity", why))
    if kind == "csi" and (driver := source.get("driver")):
        check_driver_name(driver, f"{path}.driver", faults)


def check_driver_name(driver: str, path: str, faults: Faults) -> None:
    """The name of a CSI driver: a domain name, of at most 63 bytes."""
    if not driver:
        faults.append(fields.required(path))
    if len(driver) > 63:
        faults.append(fields.too_long(path, 63))
    for message in names.is_dns1123_subdomain(driver.lower()):
        faults.append(fields.invalid(path, driver, message))
