"""Who set which field: ``metadata.managedFields``, kept for every write.

Ordinary writes take the fields they change; server-side apply may conflict. The rules are those of
`wherry.kube.api.apply`. Fields are those of the version that the writer spoke.
"""

from __future__ import annotations

from wherry.kube.api.apply import InVersion, apply, track_update
from wherry.kube.api.kinds import Kind
from wherry.kube.api.merge_types import MergeType
from wherry.kube.api.meta import clone, now
from wherry.kube.apiserver.objects import Object
from wherry.kube.apiserver.registry.backend import Backend
from wherry.kube.apiserver.request import APIRequest


def created(backend: Backend, request: APIRequest, kind: Kind, o: Object, manager: str) -> None:
    """``manager`` set all that is in the new object ``o``."""
    _track(backend, request, kind, o, None, manager, "")


def updated(
    backend: Backend,
    request: APIRequest,
    kind: Kind,
    new: Object,
    old: Object,
    manager: str,
    subresource: str,
) -> None:
    """``manager`` set what differs between ``old`` and ``new``."""
    _track(backend, request, kind, new, old, manager, subresource)


def _track(
    backend: Backend,
    request: APIRequest,
    kind: Kind,
    new: Object,
    old: Object | None,
    manager: str,
    subresource: str,
) -> None:
    version = request.version or kind
    seen = new
    if version is not kind:
        seen = version.from_stored(new)
        seen = {**seen, "metadata": dict(seen["metadata"])}
        old = None if old is None else version.from_stored(old)
    track_update(
        version.resource,
        old,
        seen,
        manager,
        subresource=subresource,
        now=now(),
        shape=version.merge_type(),
        in_version=_converter(backend, kind),
    )
    if seen is not new:
        new["metadata"].pop("managedFields", None)
        if "managedFields" in seen["metadata"]:
            new["metadata"]["managedFields"] = seen["metadata"]["managedFields"]


def applied(
    backend: Backend,
    request: APIRequest,
    kind: Kind,
    live: Object | None,
    configuration: Object,
    manager: str,
    subresource: str,
    *,
    force: bool,
) -> Object:
    """What applying the configuration makes of ``live``: a private object of the version that the
    request speaks, not yet defaulted.

    Raises:
        StatusError: 409, others hold fields with other values.
    """
    version = request.version or kind
    made: Object = clone(
        apply(
            version.resource,
            None if live is None else version.from_stored(live),
            configuration,
            manager,
            subresource=subresource,
            force=force,
            now=now(),
            shape=version.merge_type(),
            in_version=_converter(backend, kind),
        )
    )
    return made


def _converter(backend: Backend, kind: Kind) -> InVersion | None:
    """What shows an object in another version; None where versions differ in nothing but name."""
    if kind.resource.custom:
        return None
    served = backend.catalogue.served

    def find(api_version: str) -> Kind | None:
        if api_version == kind.resource.api_version:
            return kind
        group, _, version = api_version.rpartition("/")
        found = served.kind(group, version, kind.resource.plural)
        if found is None or found.resource.stored_as is not kind.resource:
            return None
        return found

    def in_version(o: Object, api_version: str) -> tuple[Object, MergeType] | None:
        spoken, wanted = find(o.get("apiVersion", "")), find(api_version)
        if spoken is None or wanted is None:
            return None
        if spoken is not wanted:
            o = wanted.from_stored(spoken.to_stored(o))
        return o, wanted.merge_type()

    return in_version
