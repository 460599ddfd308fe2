"""Roles, ClusterRoles and their bindings: the objects. What they allow is the authorizer's.

Upstream: pkg/apis/rbac/v1/defaults.go and pkg/apis/rbac/validation/validation.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from wherry.kube.api import names
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import checks, fields, label_selectors
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.durations import age
from wherry.kube.api.kinds.equality import equal

GROUP: Final = "rbac.authorization.k8s.io"

_ROLES = ("Role", "ClusterRole")
_SUBJECTS = ("ServiceAccount", "User", "Group")


class Role(Kind):
    """What may be done, in a namespace or (ClusterRole) everywhere."""

    create_on_update = True
    columns = (NAME_COLUMN, Column("Created At", "date", description="When it was created."))

    def name_messages(self, name: str, prefix: bool) -> list[str]:
        return names.is_path_segment(name)

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        for index, rule in enumerate(o.get("rules") or ()):
            _check_rule(rule, f"rules[{index}]", faults, namespaced=self.resource.namespaced)
        if (aggregation := o.get("aggregationRule")) is not None:
            where = "aggregationRule.clusterRoleSelectors"
            selectors = aggregation.get("clusterRoleSelectors") or ()
            if not selectors:
                why = "at least one clusterRoleSelector required if aggregationRule is non-nil"
                faults.append(fields.required(where, why))
            for index, selector in enumerate(selectors):
                label_selectors.check_selector(selector, f"{where}[{index}]", faults)
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta = o["metadata"]
        return [meta.get("name", ""), meta.get("creationTimestamp")]


class RoleBinding(Kind):
    """Who may do what a role says."""

    create_on_update = True
    columns = (
        NAME_COLUMN,
        Column("Role", description="The role that is granted."),
        AGE_COLUMN,
        Column("Users", description="Users it is granted to.", priority=1),
        Column("Groups", description="Groups it is granted to.", priority=1),
        Column("ServiceAccounts", description="Service accounts it is granted to.", priority=1),
    )

    def name_messages(self, name: str, prefix: bool) -> list[str]:
        return names.is_path_segment(name)

    def default(self, o: Object) -> None:
        role = o.setdefault("roleRef", {})
        if not role.get("apiGroup"):
            role["apiGroup"] = GROUP
        for subject in o.get("subjects") or ():
            if subject.get("kind") in ("User", "Group") and not subject.get("apiGroup"):
                subject["apiGroup"] = GROUP

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        role = o.get("roleRef") or {}
        if (group := role.get("apiGroup", "")) != GROUP:
            faults.append(fields.not_supported("roleRef.apiGroup", group, (GROUP,)))
        supported = _ROLES if self.resource.namespaced else _ROLES[1:]
        if (kind := role.get("kind", "")) not in supported:
            faults.append(fields.not_supported("roleRef.kind", kind, supported))
        if not (name := role.get("name", "")):
            faults.append(fields.required("roleRef.name"))
        else:
            checks.check(names.is_path_segment, name, "roleRef.name", faults)
        for index, subject in enumerate(o.get("subjects") or ()):
            where = f"subjects[{index}]"
            _check_subject(subject, where, faults, namespaced=self.resource.namespaced)
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        faults = self.validate_body(new)
        if not equal(new.get("roleRef"), old.get("roleRef")):
            role = new.get("roleRef") or {}
            shown = fields.Struct({k: role.get(low, "") for k, low in _ROLE_FIELDS if low in role})
            faults.append(fields.invalid("roleRef", shown, "cannot change roleRef"))
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, role = o["metadata"], o.get("roleRef") or {}
        named: dict[str, list[str]] = {kind: [] for kind in _SUBJECTS}
        for subject in o.get("subjects") or ():
            name = subject.get("name", "")
            if subject.get("kind") == "ServiceAccount":
                name = f"{subject.get('namespace', '')}/{name}"
            named.setdefault(subject.get("kind", ""), []).append(name)
        return [
            meta.get("name", ""),
            f"{role.get('kind', '')}/{role.get('name', '')}",
            age(meta.get("creationTimestamp"), now),
            ", ".join(named["User"]),
            ", ".join(named["Group"]),
            ", ".join(named["ServiceAccount"]),
        ]


_ROLE_FIELDS = (("APIGroup", "apiGroup"), ("Kind", "kind"), ("Name", "name"))


def _check_rule(rule: Object, path: str, faults: Faults, *, namespaced: bool) -> None:
    if not rule.get("verbs"):
        faults.append(fields.required(f"{path}.verbs", "verbs must contain at least one value"))
    if urls := rule.get("nonResourceURLs"):
        where = f"{path}.nonResourceURLs"
        if namespaced:
            why = "namespaced rules cannot apply to non-resource URLs"
            faults.append(fields.invalid(where, urls, why))
        if any(rule.get(name) for name in ("apiGroups", "resources", "resourceNames")):
            why = "rules cannot apply to both regular resources and non-resource URLs"
            faults.append(fields.invalid(where, urls, why))
        return
    if not rule.get("apiGroups"):
        why = "resource rules must supply at least one api group"
        faults.append(fields.required(f"{path}.apiGroups", why))
    if not rule.get("resources"):
        why = "resource rules must supply at least one resource"
        faults.append(fields.required(f"{path}.resources", why))


def _check_subject(subject: Object, path: str, faults: Faults, *, namespaced: bool) -> None:
    name, kind = subject.get("name", ""), subject.get("kind", "")
    group = subject.get("apiGroup", "")
    if not name:
        faults.append(fields.required(f"{path}.name"))
    if kind == "ServiceAccount":
        if name:
            checks.dns_subdomain(name, f"{path}.name", faults)
        if group:
            faults.append(fields.not_supported(f"{path}.apiGroup", group, ("",)))
        if not namespaced and not subject.get("namespace"):
            faults.append(fields.required(f"{path}.namespace"))
    elif kind in ("User", "Group"):
        if group != GROUP:
            faults.append(fields.not_supported(f"{path}.apiGroup", group, (GROUP,)))
    else:
        faults.append(fields.not_supported(f"{path}.kind", kind, _SUBJECTS))
