"""The reviews of authorization.k8s.io: may somebody, may I, what may I. Answered, not stored.

Upstream: pkg/registry/authorization.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wherry.kube.api.errors import FieldError, StatusError, bad_request, invalid
from wherry.kube.api.kinds import fields
from wherry.kube.api.selectors import FieldSelector, FieldTerm, labels_from_object
from wherry.kube.apiserver.answers import Single
from wherry.kube.apiserver.authz.decision import Decision
from wherry.kube.apiserver.content import read_object
from wherry.kube.apiserver.objects import Object, answer
from wherry.kube.apiserver.options import parse_write_options
from wherry.kube.apiserver.request import APIRequest, RequestInfo, User

if TYPE_CHECKING:
    from wherry.kube.apiserver.registry.backend import Backend

_SELECTING = ("list", "watch", "deletecollection")
_FIELD_OPERATORS = {"In": False, "NotIn": True}


async def subject_access_review(backend: Backend, request: APIRequest) -> Single:
    """May this user or group do that?"""
    review = _read(backend, request)
    _judge(request, _subject_faults(review["spec"]) + _metadata_faults(review))
    return await _access(backend, review, subject(review["spec"]))


async def local_subject_access_review(backend: Backend, request: APIRequest) -> Single:
    """The same, in the namespace of the request."""
    review = _read(backend, request)
    spec = review["spec"]
    faults = _subject_faults(spec) + _metadata_faults(review, "namespace")
    asked = spec.get("resourceAttributes")
    namespace = request.info.namespace
    if asked is not None and asked.get("namespace", "") != namespace:
        where = "spec.resourceAttributes.namespace"
        faults.append(
            fields.invalid(where, asked.get("namespace", ""), "must match metadata.namespace")
        )
    if (path := spec.get("nonResourceAttributes")) is not None:
        why = "disallowed on this kind of request"
        faults.append(fields.invalid("spec.nonResourceAttributes", path, why))
    _judge(request, faults)
    return await _access(backend, review, subject(spec))


async def self_subject_access_review(backend: Backend, request: APIRequest) -> Single:
    """May I?"""
    review = _read(backend, request)
    _judge(request, _spec_faults(review["spec"]) + _metadata_faults(review))
    return await _access(backend, review, request.user)


async def self_subject_rules_review(backend: Backend, request: APIRequest) -> Single:
    """What may I, in a namespace?"""
    review = _read(backend, request)
    namespace = review["spec"].get("namespace", "")
    if not namespace:
        raise bad_request("no namespace on request")
    resolved = backend.authorizer.rules_for(request.user, namespace)
    status: Object = {
        "resourceRules": [rule.as_object() for rule in resolved.rules if rule.resources],
        "nonResourceRules": [
            {"verbs": list(rule.verbs), "nonResourceURLs": list(rule.urls)}
            for rule in resolved.rules
            if rule.urls
        ],
        "incomplete": resolved.incomplete,
    }
    if resolved.error:
        status["evaluationError"] = resolved.error
    return _answered({**review, "spec": {}, "status": status})


def subject(spec: Object) -> User:
    """Of whom a review's spec asks."""
    extra = spec.get("extra") or {}
    return User(
        spec.get("user", ""),
        tuple(spec.get("groups") or ()),
        spec.get("uid", ""),
        {key: tuple(values or ()) for key, values in extra.items()},
    )


def asked(spec: Object) -> tuple[RequestInfo, str]:
    """The request a review's spec asks of; and what of it was not understood.

    A selector that is not understood is left out: what is allowed without it is allowed with it.
    """
    attributes = spec.get("resourceAttributes")
    if attributes is None:
        other = spec["nonResourceAttributes"]
        return RequestInfo("", other.get("path", ""), other.get("verb", "")), ""
    errors: list[str] = []
    field_selector = label_selector = ""
    if attributes.get("verb") in _SELECTING:
        field_selector = _field_selector(attributes.get("fieldSelector"), errors)
        label_selector = _label_selector(attributes.get("labelSelector"), errors)
    info = RequestInfo(
        "",
        "",
        attributes.get("verb", ""),
        True,
        attributes.get("group", ""),
        attributes.get("version", ""),
        attributes.get("resource", ""),
        attributes.get("subresource", ""),
        attributes.get("namespace", ""),
        attributes.get("name", ""),
        field_selector=field_selector,
        label_selector=label_selector,
    )
    return info, "; ".join(errors)


def _field_selector(selector: Object | None, errors: list[str]) -> str:
    if selector is None:
        return ""
    if selector.get("rawSelector"):
        raw: str = selector["rawSelector"]
        return raw
    terms: list[FieldTerm] = []
    for requirement in selector.get("requirements") or ():
        operator, values = requirement.get("operator", ""), requirement.get("values") or []
        negated = _FIELD_OPERATORS.get(operator)
        if negated is None or len(values) != 1:
            errors.append(
                f"spec.resourceAttributes.fieldSelector ignored due to parse error: {operator} "
                "with these values is not supported"
            )
            continue
        terms.append(FieldTerm(requirement.get("key", ""), values[0], negated))
    return str(FieldSelector((*terms,)))


def _label_selector(selector: Object | None, errors: list[str]) -> str:
    if selector is None:
        return ""
    if selector.get("rawSelector"):
        raw: str = selector["rawSelector"]
        return raw
    try:
        return str(labels_from_object({"matchExpressions": selector.get("requirements")}))
    except StatusError as error:
        errors.append(
            f"spec.resourceAttributes.labelSelector ignored due to parse error: {error.message}"
        )
        return ""


# --- reading and answering ----------------------------------------------------------------------


def _read(backend: Backend, request: APIRequest) -> Object:
    kind = backend.records(request.info.served).kind
    options = parse_write_options(request.query, "CreateOptions", request.user_agent)
    review = read_object(request, kind, options.field_validation)
    namespace = request.info.namespace
    if namespace and review["metadata"].setdefault("namespace", namespace) != namespace:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    review["spec"] = review.get("spec") or {}
    return review


async def _access(backend: Backend, review: Object, user: User) -> Single:
    info, error = asked(review["spec"])
    decision = await backend.authorizer.authorize(user, info)
    return _answered({**review, "status": status(decision, error)})


def status(decision: Decision, error: str = "") -> Object:
    """A decision as the status of a review."""
    said: Object = {"allowed": decision.allowed}
    if decision.denied:
        said["denied"] = True
    if decision.reason:
        said["reason"] = decision.reason
    if errors := "; ".join(each for each in (decision.error, error) if each):
        said["evaluationError"] = errors
    return said


def _answered(review: Object) -> Single:
    first = ("kind", "apiVersion", "metadata")
    head: Object = {name: review[name] for name in first if name in review}
    return Single(answer({**head, **review}), code=201)


# --- rules --------------------------------------------------------------------------------------


def _judge(request: APIRequest, faults: list[FieldError]) -> None:
    if faults:
        resource = request.info.served
        raise invalid(resource.kind, "", faults, resource.group)


def _spec_faults(spec: Object) -> list[FieldError]:
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    faults = []
    if resource is not None and path is not None:
        why = "cannot be specified in combination with resourceAttributes"
        faults.append(fields.invalid("spec.nonResourceAttributes", path, why))
    if resource is None and path is None:
        why = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        faults.append(fields.invalid("spec.resourceAttributes", None, why))
    for name in ("fieldSelector", "labelSelector"):
        if selector := (resource or {}).get(name):
            faults += _selector_faults(selector, f"spec.resourceAttributes.{name}")
        elif selector is not None:
            faults += _selector_faults({}, f"spec.resourceAttributes.{name}")
    return faults


def _selector_faults(selector: Object, where: str) -> list[FieldError]:
    raw, requirements = selector.get("rawSelector"), selector.get("requirements")
    if raw and requirements:
        why = "may not specified at the same time as requirements"
        return [fields.invalid(f"{where}.rawSelector", raw, why)]
    if not raw and not requirements:
        why = f"when {where} is specified, requirements or rawSelector is required"
        return [fields.required(f"{where}.requirements", why)]
    faults = []
    for index, requirement in enumerate(requirements or ()):
        path = f"{where}.requirements[{index}]"
        operator = requirement.get("operator", "")
        if not requirement.get("key"):
            faults.append(fields.required(f"{path}.key", "must be specified"))
        if operator in ("In", "NotIn"):
            if not requirement.get("values"):
                why = "must be specified when `operator` is 'In' or 'NotIn'"
                faults.append(fields.required(f"{path}.values", why))
        elif operator in ("Exists", "DoesNotExist"):
            if requirement.get("values"):
                why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                faults.append(fields.forbidden(f"{path}.values", why))
        else:
            why = "not a valid selector operator"
            faults.append(fields.invalid(f"{path}.operator", operator, why))
    return faults


def _subject_faults(spec: Object) -> list[FieldError]:
    faults = _spec_faults(spec)
    if not spec.get("user") and not spec.get("groups"):
        why = "at least one of user or group must be specified"
        faults.append(fields.invalid("spec.user", spec.get("user", ""), why))
    return faults


def _metadata_faults(review: Object, *allowed: str) -> list[FieldError]:
    given = {
        name: value
        for name, value in review["metadata"].items()
        if name not in (*allowed, "managedFields") and value
    }
    if not given:
        return []
    why = "must be empty except for namespace" if allowed else "must be empty"
    return [fields.invalid("metadata", given, why)]
