"""create, in upstream's order: read, default, mutating admission, name, prepare, the kind's rules,
allocate, validating admission, store."""

from __future__ import annotations

from dataclasses import replace

from wherry.kube.api.errors import StatusError, bad_request
from wherry.kube.api.meta import clone, new_uid, now
from wherry.kube.api.names import generate_name
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
from wherry.kube.apiserver.registry.records import Records
from wherry.kube.apiserver.registry.versions import as_stored
from wherry.kube.apiserver.request import APIRequest
from wherry.kube.store.types import GuardMoved

_NAME_ATTEMPTS = 8
_OTHER_NAMESPACE = (
    "the namespace of the provided object does not match the namespace sent on the request"
)


async def create(backend: Backend, request: APIRequest) -> Single:
    """POST to a collection."""
    resource = request.info.served
    kind = backend.records(resource).kind
    options = parse_write_options(request.query, "CreateOptions", request.user_agent)
    o = read_object(request, kind, options.field_validation)
    take_namespace(request, o)
    o = as_stored(kind, request.version, o)
    stored = await insert(backend, request, o, options)
    return Single(stored, kind, 201)


def take_namespace(request: APIRequest, o: Object) -> None:
    """The object is in the namespace of the path. Raises StatusError 400 where it says else."""
    metadata, namespace = o["metadata"], request.info.namespace
    if not request.info.served.namespaced:
        if metadata.get("namespace"):
            raise bad_request(_OTHER_NAMESPACE)
        return
    if metadata.setdefault("namespace", namespace) != namespace:
        raise bad_request(_OTHER_NAMESPACE)


async def insert(
    backend: Backend, request: APIRequest, o: Object, options: WriteOptions, *, manage: bool = True
) -> Stored:
    """Create ``o``, which was read and defaulted; ``manage``: note who set its fields.

    Raises:
        StatusError: it is refused, or its name is taken.
    """
    resource = request.info.served
    records = backend.records(resource)
    kind = records.kind
    metadata = o["metadata"]
    if metadata.get("resourceVersion", "0") not in ("", "0"):
        raise bad_request("resourceVersion should not be set on objects to be created")
    for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"):
        metadata.pop(field, None)
    if request.info.verb != "create":  # an update or a patch that makes what is not there
        await backend.authorizer.check(request.user, replace(request.info, verb="create"))
    attributes = of(
        request, "CREATE", o, None, options, name=metadata.get("name", ""), subresource=""
    )
    await backend.admission.mutate(attributes)
    o = attributes.new
    take_namespace(request, o)  # admission may have changed it, and must not
    metadata = o["metadata"]
    if resource.group == escalation.GROUP:
        await escalation.check(backend.authorizer, request.user, request.info, o, None)
    metadata["uid"] = new_uid()
    metadata["creationTimestamp"] = now()
    base = "" if metadata.get("name") else metadata.get("generateName", "")
    if base:
        metadata["name"] = generate_name(base)
    user = request.user
    kind.note_requester(o, user.name, user.uid, user.groups, user.extra)
    kind.prepare_create(o)
    if manage:
        ownership.created(backend, request, kind, o, options.field_manager)
    check(kind, o, kind.validate(o), request.version)
    if (look := ON_WRITE.get(resource.schema)) is not None:
        request.warnings += look(o, None)
    taken: Taken | None = None
    try:
        taken = backend.take(o, None, resource)
        await backend.admission.validate(attributes)
        return await _named(backend, records, o, base, taken, dry_run=options.dry_run)
    except BaseException:
        await attributes.fail()
        raise
    finally:
        if taken is not None:
            taken.settle()


async def _named(
    backend: Backend,
    records: Records,
    o: Object,
    base: str,
    taken: Taken | None,
    *,
    dry_run: bool,
) -> Stored:
    """Store ``o``, under another name where the one generated from ``base`` is taken."""
    metadata = o["metadata"]
    for attempt in range(_NAME_ATTEMPTS):
        try:
            if dry_run:
                namespace = metadata.get("namespace", "")
                if records.cache.get(namespace, metadata["name"]) is not None:
                    raise records.already_exists(metadata["name"])
                return answer(o)
            return await _allocated(backend, records, o, taken)
        except StatusError as error:
            if not base or error.reason != "AlreadyExists" or attempt + 1 == _NAME_ATTEMPTS:
                raise
            o = clone(o)
            metadata = o["metadata"]
            metadata["name"] = generate_name(base)
    raise AssertionError("unreachable")


async def _allocated(backend: Backend, records: Records, o: Object, taken: Taken | None) -> Stored:
    """Store ``o`` with what was taken for it. Raises StatusError."""
    if taken is None:
        return await records.create(o)
    async with backend.allocating(records.resource):
        while True:
            if taken.is_lost():
                taken.renew(o)
            try:
                guard = backend.guard(records.resource)
                beside = backend.beside(o, None, records.resource)
                return await records.create(o, guard, beside)
            except GuardMoved:  # others took something meanwhile; what, is known now
                continue
