"""StatefulSets.

Upstream: pkg/apis/apps/v1/defaults.go, pkg/apis/apps/validation/validation.go and
pkg/registry/apps/statefulset/strategy.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import counts, fields, metadata
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Object
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.durations import age
from wherry.kube.api.kinds.equality import equal
from wherry.kube.api.kinds.persistent_volume_claim import default_claim
from wherry.kube.api.kinds.replicated import (
    TEMPLATE_COLUMNS,
    Replicated,
    check_replicated_template,
    check_selector,
    template_cells,
)

_COUNTS = ("readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas")
_POLICIES = ("OrderedReady", "Parallel")
_RETENTION = ("Retain", "Delete")
_CHANGEABLE = frozenset(
    {
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    }
)
_FIXED = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
    "'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and "
    "'minReadySeconds' are forbidden"
)


class StatefulSet(Replicated):
    """Pods of one template that keep their names and their volumes."""

    columns = (
        NAME_COLUMN,
        Column("Ready", description="Pods that are ready, of those asked for."),
        AGE_COLUMN,
        *TEMPLATE_COLUMNS[:2],
    )
    status_counts = (*_COUNTS, "collisionCount")
    counts_within_replicas = _COUNTS
    ready_field = "status.readyReplicas"

    def name_messages(self, name: str, prefix: bool) -> list[str]:
        return metadata.dns_label(name, prefix)

    def default(self, o: Object) -> None:
        super().default(o)
        spec = o["spec"]
        if not spec.get("podManagementPolicy"):
            spec["podManagementPolicy"] = "OrderedReady"
        strategy = spec.setdefault("updateStrategy", {})
        if not strategy.get("type"):
            strategy["type"] = "RollingUpdate"
            strategy.setdefault("rollingUpdate", {})
        if strategy["type"] == "RollingUpdate" and "rollingUpdate" in strategy:
            strategy["rollingUpdate"].setdefault("partition", 0)
        retention = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
        for moment in ("whenDeleted", "whenScaled"):
            if not retention.get(moment):
                retention[moment] = "Retain"
        spec.setdefault("revisionHistoryLimit", 10)
        for claim in spec.get("volumeClaimTemplates") or ():
            claim |= {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
            default_claim(claim)

    def initial_status(self, o: Object) -> Object:
        return {"replicas": 0, "availableReplicas": 0}

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        spec = o.get("spec") or {}
        policy = spec.get("podManagementPolicy", "")
        if not policy:
            faults.append(fields.required("spec.podManagementPolicy"))
        elif policy not in _POLICIES:
            why = "must be 'OrderedReady' or 'Parallel'"
            faults.append(fields.invalid("spec.podManagementPolicy", policy, why))
        _check_strategy(spec.get("updateStrategy") or {}, faults)
        retention = spec.get("persistentVolumeClaimRetentionPolicy") or {}
        for moment in ("whenDeleted", "whenScaled"):
            if moment in retention and retention[moment] not in _RETENTION:
                where = f"spec.persistentVolumeClaimRetentionPolicy.{moment}"
                faults.append(fields.not_supported(where, retention[moment], _RETENTION))
        faults += fields.non_negative("spec.replicas", spec.get("replicas", 0))
        faults += fields.non_negative("spec.minReadySeconds", spec.get("minReadySeconds", 0))
        start = (spec.get("ordinals") or {}).get("start", 0)
        faults += fields.non_negative("spec.ordinals.start", start)
        limit = spec.get("revisionHistoryLimit", 0)
        faults += fields.non_negative("spec.revisionHistoryLimit", limit)
        check_selector(spec.get("selector"), faults, "statefulset")
        template = _with_claims(spec.get("template") or {}, spec)
        check_replicated_template(template, self.selector_of(o), "StatefulSet", faults)
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        faults = self.validate_body(new)
        after, before = new.get("spec") or {}, old.get("spec") or {}
        for name in after.keys() | before.keys():
            if name not in _CHANGEABLE and not equal(after.get(name), before.get(name)):
                faults.append(fields.forbidden("spec", _FIXED))
                break
        return faults

    def validate_status(self, new: Object, old: Object) -> list[FieldError]:
        faults = super().validate_status(new, old)
        count = (new.get("status") or {}).get("collisionCount")
        before = (old.get("status") or {}).get("collisionCount")
        if before is not None and (count is None or count < before):
            why = "cannot be decremented"
            faults.append(fields.invalid("status.collisionCount", count or 0, why))
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, spec, status = o["metadata"], o.get("spec") or {}, o.get("status") or {}
        return [
            meta.get("name", ""),
            f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}",
            age(meta.get("creationTimestamp"), now),
            *template_cells(spec),
        ]


def _check_strategy(strategy: Object, faults: Faults) -> None:
    kind, rolling = strategy.get("type", ""), strategy.get("rollingUpdate")
    where = "spec.updateStrategy"
    if not kind:
        faults.append(fields.required(where))
    elif kind == "OnDelete":
        if rolling is not None:
            why = "only allowed for updateStrategy 'RollingUpdate'"
            faults.append(fields.invalid(f"{where}.rollingUpdate", rolling, why))
    elif kind != "RollingUpdate":
        shown = fields.Struct(Type=kind, RollingUpdate=rolling)
        why = "must be 'RollingUpdate' or 'OnDelete'"
        faults.append(fields.invalid(where, shown, why))
    elif rolling is not None:
        partition = rolling.get("partition", 0)
        faults += fields.non_negative(f"{where}.rollingUpdate.partition", partition)
        if (unavailable := rolling.get("maxUnavailable")) is not None:
            path = f"{where}.rollingUpdate.maxUnavailable"
            counts.check_count(unavailable, path, faults)
            if counts.number(unavailable) == 0:
                faults.append(fields.invalid(path, unavailable, "cannot be 0"))
            counts.check_at_most_all(unavailable, path, faults)


def _with_claims(template: Object, spec: Object) -> Object:
    """The template as its pods will be: with a volume for each claim that is made for them."""
    pod = template.get("spec") or {}
    named = {volume.get("name") for volume in pod.get("volumes") or ()}
    claims = [
        (claim.get("metadata") or {}).get("name")
        for claim in spec.get("volumeClaimTemplates") or ()
    ]
    made = [{"name": name, "emptyDir": {}} for name in claims if name and name not in named]
    if not made:
        return template
    return {**template, "spec": {**pod, "volumes": [*(pod.get("volumes") or ()), *made]}}
