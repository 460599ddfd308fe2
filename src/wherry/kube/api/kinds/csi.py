"""CSIDrivers, CSINodes, CSIStorageCapacities and VolumeAttachments.

Upstream: pkg/apis/storage/v1/defaults.go and pkg/apis/storage/validation/validation.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import checks, fields
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.durations import age
from wherry.kube.api.kinds.equality import equal
from wherry.kube.api.kinds.persistent_volume import check_driver_name
from wherry.kube.api.kinds.podspec.resources import canonicalize_one, check_quantity

_DEFAULTS = {
    "attachRequired": True,
    "podInfoOnMount": False,
    "storageCapacity": False,
    "fsGroupPolicy": "ReadWriteOnceWithFSType",
    "requiresRepublish": False,
    "seLinuxMount": False,
}
_GROUP_POLICIES = ("File", "None", "ReadWriteOnceWithFSType")
_LIFECYCLES = ("Ephemeral", "Persistent")
_FIXED = ("attachRequired", "volumeLifecycleModes")


class CSIDriver(Kind):
    """A storage driver, and what it wants of Kubernetes."""

    unconditional_update = False
    has_generation = True
    columns = (
        NAME_COLUMN,
        Column("AttachRequired", "boolean", description="Its volumes must be attached first."),
        Column("PodInfoOnMount", "boolean", description="It is told of the pod at the mount."),
        Column("StorageCapacity", "boolean", description="It tells of its capacity."),
        Column("TokenRequests", description="Audiences of the tokens it gets."),
        Column("RequiresRepublish", "boolean", description="It is called again and again."),
        Column("Modes", description="Lives its volumes can have."),
        AGE_COLUMN,
    )

    def default(self, o: Object) -> None:
        spec = o.setdefault("spec", {})
        for name, value in _DEFAULTS.items():
            spec.setdefault(name, value)
        if not spec.get("volumeLifecycleModes"):
            spec["volumeLifecycleModes"] = ["Persistent"]

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        name, spec = o["metadata"].get("name", ""), o.get("spec") or {}
        if name:
            check_driver_name(name, "metadata.name", faults)
        policy = spec.get("fsGroupPolicy")
        checks.one_of(policy, _GROUP_POLICIES, "spec.fsGroupPolicy", faults)
        for index, mode in enumerate(spec.get("volumeLifecycleModes") or ()):
            where = f"spec.volumeLifecycleModes[{index}]"
            checks.one_of(mode, _LIFECYCLES, where, faults)
        seen: set[str] = set()
        for index, request in enumerate(spec.get("tokenRequests") or ()):
            where, audience = f"spec.tokenRequests[{index}]", request.get("audience", "")
            if audience in seen:
                faults.append(fields.duplicate(f"{where}.audience", audience))
            seen.add(audience)
            seconds = request.get("expirationSeconds")
            if seconds is not None and seconds < 600:
                why = "may not specify a duration less than 10 minutes"
                faults.append(fields.invalid(f"{where}.expirationSeconds", seconds, why))
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        faults = self.validate_body(new)
        after, before = new.get("spec") or {}, old.get("spec") or {}
        for name in _FIXED:
            if after.get(name) != before.get(name):
                faults.append(fields.invalid(f"spec.{name}", after.get(name), fields.IMMUTABLE))
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, spec = o["metadata"], o.get("spec") or {}
        audiences = [t.get("audience", "") for t in spec.get("tokenRequests") or ()]
        return [
            meta.get("name", ""),
            bool(spec.get("attachRequired", True)),
            bool(spec.get("podInfoOnMount")),
            bool(spec.get("storageCapacity")),
            ",".join(audiences) if audiences else "<unset>",
            bool(spec.get("requiresRepublish")),
            ",".join(spec.get("volumeLifecycleModes") or ()) or "<none>",
            age(meta.get("creationTimestamp"), now),
        ]


class CSINode(Kind):
    """The storage drivers on a node."""

    unconditional_update = False
    columns = (
        NAME_COLUMN,
        Column("Drivers", "integer", description="How many drivers there are."),
        AGE_COLUMN,
    )

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        seen: set[str] = set()
        for index, driver in enumerate((o.get("spec") or {}).get("drivers") or ()):
            where, name = f"spec.drivers[{index}]", driver.get("name", "")
            check_driver_name(name, f"{where}.name", faults)
            if not driver.get("nodeID"):
                faults.append(fields.required(f"{where}.nodeID"))
            if name in seen:
                faults.append(fields.duplicate(f"{where}.name", name))
            seen.add(name)
            count = (driver.get("allocatable") or {}).get("count", 0)
            faults += fields.non_negative(f"{where}.allocatable.count", count)
            for at, key in enumerate(driver.get("topologyKeys") or ()):
                checks.qualified_name(key, f"{where}.topologyKeys[{at}]", faults)
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, drivers = o["metadata"], (o.get("spec") or {}).get("drivers") or ()
        return [meta.get("name", ""), len(drivers), age(meta.get("creationTimestamp"), now)]


class CSIStorageCapacity(Kind):
    """How much room a class of storage has somewhere."""

    unconditional_update = False
    columns = (
        NAME_COLUMN,
        Column("StorageClassName", description="The class of storage."),
        Column("Capacity", description="The room there is."),
        AGE_COLUMN,
    )

    def default(self, o: Object) -> None:
        canonicalize_one(o, "capacity")
        canonicalize_one(o, "maximumVolumeSize")

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        name = o.get("storageClassName", "")
        checks.dns_subdomain(name, "storageClassName", faults)
        for field in ("capacity", "maximumVolumeSize"):
            if field in o:
                check_quantity("storage", o[field], field, faults)
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        faults = self.validate_body(new)
        for name in ("nodeTopology", "storageClassName"):
            if not equal(new.get(name), old.get(name)):
                faults.append(fields.invalid(name, new.get(name), fields.IMMUTABLE))
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta = o["metadata"]
        created = age(meta.get("creationTimestamp"), now)
        capacity = str(o.get("capacity", "<unset>"))
        return [meta.get("name", ""), o.get("storageClassName", ""), capacity, created]


class VolumeAttachment(Kind):
    """A volume that is, or is to be, attached to a node."""

    unconditional_update = False
    columns = (
        NAME_COLUMN,
        Column("Attacher", description="The driver that attaches it."),
        Column("PV", description="The volume."),
        Column("Node", description="The node."),
        Column("Attached", "boolean", description="Whether it is attached."),
        AGE_COLUMN,
    )

    def initial_status(self, o: Object) -> Object:
        return {"attached": False}

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        spec = o.get("spec") or {}
        check_driver_name(spec.get("attacher", ""), "spec.attacher", faults)
        source = spec.get("source") or {}
        inline, volume = source.get("inlineVolumeSpec"), source.get("persistentVolumeName")
        if inline is None and volume is None:
            why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
            faults.append(fields.required("spec.source", why))
        elif inline is not None and volume is not None:
            why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
            faults.append(fields.forbidden("spec.source", why))
        elif volume == "":
            faults.append(fields.required("spec.source.persistentVolumeName"))
        checks.node_name(spec.get("nodeName", ""), "spec.nodeName", faults)
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        faults = self.validate_body(new)
        if not equal(new.get("spec"), old.get("spec")):
            faults.append(fields.invalid("spec", new.get("spec"), fields.IMMUTABLE))
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, spec, status = o["metadata"], o.get("spec") or {}, o.get("status") or {}
        return [
            meta.get("name", ""),
            spec.get("attacher", ""),
            (spec.get("source") or {}).get("persistentVolumeName", ""),
            spec.get("nodeName", ""),
            bool(status.get("attached")),
            age(meta.get("creationTimestamp"), now),
        ]
