"""Nobody grants what he does not have: the check before a role or a binding is written.

Who may ``escalate`` a role may write any rules into it; who may ``bind`` one may give it to others.
https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping
Upstream: pkg/registry/rbac, policybased.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from wherry.kube.api.errors import forbidden
from wherry.kube.api.names import quoted
from wherry.kube.api.resources import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES
from wherry.kube.apiserver.authn.users import MASTERS
from wherry.kube.apiserver.authz.authorizer import Authorizer
from wherry.kube.apiserver.authz.rbac import aggregate
from wherry.kube.apiserver.authz.rules import (
    EVERYTHING,
    Rule,
    compact,
    listed,
    missing,
    rules_of,
)
from wherry.kube.apiserver.objects import Object
from wherry.kube.apiserver.request import RequestInfo, User

GROUP = ROLES.group
_ROLES = (ROLES, CLUSTER_ROLES)
_BINDINGS = (ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS)
_AGGREGATION = "must have cluster-admin privileges to use the aggregationRule"


async def check(
    authorizer: Authorizer, user: User, info: RequestInfo, new: Object, old: Object | None
) -> None:
    """Whether ``user`` may write ``new``, of the group rbac.authorization.k8s.io, in place of
    ``old``.

    Raises:
        StatusError: 403, it grants more than he has; 404, it binds a role that is not there.
    """
    if MASTERS in user.groups:
        return
    if old is not None and _same_but_for_collector(new, old):
        return
    if info.resource in _ROLES:
        await _check_role(authorizer, user, info, new, old)
    elif info.resource in _BINDINGS:
        await _check_binding(authorizer, user, info, new)


async def _check_role(
    authorizer: Authorizer, user: User, info: RequestInfo, new: Object, old: Object | None
) -> None:
    if (await authorizer.authorize(user, replace(info, verb="escalate", version="*"))).allowed:
        return
    if why := excess(authorizer, user, info.namespace, rules_of(new)):
        raise _refused(info, new, why)
    aggregates = _aggregates(new) or (old is not None and _aggregates(old))
    if aggregates and excess(authorizer, user, info.namespace, EVERYTHING):
        raise _refused(info, new, _AGGREGATION)


async def _check_binding(
    authorizer: Authorizer, user: User, info: RequestInfo, new: Object
) -> None:
    role = new.get("roleRef") or {}
    plural = {ROLES.kind: ROLES.plural, CLUSTER_ROLES.kind: CLUSTER_ROLES.plural}.get(
        role.get("kind", "")
    )
    if plural is None:
        return  # the rules of the kind refuse it
    bind = RequestInfo(
        "",
        "",
        "bind",
        True,
        role.get("apiGroup", ""),
        "*",
        plural,
        "",
        info.namespace,
        role.get("name", ""),
    )
    if (await authorizer.authorize(user, bind)).allowed:
        return
    granted = authorizer.rbac.rules_of(role, info.namespace)
    if why := excess(authorizer, user, info.namespace, granted):
        raise _refused(info, new, why)


def excess(authorizer: Authorizer, user: User, namespace: str, wanted: Sequence[Rule]) -> str:
    """What ``wanted`` allows and ``user`` may not himself, as a sentence; "" if nothing."""
    held, errors = authorizer.rbac.rules_for(user, namespace)
    lacking = missing(held, wanted)
    if not lacking:
        return ""
    shown = "\n".join(sorted({str(rule) for rule in compact(lacking)}))
    text = (
        f"user {quoted(user.name)} (groups={listed(user.groups)}) is attempting to grant RBAC "
        f"permissions not currently held:\n{shown}"
    )
    return f"{text}; resolution errors: [{aggregate(errors)}]" if errors else text


def _refused(info: RequestInfo, new: Object, why: str) -> Exception:
    return forbidden(info.plural, new["metadata"].get("name", ""), why, info.group)


def _aggregates(role: Object) -> bool:
    return bool((role.get("aggregationRule") or {}).get("clusterRoleSelectors"))


_COLLECTED = ("ownerReferences", "finalizers", "managedFields", "resourceVersion")


def _same_but_for_collector(new: Object, old: Object) -> bool:
    """Whether only that changes by which an object is collected in the end."""

    def bare(o: Object) -> Object:
        metadata = {k: v for k, v in o["metadata"].items() if k not in _COLLECTED}
        return {**o, "metadata": metadata}

    return bare(new) == bare(old)
