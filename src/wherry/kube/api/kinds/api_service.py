"""APIService: who serves the resources of a group version.

Upstream: k8s.io/kube-aggregator/pkg/apis/apiregistration/validation.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from wherry.kube.api import names
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import fields
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.durations import age


class APIService(Kind):
    unconditional_update = False
    columns = (
        NAME_COLUMN,
        Column("Service", description="The reference to the service that hosts this API."),
        Column("Available", description="Whether this service is available."),
        AGE_COLUMN,
    )

    def name_messages(self, name: str, prefix: bool) -> list[str]:
        return names.is_path_segment(name)

    def default(self, o: Object) -> None:
        service = (o.get("spec") or {}).get("service")
        if service is not None:
            service.setdefault("port", 443)

    def initial_status(self, o: Object) -> Object:
        if (o.get("spec") or {}).get("service") is not None:
            return {}
        return {
            "conditions": [
                {
                    "type": "Available",
                    "status": "True",
                    "lastTransitionTime": o["metadata"].get("creationTimestamp"),
                    "reason": "Local",
                    "message": "Local APIServices are always available",
                }
            ]
        }

    def validate_body(self, o: Object) -> list[FieldError]:
        spec = o.get("spec") or {}
        group, version = spec.get("group", ""), spec.get("version", "")
        faults: list[FieldError] = []
        name = o["metadata"].get("name", "")
        if name != f"{version}.{group}":
            why = f'must be `spec.version+"."+spec.group`: {fields.quote(f"{version}.{group}")}'
            faults.append(fields.invalid("metadata.name", name, why))
        if not version:
            faults.append(fields.required("spec.version"))
        for field, highest in (("groupPriorityMinimum", 20000), ("versionPriority", 1000)):
            value = spec.get(field, 0)
            if not 0 < value <= highest:
                why = f"must be positive and less than {highest}"
                faults.append(fields.invalid(f"spec.{field}", value, why))
        service = spec.get("service")
        ca, insecure = spec.get("caBundle"), spec.get("insecureSkipTLSVerify")
        if service is None:
            if ca:
                faults.append(
                    fields.invalid(
                        "spec.caBundle",
                        f"{len(ca)} bytes",
                        "local APIServices may not have a caBundle",
                    )
                )
            if insecure:
                why = "local APIServices may not have insecureSkipTLSVerify"
                faults.append(fields.invalid("spec.insecureSkipTLSVerify", insecure, why))
            return faults
        for field in ("namespace", "name"):
            if not service.get(field):
                faults.append(fields.required(f"spec.service.{field}"))
        port = service.get("port", 443)
        if not 0 < port < 65536:
            why = "port is not valid: must be between 1 and 65535, inclusive"
            faults.append(fields.invalid("spec.service.port", port, why))
        if insecure and ca:
            why = "may not be true if caBundle is present"
            faults.append(fields.invalid("spec.insecureSkipTLSVerify", insecure, why))
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        service = (o.get("spec") or {}).get("service")
        where = f"{service.get('namespace', '')}/{service.get('name', '')}" if service else "Local"
        available = "Unknown"
        for condition in (o.get("status") or {}).get("conditions") or ():
            if condition.get("type") == "Available":
                available = condition.get("status", "Unknown")
                if available == "False":
                    available = f"False ({condition.get('reason', '')})"
        metadata = o["metadata"]
        created = age(metadata.get("creationTimestamp"), now)
        return [metadata.get("name", ""), where, available, created]
