"""A request in an old version of the API, answered by the stored version in the old one's words.

The handlers see a request for the stored resource with `APIRequest.version` set: what they read
they turn into the stored form by it, what they judge they word by it. Here the answer is turned
back.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from wherry.kube.api.errors import StatusError
from wherry.kube.api.kinds import Kind
from wherry.kube.api.resources import Resource
from wherry.kube.apiserver.answers import Answer, Collection, Seen, Single, Take, Watching
from wherry.kube.apiserver.objects import Object, Stored
from wherry.kube.apiserver.objects import answer as unstored
from wherry.kube.apiserver.registry.backend import Backend
from wherry.kube.apiserver.request import APIRequest, no_such_path

Handler = Callable[[Backend, APIRequest], Coroutine[Any, Any, Answer]]


async def answer(
    backend: Backend, request: APIRequest, handler: Callable[[APIRequest], Handler]
) -> Answer:
    """What a request for another version of a stored resource is answered with.

    ``handler`` finds what answers a request for the stored one. Raises StatusError.
    """
    info = request.info
    version = backend.catalogue.served.kind(info.group, info.version, info.plural)
    stored = info.served.stored_as
    if version is None or stored is None:
        raise no_such_path()
    if version.deprecation:
        request.warnings.append(version.deprecation)
    inner = replace(request, info=replace(info, resource=stored), version=version)
    try:
        found = await handler(inner)(backend, inner)
    except StatusError as error:
        raise _worded(error, stored, version.resource) from error
    return _shown(found, version, stored)


def as_stored(kind: Kind, version: Kind | None, o: Object) -> Object:
    """A decoded object of ``version`` (of the stored one where None) as it is stored: defaulted.
    ``o`` is private and used up."""
    if version is not None:
        version.default(o)
        o = version.to_stored(o)
    kind.default(o)
    return o


def _worded(error: StatusError, stored: Resource, asked: Resource) -> StatusError:
    """The error with the group that was asked for."""
    details = error.details or {}
    if stored.group == asked.group or details.get("group", "") != stored.group:
        return error
    if error.reason in ("Invalid", "Forbidden") or details.get("kind") != stored.plural:
        return error
    before = f"{stored.plural}.{stored.group}" if stored.group else stored.plural
    message = error.message.replace(f'{before} "', f'{asked.plural}.{asked.group} "', 1)
    return StatusError(
        error.code,
        error.reason,
        message,
        details={**details, "group": asked.group},
        headers=error.headers,
        metadata=error.metadata,
    )


def _shown(found: Answer, version: Kind, stored: Resource) -> Answer:
    """The answer in the version that was asked for."""
    if isinstance(found, Single):
        if found.kind is not None:
            return Single(_converted(found.stored, version), version, found.code)
        details = found.object.get("details")
        if stored.group != version.resource.group and details:  # the Status of a deletion
            details = {**details, "group": version.resource.group}
            return Single(unstored({**found.object, "details": details}), code=found.code)
        return found
    if isinstance(found, Collection):
        items = [_converted(stored, version) for stored in found.items]
        return replace(found, kind=version, items=items)
    if isinstance(found, Watching):
        return Watching(version, partial(_batches, found, version))
    return found


def _converted(stored: Stored, version: Kind) -> Stored:
    return Stored(stored.key, stored.revision, object=version.from_stored(stored.object))


async def _batches(
    found: Watching, version: Kind, take: Take | None = None
) -> AsyncGenerator[Sequence[Seen], None]:
    def seen_so(batch: Sequence[Seen]) -> Sequence[Seen]:
        return [Seen(seen.type, _converted(seen.stored, version)) for seen in batch]

    told = found.batches(take and (lambda batch: take(seen_so(batch))))
    async with contextlib.aclosing(told) as batches:
        async for batch in batches:
            yield seen_so(batch)
