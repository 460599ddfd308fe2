"""patch: JSON patch, merge patch, strategic merge patch, and server-side apply.

A patch is applied to the present object, and again when that has changed meanwhile.
Upstream: k8s.io/apiserver/pkg/endpoints/handlers/patch.go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wherry.kube.api import patch as patches
from wherry.kube.api.errors import FieldError, StatusError, bad_request, invalid
from wherry.kube.api.kinds import Kind
from wherry.kube.api.kinds.fields import quote
from wherry.kube.api.meta import clone
from wherry.kube.api.schema import Decoded, parse_json, parse_yaml
from wherry.kube.apiserver.answers import Single
from wherry.kube.apiserver.content import media_type, unsupported_media_type, warn
from wherry.kube.apiserver.objects import Object, Stored
from wherry.kube.apiserver.options import WriteOptions, parse_write_options
from wherry.kube.apiserver.registry import ownership
from wherry.kube.apiserver.registry.backend import Backend
from wherry.kube.apiserver.registry.creating import insert, take_namespace
from wherry.kube.apiserver.registry.records import Records
from wherry.kube.apiserver.registry.updating import (
    ASPECTS,
    Aspect,
    change,
    check_name,
    check_uid,
)
from wherry.kube.apiserver.registry.versions import as_stored
from wherry.kube.apiserver.request import APIRequest, Body

MEDIA_TYPES = (
    patches.JSON_PATCH,
    patches.MERGE_PATCH,
    patches.APPLY,
    patches.STRATEGIC_MERGE_PATCH,
)
_ATTEMPTS = 5  # at a patch, before the conflict is the client's

Patcher = Callable[[Object], Object]
"""From an object (shared) to the JSON value the patch makes of it."""


async def patch(backend: Backend, request: APIRequest) -> Single:
    """PATCH of an object, or of an aspect of it."""
    resource = request.info.served
    kind = backend.records(resource).kind
    version = request.version or kind
    aspect = ASPECTS[request.info.subresource]
    options = parse_write_options(request.query, "PatchOptions", request.user_agent)
    if media_type(request.body) == patches.APPLY:
        return await _apply(backend, request, kind, aspect, options)
    if options.force is not None:
        fault = FieldError(
            "force", "FieldValueForbidden", "Forbidden: may not be specified for non-apply patch"
        )
        raise invalid("PatchOptions", "", [fault], "meta.k8s.io")
    apply_to, complaints = read_patch(version, request.body)
    warned = len(request.warnings)

    def make(old: Stored) -> Object:
        del request.warnings[warned:]  # another attempt says the same again
        given = version.from_stored(old.object)
        if request.body.decoded:
            given = clone(given)
        return _decoded(request, kind, options, apply_to(given), complaints, old)

    stored = await change(backend, request, make, aspect, options, attempts=_ATTEMPTS)
    return Single(stored, kind)


def read_patch(kind: Kind, body: Body) -> tuple[Patcher, list[str]]:
    """What applies the patch in a body, and complaints about its form.

    Raises:
        StatusError: 400, 415.
    """
    medium = media_type(body)
    if medium not in MEDIA_TYPES or (
        medium == patches.STRATEGIC_MERGE_PATCH and not kind.strategic
    ):
        accepted = MEDIA_TYPES if kind.strategic else MEDIA_TYPES[:-1]
        raise unsupported_media_type(accepted)
    value, complaints = _value(body)
    if medium == patches.JSON_PATCH:
        return lambda o: patches.json_patch(o, value), complaints
    if medium == patches.MERGE_PATCH:
        return lambda o: patches.merge_patch(o, value), complaints
    return (
        lambda o: patches.strategic_merge_patch(kind.resource, o, value),
        complaints,
    )


def _value(body: Body) -> tuple[Any, list[str]]:
    if body.decoded:
        return body.value, []
    try:
        return parse_json(body.data)
    except StatusError as error:
        raise bad_request(f"error decoding patch: {error.message}") from error


def _decoded(
    request: APIRequest,
    kind: Kind,
    options: WriteOptions,
    patched: Any,
    complaints: list[str],
    old: Stored,
) -> Object:
    """The patched value as a whole, defaulted object, if it still is the one it was."""
    decoded = (request.version or kind).decode(patched)
    faults = complaints + decoded.unknown
    if faults and options.field_validation == "Strict":
        text = request.body.data.decode(errors="replace")
        fault = FieldError(
            "patch",
            "FieldValueInvalid",
            f"Invalid value: {quote(text)}: strict decoding error: {', '.join(faults)}",
        )
        raise invalid("", "", [fault])
    warn(request, options.field_validation, faults)
    new = decoded.value
    new.setdefault("metadata", {})
    check_name(request, new)
    take_namespace(request, new)
    based_on = new["metadata"].get("resourceVersion", "")
    if based_on not in ("", "0", str(old.revision)):
        raise _conflict(kind, request)
    return as_stored(kind, request.version, new)


def _conflict(kind: Kind, request: APIRequest) -> StatusError:
    from wherry.kube.api.errors import MODIFIED, conflict

    return conflict(kind.resource.plural, request.info.name, MODIFIED, kind.resource.group)


def require_manager(request: APIRequest) -> None:
    """Who applies says who that is. Raises StatusError 422."""
    if not request.query.get("fieldManager"):
        fault = FieldError(
            "fieldManager", "FieldValueRequired", "Required value: is required for apply patch"
        )
        raise invalid("PatchOptions", "", [fault], "meta.k8s.io")


async def _apply(
    backend: Backend,
    request: APIRequest,
    kind: Kind,
    aspect: Aspect,
    options: WriteOptions,
) -> Single:
    """Server-side apply: creates the object where there is none."""
    resource = kind.resource
    require_manager(request)
    value, complaints = read_configuration(request.body, resource.kind)
    decoded = (request.version or kind).decode(value)
    applied = judge(request, options, decoded, complaints)
    if applied["metadata"].get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    records: Records = backend.records(resource)

    def make(live: Object | None) -> Object:
        _check_identity(records, request, applied["metadata"], live)
        made = ownership.applied(
            backend,
            request,
            kind,
            live,
            applied,
            options.field_manager,
            aspect.subresource,
            force=bool(options.force),
        )
        take_namespace(request, made)
        return as_stored(kind, request.version, made)

    while True:
        present = records.cache.get(request.info.namespace, request.info.name)
        if present is None:
            if aspect.subresource:
                raise records.not_found(request.info.name)
            try:
                stored = await insert(backend, request, make(None), options, manage=False)
            except StatusError as error:
                if error.reason == "AlreadyExists":
                    continue
                raise
            return Single(stored, kind, 201)
        stored = await change(
            backend,
            request,
            lambda old: make(old.object),
            aspect,
            options,
            attempts=_ATTEMPTS,
            manage=False,
        )
        return Single(stored, kind)


def _check_identity(
    records: Records, request: APIRequest, metadata: Object, live: Object | None
) -> None:
    """A configuration that names a uid or a revision is for that object alone, as it is then.

    Raises:
        StatusError: 409.
    """
    uid, revision = metadata.get("uid"), metadata.get("resourceVersion")
    if live is None:
        if uid:
            raise records.conflict(
                request.info.name,
                f"uid mismatch: the provided object specified uid {uid}, and no existing object "
                "was found",
            )
        return
    check_uid(records, request.info, uid or "", live["metadata"]["uid"])
    if revision and revision != live["metadata"]["resourceVersion"]:
        raise records.conflict(request.info.name)


def read_configuration(body: Body, kind: str) -> tuple[Any, list[str]]:
    """The applied configuration as a value, and complaints about its form. Raises StatusError."""
    return (body.value, []) if body.decoded else parse_yaml(body.data, kind)


def judge(
    request: APIRequest, options: WriteOptions, decoded: Decoded, complaints: list[str]
) -> Object:
    """The applied configuration: of known fields, without defaults, of the name in the path.

    Raises:
        StatusError: 400.
    """
    faults = complaints + decoded.unknown
    if faults and options.field_validation == "Strict":
        raise bad_request(f"error decoding YAML: strict decoding error: {', '.join(faults)}")
    warn(request, options.field_validation, faults)
    metadata = decoded.value.setdefault("metadata", {})
    metadata.setdefault("name", request.info.name)
    check_name(request, decoded.value)
    return decoded.value
