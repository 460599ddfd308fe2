"""Objects turned from one version into another: of custom resources by name or by webhook.

Versions of a definition without a conversion webhook have the same fields, so an object of one
becomes one of another by its ``apiVersion``. Otherwise its webhook is asked (ConversionReview), and
may change everything but what identifies the object.
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/
Upstream: k8s.io/apiextensions-apiserver/pkg/apiserver/conversion/webhook_converter.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wherry.kube.api.catalogue import Served
from wherry.kube.api.conversion.version import OldVersion
from wherry.kube.api.errors import StatusError
from wherry.kube.api.meta import new_uid
from wherry.kube.api.names import annotation_errors, label_errors
from wherry.kube.api.resources import Resource

if TYPE_CHECKING:
    from wherry.kube.api.catalogue import Served
    from wherry.kube.api.kinds import Kind
    from wherry.kube.apiserver.registry.backend import Backend

Object = dict[str, Any]

_GROUP = "apiextensions.k8s.io"
_VERSIONS = ("v1", "v1beta1")
_SECONDS = 30


class BadAnswer(Exception):
    """An answer that is no ConversionReview as it should be."""


def webhook_of(kind: Kind | None) -> Object | None:
    """``spec.conversion.webhook`` of the definition that ``kind`` is of, where it is in use."""
    found: Object | None = getattr(kind, "conversion_webhook", None)
    return found


async def convert(backend: Backend, objects: Sequence[Object], to: Resource) -> list[Object]:
    """Objects of one resource, custom or not, in version ``to``; those that are so already, as they
    are.

    Raises:
        StatusError: 500, the webhook cannot.
    """
    served = backend.catalogue.served
    if not to.custom:
        return [_of_old(served, o, to) for o in objects]
    webhook = webhook_of(served.by_kind(to.group, to.version, to.kind))
    if webhook is None:
        return [in_version(o, to) for o in objects]
    others = [o for o in objects if o.get("apiVersion") != to.api_version]
    if not others:
        return list(objects)
    made = iter(await _ask(backend, webhook, others, to))
    return [o if o.get("apiVersion") == to.api_version else next(made) for o in objects]


def _of_old(served: Served, o: Object, to: Resource) -> Object:
    """An object of a built-in kind: from one old version, or to one."""
    if o.get("apiVersion") == to.api_version:
        return o
    group, _, version = o.get("apiVersion", "").rpartition("/")
    source = served.by_kind(group, version, o.get("kind", ""))
    if isinstance(source, OldVersion):
        o = source.to_stored(o)
    target = served.by_kind(to.group, to.version, to.kind)
    return target.from_stored(o) if isinstance(target, OldVersion) else o


def in_version(o: Object, to: Resource) -> Object:
    """``o`` by the name of another version."""
    return o if o.get("apiVersion") == to.api_version else {**o, "apiVersion": to.api_version}


async def _ask(
    backend: Backend, webhook: Object, objects: Sequence[Object], to: Resource
) -> list[Object]:
    from wherry.kube.apiserver.extensions.callout import CalloutFailed

    source = f"{objects[0].get('apiVersion')}, Kind={objects[0].get('kind')}"
    uid = new_uid()
    try:
        version = version_for(webhook.get("conversionReviewVersions") or ())
        review = review_of(version, uid, objects, to)
        answer = await backend.callouts.ask(webhook.get("clientConfig") or {}, review, _SECONDS)
        made = read(answer, version, uid)
    except (CalloutFailed, BadAnswer) as error:
        raise _failed(f"conversion webhook for {source} failed: {error}") from None
    if len(made) != len(objects):
        raise _failed(
            f"conversion webhook for {source} returned {len(made)} objects, expected {len(objects)}"
        )
    out = []
    for i, (before, after) in enumerate(zip(objects, made, strict=True)):
        try:
            out.append(checked(before, after, to))
        except BadAnswer as error:
            raise _failed(
                f"conversion webhook for {source} returned invalid converted object at index "
                f"{i}: {error}"
            ) from None
    return out


def _failed(why: str) -> StatusError:
    return StatusError(500, "", why)


# --- reviews, without I/O -----------------------------------------------------------------------


def version_for(accepted: Sequence[str]) -> str:
    """The first version of reviews that a webhook takes and we speak. Raises BadAnswer."""
    for version in accepted:
        if version in _VERSIONS:
            return version
    raise BadAnswer(
        "conversion webhook does not support any of the known ConversionReview versions "
        f"({', '.join(_VERSIONS)})"
    )


def review_of(version: str, uid: str, objects: Sequence[Object], to: Resource) -> Object:
    """The question: these objects, please, in that version."""
    return {
        "kind": "ConversionReview",
        "apiVersion": f"{_GROUP}/{version}",
        "request": {"uid": uid, "desiredAPIVersion": to.api_version, "objects": list(objects)},
    }


def read(answer: Any, version: str, uid: str) -> list[Any]:
    """The objects that an answer holds. Raises BadAnswer."""
    if not isinstance(answer, dict):
        raise BadAnswer("couldn't get version/kind; json parse error: no object")
    wanted = f"{_GROUP}/{version}, Kind=ConversionReview"
    given = f"{answer.get('apiVersion') or ''}, Kind={answer.get('kind') or ''}"
    if given != wanted:
        raise BadAnswer(f"expected webhook response of {wanted}, got {given}")
    response = answer.get("response")
    if not isinstance(response, dict):
        raise BadAnswer("no response provided")
    if version == "v1" and response.get("uid", "") != uid:
        raise BadAnswer(f'expected response.uid="{uid}", got "{response.get("uid", "")}"')
    result = response.get("result")
    result = result if isinstance(result, dict) else {}
    status = result.get("status") or ""
    if status != "Success":
        raise BadAnswer(
            result.get("message") or f"response.result.status was '{status}', not 'Success'"
        )
    made = response.get("convertedObjects")
    return made if isinstance(made, list) else []


def checked(before: Object, after: Any, to: Resource) -> Object:
    """``after``, which a webhook made of ``before``: still the same object, its metadata as it
    was but for labels and annotations. Raises BadAnswer."""
    if not isinstance(after, dict):
        raise BadAnswer("no object")
    if after.get("apiVersion") != to.api_version:
        raise BadAnswer(f"invalid groupVersion: {after.get('apiVersion') or ''}")
    new, old = after.get("metadata"), before["metadata"]
    if not isinstance(new, dict):
        raise BadAnswer("missing metadata in converted object")
    identity = (("kind", after, before), ("name", new, old), ("namespace", new, old),
                ("uid", new, old))  # fmt: skip
    for name, a, b in identity:
        if (a.get(name) or "") != (b.get(name) or ""):
            shown = "UID" if name == "uid" else name
            raise BadAnswer(f"must have the same {shown}: {b.get(name)} != {a.get(name)}")
    metadata = {k: v for k, v in old.items() if k not in ("labels", "annotations")}
    for name, errors in (("labels", label_errors), ("annotations", annotation_errors)):
        given = new.get(name)
        if not given:
            continue
        if not isinstance(given, dict) or not all(isinstance(v, str) for v in given.values()):
            raise BadAnswer(f"invalid metadata of type {type(given).__name__} in {name}")
        if faults := errors(given, f"metadata.{name}"):
            raise BadAnswer(str(faults[0]))
        metadata[name] = given
    return {**after, "metadata": metadata}
