"""A rule of a role: which requests it allows, which other rules it covers, how it reads.

Pure functions over the PolicyRule of rbac.authorization.k8s.io/v1. Upstream:
pkg/apis/rbac/v1/evaluation_helpers.go and k8s.io/component-helpers/auth/rbac/validation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wherry.kube.api.names import quoted
from wherry.kube.apiserver.request import RequestInfo

ALL = "*"


@dataclass(frozen=True, slots=True)
class Rule:
    """Verbs on resources (``pods``, ``pods/log``, ``*/scale``) of groups, or on URL paths."""

    verbs: tuple[str, ...]
    groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()

    @classmethod
    def of(cls, rule: Mapping[str, Any]) -> Rule:
        """The rule that a role's entry says."""
        return cls(*(tuple(rule.get(field) or ()) for field in _FIELDS))

    def as_object(self) -> dict[str, list[str]]:
        """The rule as a role's entry."""
        return {field: list(values) for field, values in self._shown() if values}

    def allows(self, info: RequestInfo) -> bool:
        return self.concerns(info) and (not self.names or info.name in self.names)

    def concerns(self, info: RequestInfo) -> bool:
        """Whether it allows the request for some name at least."""
        if ALL not in self.verbs and info.verb not in self.verbs:
            return False
        if not info.is_resource:
            return any(_url_covers(url, info.path) for url in self.urls)
        if ALL not in self.groups and info.group not in self.groups:
            return False
        asked = f"{info.plural}/{info.subresource}" if info.subresource else info.plural
        return (
            ALL in self.resources
            or asked in self.resources
            or (bool(info.subresource) and f"*/{info.subresource}" in self.resources)
        )

    def covers(self, atom: Rule) -> bool:
        """Whether all that ``atom``, a part of a rule as `atoms` gives it, allows is allowed."""
        if ALL not in self.verbs and not _within(atom.verbs, self.verbs):
            return False
        if ALL not in self.groups and not _within(atom.groups, self.groups):
            return False
        if self.names and not (atom.names and _within(atom.names, self.names)):
            return False
        return all(self._has_resource(resource) for resource in atom.resources) and all(
            any(_url_covers(mine, url) for mine in self.urls) for url in atom.urls
        )

    def _has_resource(self, resource: str) -> bool:
        if ALL in self.resources or resource in self.resources:
            return True
        _, slash, subresource = resource.partition("/")
        return bool(slash) and f"*/{subresource}" in self.resources

    def atoms(self) -> Iterator[Rule]:
        """The rule taken apart: one verb and one resource, name or path each."""
        for group in self.groups:
            for resource in self.resources:
                for verb in self.verbs:
                    for name in self.names or ("",):
                        yield Rule((verb,), (group,), (resource,), (name,) if name else ())
        for url in self.urls:
            for verb in self.verbs:
                yield Rule((verb,), urls=(url,))

    def __str__(self) -> str:
        """As upstream prints a rule to people."""
        shown = [f"{_TITLES[field]}:{listed(values)}" for field, values in self._shown() if values]
        return f"{{{', '.join(shown)}}}"

    def _shown(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return (
            ("apiGroups", self.groups),
            ("resources", self.resources),
            ("nonResourceURLs", self.urls),
            ("resourceNames", self.names),
            ("verbs", self.verbs),
        )


_FIELDS = ("verbs", "apiGroups", "resources", "resourceNames", "nonResourceURLs")
_TITLES = {
    "apiGroups": "APIGroups",
    "resources": "Resources",
    "nonResourceURLs": "NonResourceURLs",
    "resourceNames": "ResourceNames",
    "verbs": "Verbs",
}

EVERYTHING = (Rule((ALL,), (ALL,), (ALL,)), Rule((ALL,), urls=(ALL,)))
"""What cluster-admin has."""


def rules_of(role: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The rules of a Role or ClusterRole."""
    return tuple(Rule.of(rule) for rule in role.get("rules") or ())


def listed(values: Iterable[str]) -> str:
    """Strings as Go's ``%q`` prints a list of them."""
    return f"[{' '.join(quoted(value) for value in values)}]"


def missing(held: Sequence[Rule], wanted: Iterable[Rule]) -> list[Rule]:
    """What ``wanted`` allows and ``held`` does not, in atoms."""
    return [
        atom
        for rule in wanted
        for atom in rule.atoms()
        if not any(mine.covers(atom) for mine in held)
    ]


def compact(atoms: Iterable[Rule]) -> list[Rule]:
    """The same with the verbs on one thing taken together."""
    together: dict[Rule, Rule] = {}
    for atom in atoms:
        if atom.urls:
            together[atom] = atom
            continue
        key = replace(atom, verbs=())
        before = together.get(key)
        together[key] = replace(atom, verbs=(*before.verbs, *atom.verbs)) if before else atom
    return list(together.values())


def _within(some: Iterable[str], others: Sequence[str]) -> bool:
    return all(one in others for one in some)


def _url_covers(mine: str, path: str) -> bool:
    return mine == path or (mine.endswith(ALL) and path.startswith(mine.rstrip(ALL)))
