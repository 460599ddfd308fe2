"""Which requests a webhook or a policy is about: rules, selectors, and versions that are the same.

Upstream: k8s.io/apiserver/pkg/admission/plugin/webhook/{rules,predicates}.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from wherry.kube.api.catalogue import Served
from wherry.kube.api.errors import not_found
from wherry.kube.api.resources import NAMESPACES, Resource
from wherry.kube.api.selectors import LabelSelector, labels_from_object
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.cache import Cache

Object = dict[str, Any]
Labels = Mapping[str, str]

_ALL = "*"


class Rule(NamedTuple):
    """Operations on resources, as RuleWithOperations has them."""

    operations: frozenset[str]
    groups: frozenset[str]
    versions: frozenset[str]
    resources: tuple[tuple[str, str], ...]
    scope: str
    names: frozenset[str]

    @classmethod
    def of(cls, rule: Object) -> Rule:
        resources = []
        for each in rule.get("resources") or ():
            plural, _, below = each.partition("/")
            resources.append((plural, below))
        return cls(
            frozenset(rule.get("operations") or ()),
            frozenset(rule.get("apiGroups") or ()),
            frozenset(rule.get("apiVersions") or ()),
            tuple(resources),
            rule.get("scope") or _ALL,
            frozenset(rule.get("resourceNames") or ()),
        )

    def is_about(self, resource: Resource, subresource: str) -> bool:
        """Whether it names that resource, in that version."""
        if _ALL not in self.groups and resource.group not in self.groups:
            return False
        if _ALL not in self.versions and resource.version not in self.versions:
            return False
        return any(
            plural in (_ALL, resource.plural) and below in (_ALL, subresource)
            for plural, below in self.resources
        )

    def allows(self, attributes: Attributes) -> bool:
        """Whether the request has its operation, scope and name."""
        if _ALL not in self.operations and attributes.operation not in self.operations:
            return False
        if self.names and attributes.name not in self.names:
            return False
        if self.scope == _ALL:
            return True
        inside = attributes.resource is not NAMESPACES and bool(attributes.namespace)
        return inside == (self.scope == "Namespaced")


def versions_of(served: Served, resource: Resource) -> Sequence[Resource]:
    """All that serve the same objects as ``resource``, itself first."""
    stored = resource.stored_as or resource
    others = [
        each
        for each in served.resources
        if (each == stored or each.stored_as == stored) and each != resource and not each.hidden
    ]
    return [resource, *others]


class Selection:
    """Rules and selectors of one webhook, policy or binding."""

    def __init__(
        self,
        match: Object,
        rules: Iterable[Object],
        excluded: Iterable[Object] = (),
    ) -> None:
        self.rules = tuple(map(Rule.of, rules))
        self.excluded = tuple(map(Rule.of, excluded))
        self.equivalent = match.get("matchPolicy", "Equivalent") != "Exact"
        self._namespaces = _selector(match.get("namespaceSelector"))
        self._objects = _selector(match.get("objectSelector"))

    def version(self, served: Served, attributes: Attributes, asked: Resource) -> Resource | None:
        """The version in which the request is to be shown; None if it is not meant.

        ``asked`` is the resource that the client named.
        """
        if self._named(self.excluded, served, attributes, asked) is not None:
            return None
        return self._named(self.rules, served, attributes, asked)

    def names(
        self, served: Served, attributes: Attributes, asked: Resource, *, any_resource: bool
    ) -> bool:
        """Whether the request is meant; ``any_resource``: where no rule says which, all are."""
        if self._named(self.excluded, served, attributes, asked) is not None:
            return False
        return any_resource or self._named(self.rules, served, attributes, asked) is not None

    def _named(
        self, rules: tuple[Rule, ...], served: Served, attributes: Attributes, asked: Resource
    ) -> Resource | None:
        below = attributes.subresource
        allowing = [rule for rule in rules if rule.allows(attributes)]
        if not allowing:
            return None
        versions = versions_of(served, asked) if self.equivalent else (asked,)
        for version in versions:
            if any(rule.is_about(version, below) for rule in allowing):
                return version
        return None

    def selects(self, attributes: Attributes, cache: Cache) -> bool:
        """Whether the labels of the namespace and of the object are those wanted.

        Raises:
            StatusError: 404, there is no such namespace.
        """
        if self._namespaces is not None and not self._in_namespace(attributes, cache):
            return False
        return self._objects is None or any(
            self._objects.matches(_labels(o)) for o in _states(attributes)
        )

    def _in_namespace(self, attributes: Attributes, cache: Cache) -> bool:
        assert self._namespaces is not None
        labels = namespace_labels(attributes, cache)
        return labels is None or self._namespaces.matches(labels)


def _selector(selector: Object | None) -> LabelSelector | None:
    if not selector:
        return None
    parsed = labels_from_object(selector)
    return None if parsed.empty else parsed


def _states(attributes: Attributes) -> Sequence[Object]:
    found = [o for o in (attributes.object, attributes.old) if o is not None]
    return found or [{}]


def _labels(o: Object) -> Labels:
    return (o.get("metadata") or {}).get("labels") or {}


def namespace_labels(attributes: Attributes, cache: Cache) -> Labels | None:
    """The labels of the namespace a request is about or in; None where there is none.

    Raises:
        StatusError: 404, there is no such namespace.
    """
    found = namespace_of(attributes, cache)
    return None if found is None else _labels(found)


def namespace_of(attributes: Attributes, cache: Cache) -> Object | None:
    """The namespace a request is about or in. Raises StatusError 404."""
    if attributes.resource is NAMESPACES:
        if attributes.object is not None and not attributes.subresource:
            return attributes.object
        name = attributes.name
        if attributes.old is not None:
            return attributes.old
    elif not attributes.namespace:
        return None
    else:
        name = attributes.namespace
    stored = cache.of(NAMESPACES).get("", name)
    if stored is None:
        raise not_found("namespaces", name)
    return stored.object
