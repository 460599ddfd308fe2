"""Pods.

Upstream: pkg/registry/core/pod/strategy.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import fields, pod_aspects, pod_changes, pod_status, pod_table
from wherry.kube.api.kinds.base import Kind, Object
from wherry.kube.api.kinds.podspec import containers, resources, scheduling
from wherry.kube.api.kinds.podspec import spec as rules
from wherry.kube.api.kinds.podspec.defaults import default_pod
from wherry.kube.api.memo import Memo

_FAULTLESS: Memo[bool] = Memo()
"""Specs that were judged already. They are judged at every change of a pod, its binding too."""


class Pod(Kind):
    """A group of containers that live and die together on one node."""

    columns = pod_table.COLUMNS
    has_generation = True
    field_names = frozenset(
        {
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        }
    )

    def default(self, o: Object) -> None:
        default_pod(o.setdefault("spec", {}))
        pod_status.pair_addresses(o.get("status") or {})

    def prepare_create(self, o: Object) -> None:
        super().prepare_create(o)
        spec, labels = o.get("spec") or {}, o["metadata"].get("labels") or {}
        scheduling.merge_label_keys(spec, labels)

    def initial_status(self, o: Object) -> Object:
        spec = o.get("spec") or {}
        status: Object = {"phase": "Pending", "qosClass": resources.qos_class(spec)}
        if spec.get("schedulingGates"):
            status["conditions"] = [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "SchedulingGated",
                    "message": "Scheduling is blocked due to non-empty scheduling gates",
                }
            ]
        return status

    def prepare_status_update(self, new: Object, old: Object) -> None:
        super().prepare_status_update(new, old)
        pod_status.prepare(new, old)

    def validate_body(self, o: Object) -> list[FieldError]:
        faults = self._faults(o)
        spec = o.get("spec") or {}
        if spec.get("ephemeralContainers"):
            faults.append(fields.forbidden("spec.ephemeralContainers", "cannot be set on create"))
        if spec.get("nodeName") and spec.get("schedulingGates"):
            why = "cannot be set until all schedulingGates have been cleared"
            faults.append(fields.forbidden("spec.nodeName", why))
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        faults = self._faults(new)
        pod_changes.check(new, old, faults)
        return faults

    def validate_status(self, new: Object, old: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        pod_changes.check_annotations(new, old, faults)
        pod_status.check(new, old, faults)
        return faults

    def validate_ephemeral_update(self, new: Object, old: Object) -> list[FieldError]:
        """Faults of a change of the ephemeral containers."""
        faults = self._faults(new)
        pod_aspects.check_ephemeral(new, old, faults)
        return faults

    def validate_resize(self, new: Object, old: Object) -> list[FieldError]:
        """Faults of a change of the resources."""
        faults = self._faults(new)
        pod_aspects.check_resize(new, old, faults)
        return faults

    def _faults(self, o: Object) -> list[FieldError]:
        """What holds for new and changed pods alike."""
        faults: list[FieldError] = []
        meta, spec = o.get("metadata") or {}, o.get("spec") or {}
        if annotations := meta.get("annotations"):
            rules.check_annotations(annotations, spec, "metadata.annotations", faults)
        key = Memo.key(self, spec)
        if _FAULTLESS.get(key):
            return faults
        found: list[FieldError] = []
        rules.check_spec(spec, "spec", found, pod=meta.get("name", ""))
        for kind in ("containers", "initContainers"):
            for index, container in enumerate(spec.get(kind) or ()):
                containers.check_image_padding(container, f"spec.{kind}[{index}]", found)
        if not spec.get("serviceAccountName"):
            _refuse_tokens(spec, found)
        if not found and not any("ephemeral" in volume for volume in spec.get("volumes") or ()):
            _FAULTLESS.put(key, True)  # the claim of an ephemeral volume has the pod's name
        return faults + found

    def deletion_grace(self, o: Object, options: Object) -> int | None:
        """What the request says, else the pod's own grace; none for a pod that nowhere runs."""
        spec, phase = o.get("spec") or {}, (o.get("status") or {}).get("phase")
        if not spec.get("nodeName") or phase in ("Succeeded", "Failed"):
            return 0
        grace = options.get("gracePeriodSeconds")
        if grace is None:
            grace = spec.get("terminationGracePeriodSeconds") or 0
        return 1 if grace < 0 else int(grace)

    def row(self, o: Object, now: datetime) -> list[Any]:
        return pod_table.row(o, now)

    def selectable_fields(self, o: Object) -> dict[str, str]:
        values = super().selectable_fields(o)
        spec, status = o.get("spec") or {}, o.get("status") or {}
        addresses = [item.get("ip", "") for item in status.get("podIPs") or ()]
        values |= {
            "spec.nodeName": spec.get("nodeName", ""),
            "spec.restartPolicy": spec.get("restartPolicy", ""),
            "spec.schedulerName": spec.get("schedulerName", ""),
            "spec.serviceAccountName": spec.get("serviceAccountName", ""),
            "spec.hostNetwork": "true" if spec.get("hostNetwork") else "false",
            "status.phase": status.get("phase", ""),
            "status.podIP": addresses[0] if addresses else "",
            "status.podIPs": ",".join(addresses),
            "status.nominatedNodeName": status.get("nominatedNodeName", ""),
        }
        return values


def _refuse_tokens(spec: Object, faults: list[FieldError]) -> None:
    for index, volume in enumerate(spec.get("volumes") or ()):
        for at, source in enumerate((volume.get("projected") or {}).get("sources") or ()):
            if "serviceAccountToken" in source:
                where = f"spec.volumes[{index}].projected.sources[{at}].serviceAccountToken"
                why = "must not be specified when serviceAccountName is not set"
                faults.append(fields.forbidden(where, why))
