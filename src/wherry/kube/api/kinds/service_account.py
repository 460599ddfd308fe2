"""ServiceAccounts.

Upstream: pkg/registry/core/serviceaccount/strategy.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.durations import age


class ServiceAccount(Kind):
    """An identity for what runs in pods."""

    columns = (
        NAME_COLUMN,
        Column("Secrets", description="The number of secrets its pods may use."),
        AGE_COLUMN,
    )

    def prepare_create(self, o: Object) -> None:
        super().prepare_create(o)
        _bare_secrets(o)

    def prepare_update(self, new: Object, old: Object) -> None:
        super().prepare_update(new, old)
        _bare_secrets(new)

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta = o["metadata"]
        count = len(o.get("secrets") or ())
        return [meta.get("name", ""), count, age(meta.get("creationTimestamp"), now)]


def _bare_secrets(o: Object) -> None:
    """Of a reference to a secret only the name is kept."""
    if secrets := o.get("secrets"):
        o["secrets"] = [{"name": secret.get("name", "")} for secret in secrets]
