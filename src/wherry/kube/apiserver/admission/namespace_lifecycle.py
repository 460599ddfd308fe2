"""Nothing is created where there is no namespace, or where one is going; some never go."""

from __future__ import annotations

from wherry.kube.api.errors import not_found
from wherry.kube.api.resources import NAMESPACES
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context

_IMMORTAL = ("default", "kube-system", "kube-public")


def admit(attributes: Attributes, context: Context) -> None:
    if attributes.resource is NAMESPACES:
        if attributes.operation == "DELETE" and attributes.name in _IMMORTAL:
            raise attributes.forbidden("this namespace may not be deleted")
        return
    if not attributes.resource.namespaced or attributes.operation == "DELETE":
        return
    if attributes.resource.plural == "localsubjectaccessreviews":
        return  # whether there is a namespace is not for everybody to know
    found = context.cache.of(NAMESPACES).get("", attributes.namespace)
    if found is None:
        raise not_found("namespaces", attributes.namespace)
    if attributes.operation != "CREATE" or attributes.subresource:
        return
    namespace = found.object
    if (
        namespace["metadata"].get("deletionTimestamp") is None
        and namespace.get("status", {}).get("phase") != "Terminating"
    ):
        return
    name = attributes.namespace
    error = attributes.forbidden(
        f"unable to create new content in namespace {name} because it is being terminated"
    )
    error.details = {
        **(error.details or {}),
        "causes": [
            {
                "reason": "NamespaceTerminating",
                "message": f"namespace {name} is being terminated",
                "field": "metadata.namespace",
            }
        ],
    }
    raise error
