"""From a request to the verb that answers it: one table for objects, one for what is below them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import (
    BINDINGS,
    COMPONENT_STATUSES,
    LOCAL_SUBJECT_ACCESS_REVIEWS,
    SELF_SUBJECT_ACCESS_REVIEWS,
    SELF_SUBJECT_REVIEWS,
    SELF_SUBJECT_RULES_REVIEWS,
    SUBJECT_ACCESS_REVIEWS,
    TOKEN_REVIEWS,
    Resource,
)
from wherry.kube.api.subresources import subresource
from wherry.kube.api.warnings import DEPRECATED
from wherry.kube.apiserver.answers import Answer
from wherry.kube.apiserver.authz import reviews
from wherry.kube.apiserver.registry import (
    components,
    creating,
    deleting,
    eviction,
    patching,
    reading,
    subresources,
    tokens,
    updating,
    versions,
    watching,
)
from wherry.kube.apiserver.registry.backend import Backend
from wherry.kube.apiserver.request import APIRequest

Handler = Callable[[Backend, APIRequest], Coroutine[Any, Any, Answer]]


async def _get(backend: Backend, request: APIRequest) -> Answer:
    return await reading.get(backend.records(request.info.served), backend.cache, request)


async def _list(backend: Backend, request: APIRequest) -> Answer:
    return await reading.list_(backend.records(request.info.served), backend.cache, request)


async def _watch(backend: Backend, request: APIRequest) -> Answer:
    return watching.watch(backend.records(request.info.served), backend.cache, request)


def _as_version(found: Handler) -> Handler:
    """A custom resource is answered for in the version that is asked for."""

    async def answer(backend: Backend, request: APIRequest) -> Answer:
        from wherry.kube.apiserver.extensions import views

        if deprecation := getattr(backend.records(request.info.served).kind, "deprecation", ""):
            request.warnings.append(deprecation)
        return await views.answer(backend, request, found)

    return answer


async def _in_old_version(backend: Backend, request: APIRequest) -> Answer:
    return await versions.answer(backend, request, handler)


VERBS: dict[str, Handler] = {
    "get": _get,
    "list": _list,
    "watch": _watch,
    "create": creating.create,
    "update": updating.update,
    "patch": patching.patch,
    "delete": deleting.delete,
    "deletecollection": deleting.delete_collection,
}

SUBRESOURCES: dict[tuple[str, str], Handler] = {
    ("status", "get"): _get,
    ("status", "update"): updating.update,
    ("status", "patch"): patching.patch,
    ("finalize", "update"): updating.update,
    ("approval", "get"): _get,
    ("approval", "update"): updating.update,
    ("approval", "patch"): patching.patch,
    ("ephemeralcontainers", "get"): _get,
    ("ephemeralcontainers", "update"): updating.update,
    ("ephemeralcontainers", "patch"): patching.patch,
    ("resize", "get"): _get,
    ("resize", "update"): updating.update,
    ("resize", "patch"): patching.patch,
    ("scale", "get"): subresources.get_scale,
    ("scale", "update"): subresources.put_scale,
    ("scale", "patch"): subresources.patch_scale,
    ("binding", "create"): subresources.bind,
    ("eviction", "create"): eviction.evict,
    ("token", "create"): tokens.request_token,
}

ANSWERED: dict[Resource, Handler] = {
    BINDINGS: subresources.bind_named,
    COMPONENT_STATUSES: components.show,
    TOKEN_REVIEWS: tokens.review_token,
    SELF_SUBJECT_REVIEWS: tokens.review_self,
    SUBJECT_ACCESS_REVIEWS: reviews.subject_access_review,
    LOCAL_SUBJECT_ACCESS_REVIEWS: reviews.local_subject_access_review,
    SELF_SUBJECT_ACCESS_REVIEWS: reviews.self_subject_access_review,
    SELF_SUBJECT_RULES_REVIEWS: reviews.self_subject_rules_review,
}
"""What lies in no store: it is answered at once."""


def not_allowed() -> StatusError:
    """405: the path is served, the method is not."""
    return StatusError(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
        details={},
    )


def handler(request: APIRequest) -> Handler:
    """What answers the request.

    Raises:
        StatusError: 404, no such resource; 405, it has no such verb.
    """
    info = request.info
    resource = info.served
    if not resource.group and (deprecation := DEPRECATED.get(resource.plural)):
        request.warnings.append(deprecation)
    if resource.stored_as is not None and not resource.custom:
        return _in_old_version
    if info.subresource:
        found = SUBRESOURCES.get((info.subresource, info.verb))
        if found is None or info.verb not in subresource(resource, info.subresource).verbs:
            raise not_allowed()
        return _as_version(found) if resource.custom else found
    if info.verb not in resource.verbs or not _has_place(resource, request):
        raise not_allowed()
    if (answering := ANSWERED.get(resource)) is not None:
        return answering
    return _as_version(VERBS[info.verb]) if resource.custom else VERBS[info.verb]


def _has_place(resource: Resource, request: APIRequest) -> bool:
    """Across all namespaces objects can be seen, not changed; a create names no object, an update
    and a patch name one."""
    info = request.info
    if resource.namespaced and not info.namespace and info.verb not in ("list", "watch"):
        return False
    if info.verb == "create":
        return not info.name
    return bool(info.name) or info.verb not in ("update", "patch")
