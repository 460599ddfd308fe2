"""Request bodies: which media type they are of, and the object they hold.

Upstream: k8s.io/apiserver/pkg/endpoints/handlers (create.go, fieldvalidation).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wherry.kube.api.errors import StatusError, bad_request
from wherry.kube.api.kinds import Kind
from wherry.kube.api.schema import Decoded, decode_kind, parse_json, parse_yaml
from wherry.kube.apiserver.negotiate import JSON, YAML
from wherry.kube.apiserver.objects import Object
from wherry.kube.apiserver.request import APIRequest, Body

_MOST_WARNINGS = 100


def unsupported_media_type(accepted: Sequence[str]) -> StatusError:
    """415 in upstream's words."""
    return StatusError(
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join(accepted),
    )


def media_type(body: Body) -> str:
    """The body's media type without parameters; JSON where the client named none."""
    return body.content_type.split(";", 1)[0].strip().lower() or JSON


def read_value(body: Body, kind: str, schema: str) -> tuple[Any, list[str]]:
    """The JSON value a body holds, and complaints about its form. ``schema``: what it should be.

    Raises:
        StatusError: 400, 415.
    """
    if body.decoded:
        return body.value, []
    match media_type(body):
        case "application/json":
            return parse_json(body.data, kind)
        case "application/yaml" | "application/x-yaml":
            return parse_yaml(body.data, kind)
        case "application/vnd.kubernetes.protobuf":
            from wherry.kube.apiserver import protobuf

            return protobuf.read(body.data, schema), []
    raise unsupported_media_type((JSON, YAML, "application/vnd.kubernetes.protobuf"))


def read_object(request: APIRequest, kind: Kind, validation: str) -> Object:
    """The object in the body: a private copy, of known fields only, with metadata; of the version
    that the client speaks.

    Raises:
        StatusError: 400 or 415; also where ``validation`` is Strict and a field is unknown.
    """
    kind = request.version or kind
    resource = kind.resource
    value, complaints = read_value(request.body, resource.kind, resource.schema)
    decoded = kind.decode(value)
    return _judged(request, resource.kind, resource.api_version, validation, decoded, complaints)


def read_kind(
    request: APIRequest, schema: str, api_version: str, kind: str, validation: str
) -> Object:
    """As `read_object`, for what has no resource of its own: Scale, Binding, Eviction."""
    value, complaints = read_value(request.body, kind, schema)
    decoded = decode_kind(schema, api_version, kind, value)
    return _judged(request, kind, api_version, validation, decoded, complaints)


def _judged(
    request: APIRequest,
    kind: str,
    api_version: str,
    validation: str,
    decoded: Decoded,
    complaints: list[str],
) -> Object:
    complaints = complaints + decoded.unknown
    if complaints and validation == "Strict":
        version = api_version.rpartition("/")[2]
        raise bad_request(
            f'{kind} in version "{version}" cannot be handled as a {kind}: '
            f"strict decoding error: {', '.join(complaints)}"
        )
    warn(request, validation, complaints)
    decoded.value.setdefault("metadata", {})
    return decoded.value


def warn(request: APIRequest, validation: str, complaints: Sequence[str]) -> None:
    """Put the complaints into the answer's Warning headers, where the client wants to know."""
    if validation == "Warn":
        request.warnings += complaints[: _MOST_WARNINGS - len(request.warnings)]
