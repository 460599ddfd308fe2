"""ComponentStatus: whether a part of the control plane is well. It lies in no store.

Upstream: pkg/registry/core/componentstatus.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from wherry.kube.api.kinds.base import NAME_COLUMN, Column, Kind, Object

_WORDS = {"True": "Healthy", "False": "Unhealthy"}


class ComponentStatus(Kind):
    columns = (
        NAME_COLUMN,
        Column("Status", description="Status of the component conditions"),
        Column("Message", description="Message of the component conditions"),
        Column("Error", description="Error of the component conditions"),
    )

    def row(self, o: Object, now: datetime) -> list[Any]:
        status, message, error = "Unknown", "", ""
        for condition in o.get("conditions") or ():
            if condition.get("type") == "Healthy":
                status = _WORDS.get(condition.get("status", ""), "Unknown")
                message, error = condition.get("message", ""), condition.get("error", "")
        return [o["metadata"].get("name", ""), status, message, error]


def component(name: str, fault: str) -> Object:
    """The status of one component; ``fault`` is "" where all is well."""
    condition = {"type": "Healthy", "status": "False" if fault else "True"}
    condition["message"] = fault or "ok"
    return {
        "kind": "ComponentStatus",
        "apiVersion": "v1",
        "metadata": {"name": name},
        "conditions": [condition],
    }
