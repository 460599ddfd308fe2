"""Who set which field: ``metadata.managedFields``, kept for every write.

Ordinary writes take the fields they change; server-side apply may conflict. The rules are those of
`wherry.kube.api.apply`.
"""

from __future__ import annotations

from wherry.kube.api.apply import apply, track_update
from wherry.kube.api.kinds import Kind
from wherry.kube.api.meta import clone, now
from wherry.kube.apiserver.objects import Object


def created(kind: Kind, o: Object, manager: str) -> None:
    """``manager`` set all that is in the new object ``o``."""
    track_update(kind.resource, None, o, manager, now=now(), shape=kind.merge_type())


def updated(kind: Kind, new: Object, old: Object, manager: str, subresource: str) -> None:
    """``manager`` set what differs between ``old`` and ``new``."""
    track_update(
        kind.resource,
        old,
        new,
        manager,
        subresource=subresource,
        now=now(),
        shape=kind.merge_type(),
    )


def applied(
    kind: Kind,
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
            kind.resource,
            live,
            configuration,
            manager,
            subresource=subresource,
            force=force,
            now=now(),
            shape=kind.merge_type(),
        )
    )
    return made
