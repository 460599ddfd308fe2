"""Tokens as the API hands them out and judges them: TokenRequest, TokenReview, SelfSubjectReview.

None of these is stored: what is posted comes back with its status filled in.
Upstream: pkg/registry/core/serviceaccount/storage/token.go, pkg/registry/authentication.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from wherry.kube.api import errors, meta
from wherry.kube.api.errors import FieldError, bad_request, invalid
from wherry.kube.api.resources import NODES, PODS, SECRETS, SERVICE_ACCOUNTS, Resource
from wherry.kube.apiserver.admission import of
from wherry.kube.apiserver.answers import Single
from wherry.kube.apiserver.content import read_kind
from wherry.kube.apiserver.objects import Object, answer
from wherry.kube.apiserver.options import parse_write_options
from wherry.kube.apiserver.registry.backend import Backend
from wherry.kube.apiserver.request import APIRequest, User

_GROUP = "authentication.k8s.io"
_VERSION = f"{_GROUP}/v1"
_SCHEMA = "io.k8s.api.authentication.v1."
_SECONDS = 3600
_SHORTEST = 600
_LONGEST = 1 << 32
_POD_SECONDS = 3607  # what the volume of a pod asks for: its token is only late then,
_EXTENDED_SECONDS = 365 * 24 * 3600  # and ends a year later
_BINDABLE: dict[tuple[str, str], Resource] = {
    ("v1", "Pod"): PODS,
    ("v1", "Secret"): SECRETS,
    ("v1", "Node"): NODES,
}


# --- TokenRequest -------------------------------------------------------------------------------


async def request_token(backend: Backend, request: APIRequest) -> Single:
    """POST to ``serviceaccounts/NAME/token``: a token for the account."""
    options = parse_write_options(request.query, "CreateOptions", request.user_agent)
    schema = _SCHEMA + "TokenRequest"
    asked = read_kind(request, schema, _VERSION, "TokenRequest", options.field_validation)
    info = request.info
    account = backend.records(SERVICE_ACCOUNTS).get(info.namespace, info.name).object
    _check_place(asked["metadata"], info.namespace, info.name)
    spec = asked.setdefault("spec", {})
    identities = backend.identities
    issuer, config = identities.service_accounts, identities.config
    spec.setdefault("expirationSeconds", _SECONDS)
    attributes = of(request, "CREATE", asked, None, options)
    await backend.admission.mutate(attributes)
    asked = attributes.new
    spec = asked["spec"]
    if not spec.get("audiences"):
        spec["audiences"] = list(issuer.audiences)
    seconds = spec["expirationSeconds"]
    if fault := _fault(seconds):
        raise invalid("TokenRequest", info.name, [fault], _GROUP)
    await backend.admission.validate(attributes)
    bound = _bound_objects(backend, info.namespace, info.name, spec.get("boundObjectRef") or {})
    if config.longest_token and seconds > config.longest_token:
        request.warnings.append(
            f"requested expiration of {seconds} seconds shortened to {config.longest_token} seconds"
        )
        seconds = spec["expirationSeconds"] = config.longest_token
    holds, warn_after = seconds, 0
    if (
        config.extend_tokens
        and "pod" in bound
        and seconds == _POD_SECONDS
        and set(spec["audiences"]) <= set(issuer.audiences)
    ):
        holds, warn_after = _EXTENDED_SECONDS, seconds
    token = issuer.issue(account, spec["audiences"], holds, bound, warn_after)
    expires = datetime.fromtimestamp(int(time.time()) + seconds, UTC)
    asked["metadata"] = {
        "name": info.name,
        "namespace": info.namespace,
        "creationTimestamp": meta.now(),
    }
    asked["status"] = {"token": token, "expirationTimestamp": meta.format_time(expires)}
    return Single(answer(asked), code=201)


def _check_place(metadata: Object, namespace: str, name: str) -> None:
    if metadata.get("namespace", namespace) != namespace:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    if (metadata.get("name") or name) != name:
        raise bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL "
            f"({name})"
        )


def _fault(seconds: int) -> FieldError | None:
    if seconds < _SHORTEST:
        why = "may not specify a duration less than 10 minutes"
    elif seconds > _LONGEST:
        why = "may not specify a duration larger than 2^32 seconds"
    else:
        return None
    return FieldError(
        "spec.expirationSeconds", "FieldValueInvalid", f"Invalid value: {seconds}: {why}"
    )


def _bound_objects(
    backend: Backend, namespace: str, account: str, reference: Object
) -> dict[str, Object]:
    """The object a token is to be bound to, and for a pod the node it is on. Raises StatusError."""
    if not reference:
        return {}
    api_version, kind = reference.get("apiVersion", ""), reference.get("kind", "")
    resource = _BINDABLE.get((api_version, kind))
    if resource is None:
        group, _, version = api_version.rpartition("/")
        raise bad_request(f"cannot bind token to object of type {group}/{version}, Kind={kind}")
    name = reference.get("name", "")
    found = backend.records(resource).get(namespace if resource.namespaced else "", name).object
    bound: dict[str, Object] = {kind.lower(): found}
    if resource is PODS:
        if found["spec"].get("serviceAccountName") != account:
            raise bad_request(
                f'cannot bind token for serviceaccount "{account}" to pod running with different '
                "serviceaccount name."
            )
        if node := found["spec"].get("nodeName"):
            on = backend.cache.of(NODES).get("", node)
            if on is not None:
                bound["node"] = on.object
    wanted = reference.get("uid")
    if wanted and wanted != meta.uid(found):
        raise errors.conflict(
            kind,
            name,
            f"the UID in the bound object reference ({wanted}) does not match the UID in record. "
            "The object might have been deleted and then recreated",
        )
    return bound


# --- reviews ------------------------------------------------------------------------------------


async def review_token(backend: Backend, request: APIRequest) -> Single:
    """POST of a TokenReview: whom a token stands for."""
    asked = await _read_review(backend, request, "TokenReview")
    spec = asked.get("spec") or {}
    token = spec.get("token", "")
    if not token:
        raise bad_request("token is required for TokenReview in authentication")
    authenticator = backend.identities.authenticator
    wanted = tuple(spec.get("audiences") or ())
    found, why = await authenticator.token(token, wanted or authenticator.audiences)
    status: Object = {"user": {}}
    if found is None:
        status["error"] = why
    else:
        status = {
            "authenticated": True,
            "user": user_info(found.user),
            "audiences": list(found.audiences),
        }
    asked["status"] = status
    return Single(answer(asked), code=201)


async def review_self(backend: Backend, request: APIRequest) -> Single:
    """POST of a SelfSubjectReview: who the client is."""
    asked = await _read_review(backend, request, "SelfSubjectReview")
    asked["metadata"] = {**asked["metadata"], "creationTimestamp": meta.now()}
    asked["status"] = {"userInfo": user_info(request.user)}
    return Single(answer(asked), code=201)


async def _read_review(backend: Backend, request: APIRequest, kind: str) -> Object:
    options = parse_write_options(request.query, "CreateOptions", request.user_agent)
    asked = read_kind(request, _SCHEMA + kind, _VERSION, kind, options.field_validation)
    if asked["metadata"].get("namespace"):
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    return await backend.admit(request, asked, options)


def user_info(user: User) -> Object:
    """A user as authentication/v1 UserInfo."""
    info: Object = {"username": user.name}
    if user.uid:
        info["uid"] = user.uid
    if user.groups:
        info["groups"] = list(user.groups)
    if user.extra:
        info["extra"] = {key: list(values) for key, values in user.extra.items()}
    return info
