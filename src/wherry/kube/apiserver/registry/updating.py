"""update: a loop of read, change, judge and compare-and-swap, shared by PUT, PATCH and the rest.

Upstream: k8s.io/apiserver/pkg/registry/generic/registry, Store.Update; GuaranteedUpdate in
k8s.io/apiserver/pkg/storage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wherry.kube.api.errors import FieldError, bad_request, invalid
from wherry.kube.api.kinds import Kind, pod_aspects
from wherry.kube.api.kinds.certificates import CertificateSigningRequest
from wherry.kube.api.kinds.namespace import Namespace
from wherry.kube.api.kinds.pod import Pod
from wherry.kube.api.meta import clone
from wherry.kube.api.resources import NAMESPACES
from wherry.kube.api.warnings import ON_WRITE
from wherry.kube.apiserver.admission.attributes import of
from wherry.kube.apiserver.allocation.services import Taken
from wherry.kube.apiserver.answers import Single
from wherry.kube.apiserver.authz import escalation
from wherry.kube.apiserver.content import read_object
from wherry.kube.apiserver.objects import Object, Stored, answer
from wherry.kube.apiserver.options import WriteOptions, parse_write_options
from wherry.kube.apiserver.registry import ownership
from wherry.kube.apiserver.registry.backend import Backend, check
from wherry.kube.apiserver.registry.creating import insert, take_namespace
from wherry.kube.apiserver.registry.records import Changed, Records
from wherry.kube.apiserver.registry.versions import as_stored
from wherry.kube.apiserver.request import APIRequest, RequestInfo


@dataclass(frozen=True, slots=True)
class Aspect:
    """The side of an object a write is about: all of it, its status, …

    ``prepare`` and ``validate`` are called with (kind, new, old). What admission sees is what
    ``show`` makes of the object, and goes back into it by ``take`` (kind, new, shown); an aspect
    that is not ``admitted`` has passed admission before.
    """

    subresource: str
    prepare: Callable[[Kind, Object, Object], None]
    validate: Callable[[Kind, Object, Object], list[FieldError]]
    show: Callable[[Kind, Object], Object] | None = None
    take: Callable[[Kind, Object, Object], None] | None = None
    admitted: bool = True


def _no_faults(kind: Kind, new: Object, old: Object) -> list[FieldError]:
    return []


def _as_given(kind: Kind, new: Object, old: Object) -> None:
    return


def _prepare_finalize(kind: Kind, new: Object, old: Object) -> None:
    assert isinstance(kind, Namespace)
    kind.prepare_finalize_update(new, old)


def _validate_finalize(kind: Kind, new: Object, old: Object) -> list[FieldError]:
    assert isinstance(kind, Namespace)
    return kind.validate_finalize_update(new, old)


def _prepare_approval(kind: Kind, new: Object, old: Object) -> None:
    assert isinstance(kind, CertificateSigningRequest)
    kind.prepare_approval_update(new, old)


def _validate_approval(kind: Kind, new: Object, old: Object) -> list[FieldError]:
    assert isinstance(kind, CertificateSigningRequest)
    return kind.validate_approval_update(new, old)


# Lambdas, so that it is the kind's own method that is called and not the base class's.
MAIN = Aspect(
    "",
    lambda kind, new, old: kind.prepare_update(new, old),
    lambda kind, new, old: kind.validate_update(new, old),
)
STATUS = Aspect(
    "status",
    lambda kind, new, old: kind.prepare_status_update(new, old),
    lambda kind, new, old: kind.validate_status_update(new, old),
)
FINALIZE = Aspect("finalize", _prepare_finalize, _validate_finalize)


def _validate_ephemeral(kind: Kind, new: Object, old: Object) -> list[FieldError]:
    assert isinstance(kind, Pod)
    return kind.validate_ephemeral_update(new, old)


def _validate_resize(kind: Kind, new: Object, old: Object) -> list[FieldError]:
    assert isinstance(kind, Pod)
    return kind.validate_resize(new, old)


EPHEMERAL = Aspect(
    "ephemeralcontainers",
    lambda kind, new, old: pod_aspects.prepare_ephemeral(new, old),
    _validate_ephemeral,
)
RESIZE = Aspect(
    "resize", lambda kind, new, old: pod_aspects.prepare_resize(new, old), _validate_resize
)
APPROVAL = Aspect("approval", _prepare_approval, _validate_approval)
ASPECTS = {
    aspect.subresource: aspect for aspect in (MAIN, STATUS, FINALIZE, APPROVAL, EPHEMERAL, RESIZE)
}


def internal(subresource: str) -> Aspect:
    """A change that the server itself words (a binding): nothing to prepare or to judge."""
    return Aspect(subresource, _as_given, _no_faults, admitted=False)


SCALE = Aspect(
    "scale",
    _as_given,
    _no_faults,
    lambda kind, o: kind.scale(o),
    lambda kind, o, scale: kind.apply_scale(o, scale),
)
"""The object by way of its Scale."""


async def update(backend: Backend, request: APIRequest) -> Single:
    """PUT of an object, or of an aspect of it."""
    resource = request.info.served
    records = backend.records(resource)
    kind = records.kind
    aspect = ASPECTS[request.info.subresource]
    options = parse_write_options(request.query, "UpdateOptions", request.user_agent)
    given = read_object(request, kind, options.field_validation)
    check_name(request, given)
    take_namespace(request, given)
    given = as_stored(kind, request.version, given)
    based_on = given["metadata"].get("resourceVersion") or ""
    if based_on == "0":
        based_on = ""
    uid = given["metadata"].get("uid") or ""

    def replaced(old: Stored) -> Object:
        check_uid(records, request.info, uid, old.object["metadata"]["uid"])
        if not based_on and not kind.unconditional_update:
            fault = FieldError(
                "metadata.resourceVersion",
                "FieldValueInvalid",
                "Invalid value: 0: must be specified for an update",
            )
            raise invalid(resource.kind, request.info.name, [fault], resource.group)
        if based_on and based_on != str(old.revision):
            raise records.conflict(request.info.name)
        copied: Object = clone(given)
        return copied

    present = records.cache.get(request.info.namespace, request.info.name)
    if present is None:
        check_uid(records, request.info, uid, "")
    if present is None and kind.create_on_update and not aspect.subresource:
        if based_on:
            raise records.conflict(request.info.name)
        return Single(await insert(backend, request, given, options), kind, 201)
    stored = await change(backend, request, replaced, aspect, options)
    return Single(stored, kind)


def check_uid(records: Records, info: RequestInfo, wanted: str, found: str) -> None:
    """An object that says its uid is of that object alone. Raises StatusError 409."""
    if wanted and wanted != found:
        raise records.conflict(
            info.name,
            "StorageError: invalid object, Code: 4, "
            f"Key: {records.resource.key(info.namespace, info.name)}, ResourceVersion: 0, "
            f"AdditionalErrorMsg: Precondition failed: UID in precondition: {wanted}, "
            f"UID in object meta: {found}",
        )


def check_name(request: APIRequest, o: Object) -> None:
    """The name in the body is that of the path. Raises StatusError 400."""
    name = o["metadata"].get("name", "")
    if not name:
        raise bad_request(
            f"the name of the object ({request.info.name} based on URL) was undeterminable: "
            "name must be provided"
        )
    if name != request.info.name:
        raise bad_request(
            f"the name of the object ({name}) does not match the name on the URL "
            f"({request.info.name})"
        )


async def change(
    backend: Backend,
    request: APIRequest,
    make: Callable[[Stored], Object],
    aspect: Aspect,
    options: WriteOptions,
    *,
    attempts: int | None = None,
    manage: bool = True,
) -> Stored:
    """Replace an object by what ``make`` makes of it, as often as it takes to win.

    Args:
        make: from the present object a private new one, defaulted; may raise StatusError.
        attempts: how often at most; after that the conflict is the client's. None: no limit.
        manage: note who set the fields; server-side apply has done so itself.

    Returns:
        The object as it is then; as it was, when nothing changed.
    """
    info = request.info
    async with backend.turn(info.served, info.namespace, info.name):
        while True:
            try:
                return await _attempt(backend, request, make, aspect, options, manage=manage)
            except Changed:
                if attempts is not None:
                    attempts -= 1
                    if not attempts:
                        raise backend.records(info.served).conflict(info.name) from None


async def _attempt(
    backend: Backend,
    request: APIRequest,
    make: Callable[[Stored], Object],
    aspect: Aspect,
    options: WriteOptions,
    *,
    manage: bool,
) -> Stored:
    """One round of `change`. Raises Changed where somebody else was quicker."""
    resource, name = request.info.served, request.info.name
    records = backend.records(resource)
    kind = records.kind
    old = records.get(request.info.namespace, name)
    new = make(old)
    metadata = new["metadata"]
    metadata.pop("selfLink", None)
    attributes = of(request, "UPDATE", new, old.object, options, subresource=aspect.subresource)
    if aspect.show is not None and aspect.take is not None:
        attributes.object, attributes.old = aspect.show(kind, new), aspect.show(kind, old.object)
        await backend.admission.mutate(attributes)
        aspect.take(kind, new, attributes.new)
    elif aspect.admitted:
        await backend.admission.mutate(attributes)
        new = attributes.new
        metadata = new["metadata"]
    if resource.group == escalation.GROUP:
        await escalation.check(backend.authorizer, request.user, request.info, new, old.object)
    check_uid(records, request.info, metadata.get("uid") or "", old.object["metadata"]["uid"])
    aspect.prepare(kind, new, old.object)
    check(kind, new, aspect.validate(kind, new, old.object), request.version)
    if aspect is MAIN and (look := ON_WRITE.get(resource.schema)) is not None:
        request.warnings += look(new, old.object)
    if manage:
        ownership.updated(
            backend, request, kind, new, old.object, options.field_manager, aspect.subresource
        )
    taken: Taken | None = None
    try:
        if not released(new):
            taken = backend.take(new, old.object, resource)
        if aspect.admitted:
            await backend.admission.validate(attributes)
        if unchanged(new, old) and not records.is_stale(old):
            return old
        return await _store(backend, records, new, old, taken, dry_run=options.dry_run)
    except BaseException:
        await attributes.fail()
        raise
    finally:
        if taken is not None:
            taken.settle()


async def _store(
    backend: Backend,
    records: Records,
    new: Object,
    old: Stored,
    taken: Taken | None,
    *,
    dry_run: bool,
) -> Stored:
    """Put ``new`` in the place of ``old``, or remove it if it was kept only by what is gone."""
    if released(new):
        if not dry_run:
            await records.delete(old, backend.beside(None, old.object, records.resource))
        return answer(new)
    if dry_run:
        return answer(new)
    if taken is None:
        return await records.update(new, old)
    async with backend.allocating(records.resource):
        if taken.is_lost():
            raise Changed
        guard = backend.guard(records.resource)
        beside = backend.beside(new, old.object, records.resource)
        return await records.update(new, old, guard, beside)


def unchanged(new: Object, old: Stored) -> bool:
    """Whether a write would change nothing; then it is none, and the revision stays."""
    new["metadata"]["resourceVersion"] = str(old.revision)
    return new == old.object


def released(o: Object) -> bool:
    """Whether an object that is being deleted is held by nothing any more."""
    metadata = o["metadata"]
    return (
        metadata.get("deletionTimestamp") is not None
        and not metadata.get("deletionGracePeriodSeconds")
        and not held(o)
    )


def held(o: Object) -> bool:
    """Whether finalizers keep the object; a namespace has some in its spec, too."""
    if o["metadata"].get("finalizers"):
        return True
    return o["kind"] == NAMESPACES.kind and bool(o.get("spec", {}).get("finalizers"))
