"""Who set which field: ``metadata.managedFields``, kept for every write.

Ordinary writes take the fields they change; server-side apply may conflict. The rules are those of
`wherry.kube.api.apply`.
"""

from __future__ import annotations

from wherry.kube.api.apply import apply, track_update
from wherry.kube.api.meta import clone, now
from wherry.kube.api.resources import Resource
from wherry.kube.apiserver.objects import Object


def created(resource: Resource, o: Object, manager: str) -> None:
    """``manager`` set all that is in the new object ``o``."""
    track_update(resource, None, o, manager, now=now())


def updated(resource: Resource, new: Object, old: Object, manager: str, subresource: str) -> None:
    """``manager`` set what differs between ``old`` and ``new``."""
    track_update(resource, old, new, manager, subresource=subresource, now=now())


def applied(
    resource: Resource,
    live: Object | None,
    configuration: Object,
    manager: str,
    subresource: str,
    *,
    force: bool,
) -> Object:
    """What applying the configuration makes of ``live``: a private object, not yet defaulted.

    Raises:
        StatusError: 409, others hold fields with other values.
    """
    made: Object = clone(
        apply(
            resource, live, configuration, manager, subresource=subresource, force=force, now=now()
        )
    )
    return made
