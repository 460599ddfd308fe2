"""What expressions of webhooks and policies can see of a write: CEL's variables.

https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#validation-expression
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from wherry.kube.api import cel
from wherry.kube.api.cel.authorizer import Authorizer, Question, Verdict
from wherry.kube.api.kinds.expressions import CONDITION_NAMES, POLICY_NAMES
from wherry.kube.api.resources import Resource
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.admission.matching import namespace_of
from wherry.kube.apiserver.admission.webhooks.review import request_of
from wherry.kube.apiserver.request import RequestInfo, User

__all__ = ["CONDITION_NAMES", "POLICY_NAMES", "Budget", "Environment"]

Object = dict[str, Any]

CALL_BUDGET = 1_000_000
"""Steps one expression may take."""

_NAMESPACE_METADATA = (
    "name", "generateName", "namespace", "labels", "annotations", "uid", "creationTimestamp",
    "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "resourceVersion",
    "finalizers",
)  # fmt: skip


class Budget:
    """Steps that the expressions of one webhook, or one policy, may take together."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def evaluate(self, program: cel.Program, variables: Mapping[str, Any]) -> Any:
        """Raises CELError, CostExceeded."""
        given = min(self.left, CALL_BUDGET)
        value, rest = program.measured(variables, given)
        self.left -= given - rest
        return value


class Environment:
    """The variables of one write, made when they are first used.

    Args:
        version: the resource as the expressions see it; ``shown``: the objects in that version,
            where they are not those of the attributes.
    """

    def __init__(
        self,
        attributes: Attributes,
        context: Context,
        asked: Resource,
        version: Resource | None = None,
        shown: tuple[Object | None, Object | None] | None = None,
    ) -> None:
        self._attributes = attributes
        self._context = context
        self._asked = asked
        self._version = version or asked
        self._shown = shown or (attributes.object, attributes.old)

    @cached_property
    def variables(self) -> dict[str, Any]:
        new, old = self._shown
        return {
            "object": new,
            "oldObject": old,
            "request": lambda: self._request,
            "authorizer": lambda: self._authorizer,
            "namespaceObject": lambda: self._namespace,
        }

    @cached_property
    def _request(self) -> Object:
        request = request_of(self._attributes, "", self._asked, self._version, None, None)
        for name in ("uid", "object", "oldObject"):
            del request[name]
        for name in ("name", "namespace", "subResource", "requestSubResource"):
            request.setdefault(name, "")
        info = request["userInfo"]
        request["userInfo"] = {"username": "", "uid": "", "groups": [], "extra": {}, **info}
        return request

    @cached_property
    def _namespace(self) -> Object | None:
        found = namespace_of(self._attributes, self._context.cache)
        if found is None:
            return None
        metadata = found["metadata"]
        return {
            "metadata": {k: metadata[k] for k in _NAMESPACE_METADATA if k in metadata},
            "spec": found.get("spec") or {},
            "status": found.get("status") or {},
        }

    @cached_property
    def _authorizer(self) -> Authorizer:
        a, asked = self._attributes, self._asked
        request = Question(
            group=asked.group,
            resource=asked.plural,
            subresource=a.subresource,
            namespace=a.namespace,
            name=a.name,
        )
        return Authorizer(self._decide, request)

    def _decide(self, question: Question) -> Verdict:
        q, user = question, self._attributes.user
        if q.account is not None:
            user = service_account(*q.account)
        if q.path:
            info = RequestInfo(q.verb.upper(), q.path, q.verb)
        else:
            info = RequestInfo(
                "", "", q.verb, True, q.group, "*", q.resource, q.subresource, q.namespace, q.name
            )
        decision = self._context.authorizer.decide(user, info)
        return Verdict(decision.allowed, decision.reason, decision.error)


def service_account(namespace: str, name: str) -> User:
    """The user that a service account is."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    return User(f"system:serviceaccount:{namespace}:{name}", (*groups, "system:authenticated"))
