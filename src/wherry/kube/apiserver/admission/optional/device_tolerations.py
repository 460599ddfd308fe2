"""ExtendedResourceToleration: a pod that asks for a device may go where only such pods may."""

from __future__ import annotations

from wherry.kube.api.kinds.podspec.resources import is_extended
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context


def admit(attributes: Attributes, context: Context) -> None:
    spec = attributes.new["spec"]
    devices = {
        name
        for field in ("containers", "initContainers")
        for container in spec.get(field) or ()
        for name in (container.get("resources") or {}).get("requests") or ()
        if is_extended(name)
    }
    for device in sorted(devices):
        toleration = {"key": device, "operator": "Exists", "effect": "NoSchedule"}
        present = spec.get("tolerations") or []
        if toleration not in present:
            spec["tolerations"] = [*present, toleration]
