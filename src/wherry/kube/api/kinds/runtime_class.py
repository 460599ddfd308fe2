"""RuntimeClasses.

Upstream: pkg/apis/node/validation/validation.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import checks, fields
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.durations import age
from wherry.kube.api.kinds.podspec import resources
from wherry.kube.api.kinds.podspec.scheduling import check_tolerations


class RuntimeClass(Kind):
    """A way to run containers."""

    create_on_update = True
    unconditional_update = False
    columns = (
        NAME_COLUMN,
        Column("Handler", description="What the container runtime calls it."),
        AGE_COLUMN,
    )

    def default(self, o: Object) -> None:
        resources.canonicalize((o.get("overhead") or {}).get("podFixed"))

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        checks.dns_label(o.get("handler", ""), "handler", faults)
        if overhead := (o.get("overhead") or {}).get("podFixed"):
            resources.check_overhead(overhead, "overhead.podFixed", faults)
        if scheduling := o.get("scheduling"):
            nodes = scheduling.get("nodeSelector") or {}
            checks.labels(nodes, "scheduling.nodeSelector", faults)
            tolerations = scheduling.get("tolerations") or ()
            check_tolerations(tolerations, "scheduling.tolerations", faults)
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        handler, before = new.get("handler", ""), old.get("handler", "")
        return self.validate_body(new) + fields.immutable("handler", handler, before)

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta = o["metadata"]
        created = age(meta.get("creationTimestamp"), now)
        return [meta.get("name", ""), o.get("handler", ""), created]
