"""Nodes.

Upstream: pkg/registry/core/node/strategy.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import checks, fields
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.durations import UNKNOWN, age
from wherry.kube.api.kinds.label_selectors import NONE
from wherry.kube.api.kinds.podspec import resources
from wherry.kube.api.kinds.podspec.scheduling import check_taints

_ROLE_PREFIX: Final = "node-role.kubernetes.io/"
_ROLE: Final = "kubernetes.io/role"


class Node(Kind):
    """A machine that runs pods."""

    columns = (
        NAME_COLUMN,
        Column("Status", description="Whether the node is ready, and takes new pods."),
        Column("Roles", description="The roles of the node, by its labels."),
        AGE_COLUMN,
        Column("Version", description="The version of its kubelet."),
        Column("Internal-IP", description="Its address inside the cluster.", priority=1),
        Column("External-IP", description="Its address outside.", priority=1),
        Column("OS-Image", description="Its operating system.", priority=1),
        Column("Kernel-Version", description="Its kernel.", priority=1),
        Column("Container-Runtime", description="What runs its containers.", priority=1),
    )
    field_names = frozenset({"spec.unschedulable"})

    def default(self, o: Object) -> None:
        spec = o.setdefault("spec", {})
        if spec.get("podCIDR") and not spec.get("podCIDRs"):
            spec["podCIDRs"] = [spec["podCIDR"]]
        elif spec.get("podCIDRs") and not spec.get("podCIDR"):
            spec["podCIDR"] = spec["podCIDRs"][0]
        status = o.get("status") or {}
        resources.canonicalize(status.get("capacity"))
        resources.canonicalize(status.get("allocatable"))
        if status.get("capacity") and not status.get("allocatable"):
            status["allocatable"] = dict(status["capacity"])

    def initial_status(self, o: Object) -> Object:
        """What the kubelet reports when it registers its node is taken."""
        return o.get("status") or {}

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        _check_capacity(o, faults)
        spec = o.get("spec") or {}
        # Upstream says metadata where it means spec.
        check_taints(spec.get("taints") or (), "metadata.taints", faults)
        ranges = spec.get("podCIDRs") or []
        for index, value in enumerate(ranges):
            checks.cidr(value, f"spec.podCIDRs[{index}]", faults)
        if not checks.one_per_family(ranges):
            why = "may specify no more than one CIDR for each IP family"
            faults.append(fields.invalid("spec.podCIDRs", ranges, why))
        for index, value in enumerate(ranges):
            if value in ranges[:index]:
                faults.append(fields.duplicate(f"spec.podCIDRs[{index}]", value))
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        _check_capacity(new, faults)
        _check_addresses(new, faults)
        spec, before = new.get("spec") or {}, old.get("spec") or {}
        if before.get("podCIDRs") and before["podCIDRs"] != spec.get("podCIDRs"):
            why = 'node updates may not change podCIDR except from "" to valid'
            faults.append(fields.forbidden("spec.podCIDRs", why))
        if before.get("providerID") and before["providerID"] != spec.get("providerID"):
            why = 'node updates may not change providerID except from "" to valid'
            faults.append(fields.forbidden("spec.providerID", why))
        check_taints(spec.get("taints") or (), "metadata.taints", faults)
        if spec.get("externalID", "") != before.get("externalID", ""):
            faults.append(fields.forbidden("spec.externalID", "may not be updated"))
        return faults

    def validate_status(self, new: Object, old: Object) -> list[FieldError]:
        return self.validate_change(new, old)

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, status = o["metadata"], o.get("status") or {}
        info = status.get("nodeInfo") or {}
        return [
            meta.get("name", ""),
            _state(o),
            ",".join(_roles(meta.get("labels") or {})) or NONE,
            age(meta.get("creationTimestamp"), now),
            info.get("kubeletVersion", ""),
            _address(status, "InternalIP"),
            _address(status, "ExternalIP"),
            info.get("osImage") or UNKNOWN,
            info.get("kernelVersion") or UNKNOWN,
            info.get("containerRuntimeVersion") or UNKNOWN,
        ]

    def selectable_fields(self, o: Object) -> dict[str, str]:
        values = super().selectable_fields(o)
        closed = (o.get("spec") or {}).get("unschedulable")
        values["spec.unschedulable"] = "true" if closed else "false"
        return values


def _check_capacity(o: Object, faults: Faults) -> None:
    status = o.get("status") or {}
    for kind in ("capacity", "allocatable"):
        for name, value in (status.get(kind) or {}).items():
            resources.check_quantity(name, value, f"status.{kind}.{name}", faults)


def _check_addresses(o: Object, faults: Faults) -> None:
    addresses = (o.get("status") or {}).get("addresses") or []
    for index, address in enumerate(addresses):
        if address in addresses[:index]:
            shown = fields.Struct(Type=address.get("type", ""), Address=address.get("address", ""))
            faults.append(fields.duplicate(f"status.addresses[{index}]", shown))


def _state(o: Object) -> str:
    state = "Unknown"
    for condition in (o.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Ready":
            state = "Ready" if condition.get("status") == "True" else "NotReady"
    closed = (o.get("spec") or {}).get("unschedulable")
    return f"{state},SchedulingDisabled" if closed else state


def _roles(labels: dict[str, str]) -> list[str]:
    roles = {key.removeprefix(_ROLE_PREFIX) for key in labels if key.startswith(_ROLE_PREFIX)}
    return sorted((roles | {labels.get(_ROLE, "")}) - {""})


def _address(status: Object, kind: str) -> str:
    for address in status.get("addresses") or ():
        if address.get("type") == kind:
            return str(address.get("address", ""))
    return NONE
