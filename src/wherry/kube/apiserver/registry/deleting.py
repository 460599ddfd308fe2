"""delete and deletecollection: grace, finalizers, propagation.

A delete either removes the object, or marks it (``deletionTimestamp``) for whoever holds it: a
kubelet that ends its containers, a controller behind a finalizer. `plan` decides which; upstream:
k8s.io/apiserver/pkg/registry/rest/delete.go and .../generic/registry/store.go.
"""

from __future__ import annotations

import asyncio
import datetime

from wherry.kube.api import errors
from wherry.kube.api.kinds import Kind
from wherry.kube.api.meta import clone, format_time, now, parse_time
from wherry.kube.api.resources import JOBS, NAMESPACES, PODS, SERVICE_ACCOUNTS, SERVICES
from wherry.kube.api.warnings import ORPHANED_PODS
from wherry.kube.apiserver.admission.attributes import of
from wherry.kube.apiserver.answers import Collection, Single, success
from wherry.kube.apiserver.content import read_value
from wherry.kube.apiserver.objects import Object, Stored, answer
from wherry.kube.apiserver.options import (
    DELETE_OPTIONS,
    DeleteOptions,
    parse_delete_options,
)
from wherry.kube.apiserver.registry.backend import Backend
from wherry.kube.apiserver.registry.reading import list_
from wherry.kube.apiserver.registry.records import Changed
from wherry.kube.apiserver.registry.updating import held
from wherry.kube.apiserver.request import APIRequest

_ORPHAN, _FOREGROUND = "orphan", "foregroundDeletion"
_RETURNED = (PODS, SERVICES, SERVICE_ACCOUNTS)  # these come back where others are a Status
_AT_ONCE = 64  # deletions of a collection under way together: they share commits


async def delete(backend: Backend, request: APIRequest) -> Single:
    """DELETE of an object."""
    options = _options(request)
    return await remove(backend, request, request.info.namespace, request.info.name, options)


async def delete_collection(backend: Backend, request: APIRequest) -> Collection:
    """DELETE of all objects that a list with the same options has; answers with that list."""
    records = backend.records(request.info.served)
    options = _options(request)
    found = await list_(records, backend.cache, request)

    async def one(stored: Stored) -> None:
        metadata = stored.object["metadata"]
        try:
            await remove(backend, request, metadata.get("namespace", ""), metadata["name"], options)
        except errors.StatusError as error:
            if error.code != 404:  # somebody else was quicker: as good
                raise

    for start in range(0, len(found.items), _AT_ONCE):
        await asyncio.gather(*map(one, found.items[start : start + _AT_ONCE]))
    return found


def _options(request: APIRequest) -> DeleteOptions:
    value = None
    if not request.body.empty:
        value, _ = read_value(request.body, "DeleteOptions", DELETE_OPTIONS)
    return parse_delete_options(value, request.query)


async def remove(
    backend: Backend,
    request: APIRequest,
    namespace: str,
    name: str,
    options: DeleteOptions,
    *,
    admitted: bool = True,
) -> Single:
    """Delete one object, by the rules of its kind. Not ``admitted``: it has passed admission in
    another form, an eviction."""
    resource = request.info.served
    records = backend.records(resource)
    kind = records.kind
    if not options.policy and resource is JOBS:
        request.warnings.append(ORPHANED_PODS)
    while True:
        old = records.get(namespace, name)
        _check_preconditions(kind, old, options)
        if admitted:
            await backend.admission.admit(
                of(request, "DELETE", None, old.object, options, name=name, namespace=namespace)
            )
        marked = plan(kind, old.object, options, orphans=(request.version or kind).orphans)
        try:
            if marked is None:
                if not options.dry_run:
                    await records.delete(old, backend.beside(None, old.object, resource))
                if resource in _RETURNED:
                    return Single(old, kind)
                return success(resource, name, old.object["metadata"]["uid"])
            if marked is not old.object:
                if options.dry_run:
                    return Single(answer(marked), kind)
                old = await records.update(marked, old)
            return Single(old, kind)
        except Changed:
            continue


def _check_preconditions(kind: Kind, old: Stored, options: DeleteOptions) -> None:
    resource, metadata = kind.resource, old.object["metadata"]
    if options.uid is not None and options.uid != metadata["uid"]:
        raise errors.conflict(
            resource.kind,
            metadata["name"],
            f"the UID in the precondition ({options.uid}) does not match the UID in record "
            f"({metadata['uid']}). The object might have been deleted and then recreated",
            resource.group,
        )
    if options.revision is not None and options.revision != metadata["resourceVersion"]:
        raise errors.conflict(
            resource.kind,
            metadata["name"],
            f"the ResourceVersion in the precondition ({options.revision}) does not match the "
            f"ResourceVersion in record ({metadata['resourceVersion']}). The object might have "
            "been modified",
            resource.group,
        )


def plan(
    kind: Kind, old: Object, options: DeleteOptions, *, orphans: bool = False
) -> Object | None:
    """What a delete makes of ``old``: None, it goes; another object, which takes its place;
    or ``old`` itself, there is nothing to do but wait. ``orphans``: what it owns stays, if nobody
    says otherwise.

    Raises:
        StatusError: 409, a namespace that is going already.
    """
    metadata = old["metadata"]
    deleting = metadata.get("deletionTimestamp") is not None
    if kind.resource is NAMESPACES and deleting and held(old):
        raise errors.conflict(
            "namespaces",
            metadata["name"],
            "The system is ensuring all content is removed from this namespace.  Upon "
            "completion, this namespace will automatically be purged by the system.",
        )
    grace = kind.deletion_grace(old, options.as_object())
    graceful = grace is not None
    if deleting:
        remaining = metadata.get("deletionGracePeriodSeconds")
        if not remaining or grace is None:
            graceful = False
        elif options.grace is None or options.grace >= remaining:
            return old  # only a shorter grace counts
        else:
            grace = options.grace
    finalizers = _finalizers(
        kind, metadata.get("finalizers") or [], options, alive=not deleting, orphans=orphans
    )
    new: Object = clone(old)
    if finalizers:
        new["metadata"]["finalizers"] = finalizers
    else:
        new["metadata"].pop("finalizers", None)
    if graceful and grace:
        _mark(new, old, grace)
        return new
    if not held(new):
        return None
    if deleting:
        new["metadata"]["deletionGracePeriodSeconds"] = 0
    else:
        _mark(new, old, 0)
    return new if new != old else old


def _finalizers(
    kind: Kind, present: list[str], options: DeleteOptions, *, alive: bool, orphans: bool
) -> list[str]:
    """The finalizers as the propagation policy wants them: asked for, or what the object has, or
    the kind's habit."""
    policy = options.policy
    if not policy:
        if _ORPHAN in present:
            policy = "Orphan"
        elif _FOREGROUND in present:
            policy = "Foreground"
        elif orphans:
            policy = "Orphan"
    wanted = [f for f in present if f not in (_ORPHAN, _FOREGROUND)]
    if alive:
        wanted += [f for f in kind.cleanup_finalizers if f not in wanted]
    if policy == "Orphan":
        wanted.append(_ORPHAN)
    elif policy == "Foreground":
        wanted.append(_FOREGROUND)
    return present if set(wanted) == set(present) else wanted


def _mark(new: Object, old: Object, grace: int) -> None:
    """Set when the object is to be gone; a shorter grace counts from the first request on."""
    metadata = new["metadata"]
    before = old["metadata"].get("deletionTimestamp")
    if before is None:
        moment = parse_time(now())
        if metadata.get("generation"):
            metadata["generation"] += 1
        if new["kind"] == NAMESPACES.kind:
            new["status"] = {**new.get("status", {}), "phase": "Terminating"}
    else:
        moment = parse_time(before) - datetime.timedelta(
            seconds=metadata.get("deletionGracePeriodSeconds", 0)
        )
    metadata["deletionTimestamp"] = format_time(moment + datetime.timedelta(seconds=grace))
    metadata["deletionGracePeriodSeconds"] = grace
