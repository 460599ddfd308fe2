"""Where a container sees the pod's volumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wherry.kube.api.kinds import fields
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.podspec import paths

Spec = Mapping[str, Any]

_PROPAGATIONS = ("Bidirectional", "HostToContainer", "None")
_RECURSIVE = ("Disabled", "Enabled", "IfPossible")


def check_mounts(container: Spec, volumes: Mapping[str, Spec], path: str, faults: Faults) -> None:
    """Faults of ``volumeMounts`` and ``volumeDevices``; ``volumes`` are the pod's, by name."""
    mounts, devices = container.get("volumeMounts") or (), container.get("volumeDevices") or ()
    devices_by_name = {d.get("name", ""): d.get("devicePath", "") for d in devices}
    mounts_by_name = {m.get("name", ""): m.get("mountPath", "") for m in mounts}
    taken: set[str] = set()
    for index, mount in enumerate(mounts):
        where = f"{path}.volumeMounts[{index}]"
        name, target = mount.get("name", ""), mount.get("mountPath", "")
        if not name:
            faults.append(fields.required(f"{where}.name"))
        if name not in volumes:
            faults.append(fields.not_found(f"{where}.name", name))
        if not target:
            faults.append(fields.required(f"{where}.mountPath"))
        if target in taken:
            faults.append(fields.invalid(f"{where}.mountPath", target, "must be unique"))
        taken.add(target)
        if devices_by_name:
            _check_overlap(mount, where, "mountPath", devices_by_name, "volumeDevices", faults)
        _check_sub_path(mount, where, f"{path}.volumeMounts", faults)
        _check_propagation(mount, container, f"{path}.volumeMounts", faults)
    names: set[str] = set()
    targets: set[str] = set()
    for index, device in enumerate(devices):
        where = f"{path}.volumeDevices[{index}]"
        name, target = device.get("name", ""), device.get("devicePath", "")
        if not name:
            faults.append(fields.required(f"{where}.name"))
        if name in names:
            faults.append(fields.invalid(f"{where}.name", name, "must be unique"))
        if name not in volumes:
            faults.append(fields.not_found(f"{where}.name", name))
        elif not volumes[name].keys() & {"persistentVolumeClaim", "ephemeral"}:
            why = (
                "can only use volume source type of PersistentVolumeClaim or Ephemeral "
                "for block mode"
            )
            faults.append(fields.invalid(f"{where}.name", name, why))
        if not target:
            faults.append(fields.required(f"{where}.devicePath"))
        if target in targets:
            faults.append(fields.invalid(f"{where}.devicePath", target, "must be unique"))
        if ".." in target.split("/"):
            why = "can not contain backsteps ('..')"
            faults.append(fields.invalid(f"{where}.devicePath", target, why))
        else:
            targets.add(target)
        _check_overlap(device, where, "devicePath", mounts_by_name, "volumeMounts", faults)
        names.add(name)


def _check_overlap(
    item: Spec, path: str, target: str, others: Mapping[str, str], kind: str, faults: Faults
) -> None:
    if (name := item.get("name", "")) in others:
        why = f"must not already exist in {kind}"
        faults.append(fields.invalid(f"{path}.name", name, why))
    if (value := item.get(target, "")) in others.values():
        why = f"must not already exist as a path in {kind}"
        faults.append(fields.invalid(f"{path}.{target}", value, why))


def _check_sub_path(mount: Spec, path: str, mounts: str, faults: Faults) -> None:
    if sub_path := mount.get("subPath"):
        paths.check_local_descending(sub_path, f"{mounts}.subPath", faults)
    if expression := mount.get("subPathExpr"):
        if sub_path:
            why = "subPathExpr and subPath are mutually exclusive"
            faults.append(fields.invalid(f"{path}.subPathExpr", expression, why))
        paths.check_local_descending(expression, f"{mounts}.subPathExpr", faults)


def _check_propagation(mount: Spec, container: Spec, path: str, faults: Faults) -> None:
    propagation = mount.get("mountPropagation")
    if propagation is not None:
        where = f"{path}.mountPropagation"
        if propagation not in _PROPAGATIONS:
            faults.append(fields.not_supported(where, propagation, _PROPAGATIONS))
        privileged = (container.get("securityContext") or {}).get("privileged")
        if propagation == "Bidirectional" and not privileged:
            why = "Bidirectional mount propagation is available only to privileged containers"
            faults.append(fields.forbidden(where, why))
    recursive = mount.get("recursiveReadOnly")
    if recursive is None or recursive == "Disabled":
        return
    where = f"{path}.recursiveReadOnly"
    if recursive not in _RECURSIVE:
        faults.append(fields.not_supported(where, recursive, _RECURSIVE))
        return
    if not mount.get("readOnly"):
        faults.append(fields.forbidden(where, "may only be specified when readOnly is true"))
    if propagation not in (None, "None"):
        why = "may only be specified when mountPropagation is None or not specified"
        faults.append(fields.forbidden(where, why))
