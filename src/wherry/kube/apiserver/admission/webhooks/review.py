"""AdmissionReview: the question to a webhook, and its answer. Without I/O.

Upstream: k8s.io/apiserver/pkg/admission/plugin/webhook/request/admissionreview.go.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

import orjson

from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import Resource
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.request import User

Object = dict[str, Any]

_GROUP = "admission.k8s.io"
_VERSIONS = ("v1", "v1beta1")
_JSON_PATCH = "JSONPatch"


class BadAnswer(Exception):
    """An answer that is no AdmissionReview as it should be."""


@dataclass(slots=True)
class Verdict:
    """What a webhook says. ``patch`` is a JSON patch, empty where nothing is to change."""

    allowed: bool
    patch: list[Any] = field(default_factory=list)
    result: Object | None = None
    warnings: list[str] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)


def user_info(user: User) -> Object:
    """A user as reviews tell of one."""
    info: Object = {"username": user.name}
    if user.uid:
        info["uid"] = user.uid
    if user.groups:
        info["groups"] = list(user.groups)
    if extra := getattr(user, "extra", None):
        pairs = extra.items() if isinstance(extra, dict) else extra
        info["extra"] = {name: list(values) for name, values in pairs}
    return info


def kind_of(resource: Resource, subresource: str, o: Object | None) -> Object:
    """The kind of what a request carries: below a resource, often another one than its own."""
    if o is not None and subresource and o.get("kind") and o["kind"] != resource.kind:
        group, _, version = o.get("apiVersion", "").rpartition("/")
        return {"group": group, "version": version, "kind": o["kind"]}
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def resource_of(resource: Resource) -> Object:
    return {"group": resource.group, "version": resource.version, "resource": resource.plural}


def request_of(
    attributes: Attributes, uid: str, asked: Resource, version: Resource, o: Any, old: Any
) -> Object:
    """An AdmissionRequest.

    Args:
        asked: the resource the client named; ``version``: the one the webhook wants to see.
        o, old: the objects, in that version.
    """
    carried = attributes.object if attributes.object is not None else attributes.old
    request: Object = {
        "uid": uid,
        "kind": kind_of(version, attributes.subresource, carried),
        "resource": resource_of(version),
        "requestKind": kind_of(asked, attributes.subresource, carried),
        "requestResource": resource_of(asked),
    }
    if attributes.subresource:
        request["subResource"] = request["requestSubResource"] = attributes.subresource
    name = attributes.name
    if not name and attributes.object is not None:
        name = (attributes.object.get("metadata") or {}).get("name", "")
    if name:
        request["name"] = name
    namespace = attributes.namespace
    if not namespace and attributes.resource.plural == "namespaces" and not asked.group:
        namespace = name
    if namespace:
        request["namespace"] = namespace
    request |= {
        "operation": attributes.operation,
        "userInfo": user_info(attributes.user),
        "object": o,
        "oldObject": old,
        "dryRun": attributes.dry_run,
        "options": attributes.options_object(),
    }
    return request


def version_for(accepted: list[str]) -> str:
    """The first version of reviews that a webhook takes and we speak. Raises BadAnswer."""
    for version in accepted:
        if version in _VERSIONS:
            return version
    raise BadAnswer("webhook does not accept known AdmissionReview versions (v1, v1beta1)")


def review_of(version: str, request: Object) -> Object:
    return {"kind": "AdmissionReview", "apiVersion": f"{_GROUP}/{version}", "request": request}


def read(answer: Any, version: str, uid: str, *, mutating: bool) -> Verdict:
    """What a webhook's answer says. Raises BadAnswer."""
    if not isinstance(answer, dict):
        raise BadAnswer(
            "couldn't get version/kind; json parse error: json: cannot unmarshal "
            f"{_go(answer)} into Go value of type struct"
        )
    response = answer.get("response")
    if version == "v1" or answer.get("apiVersion") or answer.get("kind"):
        _check_kind(answer, version)
    if response is None:
        raise BadAnswer("webhook response was absent")
    if not isinstance(response, dict):
        raise BadAnswer(
            f"json: cannot unmarshal {_go(response)} into Go struct field "
            "AdmissionReview.response of type v1.AdmissionResponse"
        )
    patch, kind = response.get("patch") or "", response.get("patchType")
    if version == "v1":
        if response.get("uid", "") != uid:
            raise BadAnswer(f'expected response.uid="{uid}", got "{response.get("uid", "")}"')
        _check_patch(patch, kind, mutating=mutating)
    result = response.get("status")
    return Verdict(
        response.get("allowed") is True,
        _patch(patch) if mutating else [],
        result if isinstance(result, dict) else None,
        [str(each) for each in _list(response.get("warnings"))],
        {str(k): str(v) for k, v in (response.get("auditAnnotations") or {}).items()},
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _go(value: Any) -> str:
    names = {str: "string", bool: "bool", int: "number", float: "number", list: "array"}
    return names.get(type(value), "value")


def _check_kind(answer: Object, version: str) -> None:
    wanted = f"{_GROUP}/{version}, Kind=AdmissionReview"
    api, kind = answer.get("apiVersion") or "", answer.get("kind") or ""
    if not kind:
        raise BadAnswer(f"Object 'Kind' is missing in '{orjson.dumps(answer).decode()}'")
    if not api:
        raise BadAnswer(f"Object 'apiVersion' is missing in '{orjson.dumps(answer).decode()}'")
    if f"{api}, Kind={kind}" != wanted:
        raise BadAnswer(f"expected webhook response of {wanted}, got {api}, Kind={kind}")


def _check_patch(patch: Any, kind: Any, *, mutating: bool) -> None:
    if not mutating:
        if patch:
            raise BadAnswer("validating webhook may not return response.patch")
        if kind is not None:
            raise BadAnswer("validating webhook may not return response.patchType")
        return
    if patch and kind is None:
        raise BadAnswer("webhook returned response.patch but not response.patchType")
    if not patch and kind is not None:
        raise BadAnswer("webhook returned response.patchType but not response.patch")
    if kind == "":
        raise BadAnswer('webhook returned invalid response.patchType of ""')
    if kind not in (None, _JSON_PATCH):
        raise BadAnswer(f'unsupported patch type "{kind}"')


def _patch(patch: Any) -> list[Any]:
    """The operations of a patch, which comes in base64. Raises StatusError 500."""
    if not patch:
        return []
    try:
        value = orjson.loads(base64.b64decode(patch, validate=True))
    except (ValueError, TypeError, binascii.Error) as error:
        raise internal(str(error)) from None
    if value is None:
        return []
    if not isinstance(value, list):
        raise internal("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    return value


def internal(why: str) -> StatusError:
    """500: it is the webhook or the server that is at fault, not the client."""
    return StatusError(
        500,
        "InternalError",
        f"Internal error occurred: {why}",
        details={"causes": [{"message": why}]},
    )


def denied(webhook: str, result: Object | None) -> StatusError:
    """The webhook's own refusal, with its code and reason.

    Upstream: k8s.io/apiserver/pkg/admission/plugin/webhook/errors/statuserror.go.
    """
    status = result or {}
    code, reason = status.get("code"), str(status.get("reason") or "")
    said = str(status.get("message") or "") or reason
    by = f'admission webhook "{webhook}" denied the request'
    details = status.get("details")
    return StatusError(
        code if isinstance(code, int) and code >= 400 else 400,
        reason,
        f"{by}: {said}" if said else f"{by} without explanation",
        details=details if isinstance(details, dict) else None,
    )
