"""May they: role-based access control over roles and their bindings.

The rules built into every cluster are a table (`policy`); Role and ClusterRole objects will feed
the same evaluator. What no rule allows is refused.
https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from wherry.kube.api.errors import StatusError, forbidden
from wherry.kube.apiserver.authn import MASTERS
from wherry.kube.apiserver.request import RequestInfo, User

ALL = "*"


@dataclass(frozen=True, slots=True)
class Rule:
    """Verbs on resources (``pods``, ``pods/log``, ``*/scale``) of groups, or on URL paths."""

    verbs: tuple[str, ...]
    groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()

    def allows(self, verb: str, info: RequestInfo) -> bool:
        if ALL not in self.verbs and verb not in self.verbs:
            return False
        if not info.is_resource:
            return any(
                info.path == url or (url.endswith(ALL) and info.path.startswith(url[:-1]))
                for url in self.urls
            )
        if ALL not in self.groups and info.group not in self.groups:
            return False
        if self.names and info.name not in self.names:
            return False
        asked = f"{info.plural}/{info.subresource}" if info.subresource else info.plural
        return (
            ALL in self.resources
            or asked in self.resources
            or (bool(info.subresource) and f"*/{info.subresource}" in self.resources)
        )


@dataclass(frozen=True, slots=True)
class Grant:
    """Rules for users or groups; in one namespace, or ("") everywhere."""

    rules: tuple[Rule, ...]
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    namespace: str = ""

    def concerns(self, user: User) -> bool:
        return user.name in self.users or any(group in self.groups for group in user.groups)


class Authorizer:
    """Decides by grants. Decisions are remembered: the grants do not change."""

    def __init__(self, grants: Iterable[Grant]) -> None:
        self._grants = tuple(grants)
        self._decide = lru_cache(16384)(self._evaluate)

    def allows(self, user: User, info: RequestInfo) -> bool:
        return MASTERS in user.groups or self._decide(user, info.verb, info)

    def check(self, user: User, info: RequestInfo) -> None:
        """Raises StatusError 403."""
        if not self.allows(user, info):
            raise refusal(user, info)

    def may_impersonate(self, user: User, kind: str, name: str) -> bool:
        """Whether ``user`` may act as another (``kind``: users, groups)."""
        info = RequestInfo("", "", "impersonate", True, "", "v1", kind, "", "", name)
        return self.allows(user, info)

    def _evaluate(self, user: User, verb: str, info: RequestInfo) -> bool:
        return any(
            rule.allows(verb, info)
            for grant in self._grants
            if (not grant.namespace or grant.namespace == info.namespace) and grant.concerns(user)
            for rule in grant.rules
        )


def refusal(user: User, info: RequestInfo) -> StatusError:
    """403, saying who may not do what."""
    if not info.is_resource:
        return StatusError(
            403,
            "Forbidden",
            f'forbidden: User "{user.name}" cannot {info.verb} path "{info.path}"',
            details={},
        )
    resource = f"{info.plural}/{info.subresource}" if info.subresource else info.plural
    where = f'in the namespace "{info.namespace}"' if info.namespace else "at the cluster scope"
    return forbidden(
        info.plural,
        info.name,
        f'User "{user.name}" cannot {info.verb} resource "{resource}" in API group '
        f'"{info.group}" {where}',
        info.group,
    )
