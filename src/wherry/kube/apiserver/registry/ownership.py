"""Who set which field: ``metadata.managedFields``."""

from __future__ import annotations

from wherry.kube.apiserver.objects import Object


def created(resource: object, o: Object, manager: str) -> None:
    o["metadata"].pop("managedFields", None)


def updated(resource: object, new: Object, old: Object, manager: str, subresource: str) -> None:
    new["metadata"].pop("managedFields", None)


def applied(
    resource: object,
    live: Object | None,
    applied: Object,
    manager: str,
    subresource: str,
    *,
    force: bool,
    now: str,
) -> Object:
    raise NotImplementedError
