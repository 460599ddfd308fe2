"""Role-based access control: what the present roles and bindings allow.

The index follows the cache: bindings by whom they name, roles parsed once. What was found out is
remembered by user, verb and resource (not by the object's name, so that a client who reads a
thousand pods asks once), until any role or binding changes.

https://kubernetes.io/docs/reference/access-authn-authz/rbac/; upstream:
plugin/pkg/auth/authorizer/rbac and pkg/registry/rbac/validation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from wherry.kube.api.errors import StatusError, not_found
from wherry.kube.api.names import quoted
from wherry.kube.api.resources import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES
from wherry.kube.apiserver.authz.decision import NO_OPINION, Decision
from wherry.kube.apiserver.authz.rules import Rule, rules_of
from wherry.kube.apiserver.cache import Cache, Event
from wherry.kube.apiserver.request import RequestInfo, User

_REMEMBERED = 16384  # answers kept at most
_LONGEST = 512  # characters of a path that is worth remembering

Role = Mapping[str, Any]
Subject = tuple[str, str]
"""``("User", name)`` or ``("Group", name)``; a service account is a user."""


@dataclass(frozen=True, slots=True)
class _Grant:
    """What a binding gives one of its subjects; ``why`` is upstream's reason for allowing."""

    namespace: str
    role: Role
    why: str


@dataclass(slots=True)
class _Bindings:
    """What one subject was granted: by namespace ("": everywhere), then by the binding's key."""

    by_namespace: dict[str, dict[str, _Grant]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Found:
    """What is known of one verb on one resource: grants in order, each for some names or (None)
    all; and what is answered where none fits."""

    grants: tuple[tuple[frozenset[str] | None, Decision], ...]
    otherwise: Decision


class RBAC:
    """Decides by the roles and bindings in ``cache``, once `follow` was called."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._subjects: dict[Subject, _Bindings] = {}
        self._rules: dict[tuple[str, str], tuple[Rule, ...]] = {}
        self._remembered: dict[tuple[object, ...], _Found] = {}

    def follow(self) -> None:
        """Take in what the cache holds, and keep to its events from now on."""
        for resource in (CLUSTER_ROLE_BINDINGS, ROLE_BINDINGS):
            bindings = self._cache.of(resource)
            for stored in bindings.list():
                self._bind(stored.key, stored.object)
            bindings.listen(self._binding_changed)
        for resource in (CLUSTER_ROLES, ROLES):
            self._cache.of(resource).listen(self._role_changed)

    # --- deciding -----------------------------------------------------------------------------

    def decide(self, user: User, info: RequestInfo) -> Decision:
        """Allowed, with the binding that does it; or no opinion, with what went wrong."""
        key: tuple[object, ...]
        if info.is_resource:
            key = (
                user,
                info.verb,
                info.group,
                info.plural,
                info.subresource,
                info.namespace,
            )
        else:
            key = (user, info.verb, info.path)
        found = self._remembered.get(key)
        if found is None:
            found = self._find(user, info)
            if len(info.path) <= _LONGEST:
                if len(self._remembered) >= _REMEMBERED:
                    self._remembered.clear()
                self._remembered[key] = found
        for names, decision in found.grants:
            if names is None or info.name in names:
                return decision
        return found.otherwise

    def rules_for(self, user: User, namespace: str) -> tuple[list[Rule], list[str]]:
        """All rules that hold for ``user`` in a namespace; and which roles are missing."""
        rules: list[Rule] = []
        errors: list[str] = []
        for grant in self._granted(user, namespace):
            try:
                rules += self.rules_of(grant.role, grant.namespace)
            except StatusError as error:
                errors.append(error.message)
        return rules, errors

    def incomplete(self, user: User) -> bool:
        """Its rules are all it allows by."""
        return False

    def rules_of(self, role: Role, namespace: str) -> tuple[Rule, ...]:
        """The rules of the role that a ``roleRef`` names, in a binding of that namespace.

        Raises:
            StatusError: 404, there is no such role.
        """
        kind, name = role.get("kind", ""), role.get("name", "")
        key = (namespace if kind == ROLES.kind else "", name)
        rules = self._rules.get(key)
        if rules is None:
            resource = ROLES if kind == ROLES.kind else CLUSTER_ROLES
            stored = self._cache.of(resource).get(*key)
            if stored is None:
                raise not_found(f"{resource.singular}.{resource.group}", name)
            rules = self._rules[key] = rules_of(stored.object)
        return rules

    def _find(self, user: User, info: RequestInfo) -> _Found:
        grants: list[tuple[frozenset[str] | None, Decision]] = []
        errors: list[str] = []
        for grant in self._granted(user, info.namespace):
            try:
                rules = self.rules_of(grant.role, grant.namespace)
            except StatusError as error:
                errors.append(error.message)
                continue
            decision = Decision(allowed=True, reason=f"RBAC: allowed by {grant.why}")
            for rule in rules:
                if not rule.concerns(info):
                    continue
                if not rule.names:
                    return _Found((*grants, (None, decision)), NO_OPINION)
                grants.append((frozenset(rule.names), decision))
        reason = f"RBAC: {aggregate(errors)}" if errors else ""
        return _Found(tuple(grants), Decision(reason=reason) if reason else NO_OPINION)

    def _granted(self, user: User, namespace: str) -> Iterator[_Grant]:
        """What bindings give the user and his groups: everywhere, then in the namespace."""
        subjects = [("User", user.name), *(("Group", group) for group in user.groups)]
        for where in ("", namespace) if namespace else ("",):
            grants: dict[str, _Grant] = {}
            for subject in subjects:
                if (bound := self._subjects.get(subject)) is not None:
                    for key, grant in bound.by_namespace.get(where, {}).items():
                        grants.setdefault(key, grant)
            for key in sorted(grants):
                yield grants[key]

    # --- following ----------------------------------------------------------------------------

    def _binding_changed(self, event: Event) -> None:
        self._remembered.clear()
        if event.previous is not None:
            self._unbind(event.key, event.previous.object)
        if event.current is not None:
            self._bind(event.key, event.current.object)

    def _role_changed(self, event: Event) -> None:
        self._remembered.clear()
        namespace, _, name = event.key.rpartition("/")
        self._rules.pop((namespace, name), None)

    def _bind(self, key: str, binding: Mapping[str, Any]) -> None:
        namespace = binding["metadata"].get("namespace", "")
        role = binding.get("roleRef") or {}
        for entry in binding.get("subjects") or ():
            subject = _subject(entry, namespace)
            if subject is None:
                continue
            bound = self._subjects.setdefault(subject, _Bindings())
            grants = bound.by_namespace.setdefault(namespace, {})
            if key not in grants:  # of several that name the same, the first is the reason
                grants[key] = _Grant(namespace, role, _why(binding, entry))

    def _unbind(self, key: str, binding: Mapping[str, Any]) -> None:
        namespace = binding["metadata"].get("namespace", "")
        for entry in binding.get("subjects") or ():
            subject = _subject(entry, namespace)
            if subject is None or (bound := self._subjects.get(subject)) is None:
                continue
            grants = bound.by_namespace.get(namespace)
            if grants is not None:
                grants.pop(key, None)
                if not grants:
                    del bound.by_namespace[namespace]
            if not bound.by_namespace:
                del self._subjects[subject]


def _subject(entry: Mapping[str, Any], namespace: str) -> Subject | None:
    """Whom an entry in a binding's ``subjects`` means; None is nobody."""
    name = entry.get("name", "")
    match entry.get("kind"):
        case "User" | "Group" as kind:
            return (kind, name)
        case "ServiceAccount":
            home = entry.get("namespace") or namespace
            return ("User", f"system:serviceaccount:{home}:{name}") if home else None
    return None


def _why(binding: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    metadata, role = binding["metadata"], binding.get("roleRef") or {}
    name, namespace = metadata["name"], metadata.get("namespace", "")
    kind, whose = entry.get("kind", ""), entry.get("name", "")
    if kind == "ServiceAccount":
        whose = f"{whose}/{entry.get('namespace') or namespace}"
    if namespace:
        bound = f"RoleBinding {quoted(f'{name}/{namespace}')}"
    else:
        bound = f"ClusterRoleBinding {quoted(name)}"
    of = f"{role.get('kind', '')} {quoted(role.get('name', ''))}"
    return f"{bound} of {of} to {kind} {quoted(whose)}"


def aggregate(errors: list[str]) -> str:
    """Several errors as upstream prints them together."""
    unique = list(dict.fromkeys(errors))
    return unique[0] if len(unique) == 1 else f"[{', '.join(unique)}]"
