"""What a binding names as parameters of its policy.

Upstream: k8s.io/apiserver/pkg/admission/plugin/policy/generic/policy_dispatcher.go.
"""

from __future__ import annotations

from typing import Any

from wherry.kube.api.kinds import Kind
from wherry.kube.api.selectors import labels_from_object
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.admission.policies.definition import Binding, Policy
from wherry.kube.apiserver.extensions import conversion

Object = dict[str, Any]


class PolicyMisconfigured(Exception):
    """What a policy itself asks for cannot be had."""


class BindingMisconfigured(Exception):
    """What a binding asks for cannot be had."""


def kind_of(policy: Policy, context: Context) -> Kind:
    """The kind of the parameters. Raises PolicyMisconfigured."""
    assert policy.param_kind is not None
    api_version = policy.param_kind.get("apiVersion", "")
    group, _, version = api_version.rpartition("/")
    name = policy.param_kind.get("kind", "")
    kind = context.catalogue.served.by_kind(group, version, name)
    if kind is None or kind.resource.hidden:
        raise PolicyMisconfigured(
            f"failed to find resource referenced by paramKind: '{api_version}, Kind={name}'"
        )
    return kind


async def find(
    policy: Policy, binding: Binding, attributes: Attributes, context: Context
) -> list[Object | None]:
    """The parameters with each of which the policy is to be evaluated; [None] where it has none.

    Raises:
        PolicyMisconfigured, BindingMisconfigured, StatusError.
    """
    if policy.param_kind is None:
        return [None]
    kind = kind_of(policy, context)
    reference = binding.param
    if reference is None:
        return [None]
    resource = kind.resource
    namespace = reference.get("namespace") or ""
    if not resource.namespaced:
        if namespace:
            raise BindingMisconfigured(
                "paramRef.namespace must not be provided for a cluster-scoped `paramKind`"
            )
    elif not namespace:
        namespace = attributes.namespace
        if not namespace:
            raise BindingMisconfigured(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped "
                "resources"
            )
    cache = context.cache.of(resource.stored_as or resource)
    if name := reference.get("name"):
        stored = cache.get(namespace, name)
        found = [] if stored is None else [stored]
    else:
        selector = labels_from_object(reference.get("selector") or {})
        found = [
            stored
            for stored in cache.list(namespace)
            if selector.matches(stored.object["metadata"].get("labels"))
        ]
    if not found and reference.get("parameterNotFoundAction", "Deny") == "Deny":
        raise BindingMisconfigured(
            "no params found for policy binding with `Deny` parameterNotFoundAction"
        )
    objects = [stored.object for stored in found]
    return list(await conversion.convert(context.backend, objects, resource))
