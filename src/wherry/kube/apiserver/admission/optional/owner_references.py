"""OwnerReferencesPermissionEnforcement: who names another owner could delete the object himself;
and who lets it block its owner's deletion could set finalizers on that one.

Upstream: plugin/pkg/admission/gc.
"""

from __future__ import annotations

from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.objects import Object
from wherry.kube.apiserver.request import RequestInfo


def _owners(o: Object | None) -> list[Object]:
    return ((o or {}).get("metadata") or {}).get("ownerReferences") or []


async def validate(attributes: Attributes, context: Context) -> None:
    if attributes.resource.plural == "pods" and attributes.subresource == "status":
        return
    new, old = _owners(attributes.object), _owners(attributes.old)
    if new == old:
        return
    resource = attributes.resource
    if attributes.operation != "CREATE":
        asked = RequestInfo(
            *("", "", "delete", True, resource.group, resource.version, resource.plural),
            *(attributes.subresource, attributes.namespace, attributes.name),
        )
        if why := await _refused(attributes, context, asked):
            raise attributes.forbidden(
                f"cannot set an ownerRef on a resource you can't delete: {why}"
            )
    before = {owner["uid"] for owner in old if owner.get("blockOwnerDeletion")}
    for owner in new:
        if owner.get("blockOwnerDeletion") and owner["uid"] not in before:
            await _check_owner(attributes, context, owner)


async def _check_owner(attributes: Attributes, context: Context, owner: Object) -> None:
    group, _, version = owner["apiVersion"].rpartition("/")
    kind = context.catalogue.served.by_kind(group, version, owner["kind"])
    if kind is None:
        raise attributes.forbidden(
            "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for "
            f"APIVersion {owner['apiVersion']} Kind {owner['kind']}: no matches for kind "
            f'"{owner["kind"]}" in version "{owner["apiVersion"]}"'
        )
    resource = kind.resource
    namespace = attributes.namespace if resource.namespaced else ""
    asked = RequestInfo(
        *("", "", "update", True, resource.group, resource.version, resource.plural),
        *("finalizers", namespace, owner["name"]),
    )
    if why := await _refused(attributes, context, asked):
        raise attributes.forbidden(
            "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't "
            f"set finalizers on: {why}"
        )


async def _refused(attributes: Attributes, context: Context, asked: RequestInfo) -> str:
    """Why the writer may not do that, or ""."""
    decision = await context.authorizer.authorize(attributes.user, asked)
    return "" if decision.allowed else f"{decision.reason}, <nil>"
