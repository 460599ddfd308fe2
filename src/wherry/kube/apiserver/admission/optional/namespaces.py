"""NamespaceAutoProvision: a namespace is made for the first object in it. NamespaceExists: of a
namespace that does not exist nothing is written, nor deleted."""

from __future__ import annotations

from wherry.kube.api.errors import StatusError, not_found
from wherry.kube.api.resources import NAMESPACES
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context


def _missing(attributes: Attributes, context: Context) -> bool:
    return (
        attributes.resource.namespaced
        and context.cache.of(NAMESPACES).get("", attributes.namespace) is None
    )


async def provide(attributes: Attributes, context: Context) -> None:
    if attributes.dry_run or not _missing(attributes, context):
        return
    from wherry.kube.apiserver.server import SELF

    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": attributes.namespace},
    }
    try:
        await context.transport(SELF).request("POST", NAMESPACES.path(), body=namespace)
    except StatusError as error:
        if error.reason != "AlreadyExists":
            raise attributes.forbidden(error.message) from error


def exists(attributes: Attributes, context: Context) -> None:
    if _missing(attributes, context):
        raise not_found("namespaces", attributes.namespace)
