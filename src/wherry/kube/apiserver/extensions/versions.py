"""A custom resource in a version it is not stored in: asked for, stored, and answered in turn.

Versions without a conversion webhook have the same fields, so an object of one becomes one of
another by its name (https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/
custom-resource-definition-versioning/). The request goes on as one for the stored version.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from wherry.kube.api.errors import StatusError
from wherry.kube.api.kinds import Kind
from wherry.kube.api.patch import JSON_PATCH
from wherry.kube.api.resources import Resource
from wherry.kube.apiserver.answers import Answer, Collection, Seen, Single, Watching
from wherry.kube.apiserver.content import media_type, read_object
from wherry.kube.apiserver.negotiate import JSON
from wherry.kube.apiserver.objects import Object, Stored
from wherry.kube.apiserver.options import parse_write_options
from wherry.kube.apiserver.registry.backend import Backend
from wherry.kube.apiserver.request import APIRequest, Body, no_such_path

Handler = Callable[[Backend, APIRequest], Coroutine[Any, Any, Answer]]


async def answer(
    backend: Backend, request: APIRequest, stored: Resource, handler: Callable[..., Handler]
) -> Answer:
    """What a request for another version of ``stored`` is answered with.

    ``handler`` finds what answers a request for the stored version. Raises StatusError.
    """
    info = request.info
    kind = backend.catalogue.served.kind(info.group, info.version, info.plural)
    if kind is None:
        raise no_such_path()
    if getattr(kind, "conversion", None) is not None:
        # Renaming it would make an object of the wrong form: better none than that.
        raise StatusError(
            500,
            "InternalError",
            f"Internal error occurred: conversion webhook for {stored.api_version}, "
            f"Kind={stored.kind} failed: conversion webhooks are not called by this server; use "
            f"the stored version {stored.version}",
        )
    if deprecation := getattr(kind, "deprecation", ""):
        request.warnings.append(deprecation)
    inner = replace(info, resource=stored, version=stored.version)
    asked = replace(request, info=inner, body=_body(request, kind, stored))
    found = await handler(asked)(backend, asked)
    return _shown(found, kind)


def _body(request: APIRequest, kind: Kind, stored: Resource) -> Body:
    """The body as one of the stored version."""
    body, info = request.body, request.info
    if body.empty or info.verb not in ("create", "update", "patch") or info.subresource == "scale":
        return body
    if info.verb == "patch":
        if media_type(body) == JSON_PATCH:
            return body
        value = body.value
        if not body.decoded:
            from wherry.kube.api.schema import parse_yaml

            # JSON is YAML, too; what is neither is told of where the patch is read.
            try:
                value, _ = parse_yaml(body.data, kind.resource.kind)
            except StatusError:
                return body
        if not isinstance(value, dict) or value.get("apiVersion") != kind.resource.api_version:
            return body
        value = {**value, "apiVersion": stored.api_version}
        return Body(body.content_type, value=value, decoded=True)
    options = "CreateOptions" if info.verb == "create" else "UpdateOptions"
    validation = parse_write_options(request.query, options, request.user_agent).field_validation
    o = read_object(request, kind, validation)
    kind.default(o)
    return Body(JSON, value={**o, "apiVersion": stored.api_version}, decoded=True)


def _as(o: Object, kind: Kind) -> Object:
    return {**o, "apiVersion": kind.resource.api_version}


def _converted(stored: Stored, kind: Kind) -> Stored:
    return Stored(stored.key, stored.revision, object=_as(stored.object, kind))


def _shown(found: Answer, kind: Kind) -> Answer:
    """The answer in the version that was asked for."""
    if isinstance(found, Single):
        if found.kind is None:
            return found
        return Single(_converted(found.stored, kind), kind, found.code)
    if isinstance(found, Collection):
        return replace(found, kind=kind, items=[_converted(s, kind) for s in found.items])
    if isinstance(found, Watching):
        return Watching(kind, _batches(found, kind))
    return found


async def _batches(found: Watching, kind: Kind) -> AsyncGenerator[Sequence[Seen], None]:
    async with contextlib.aclosing(found.batches) as batches:
        async for batch in batches:
            yield [Seen(seen.type, _converted(seen.stored, kind)) for seen in batch]
