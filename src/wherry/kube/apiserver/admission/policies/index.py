"""The policies that are bound, found for a request without looking at all.

What is made of them follows the cache, within the event that tells of a change.
"""

from __future__ import annotations

from typing import NamedTuple

from wherry.kube.api.catalogue import Served
from wherry.kube.api.resources import (
    MUTATING_ADMISSION_POLICIES,
    MUTATING_ADMISSION_POLICY_BINDINGS,
    VALIDATING_ADMISSION_POLICIES,
    VALIDATING_ADMISSION_POLICY_BINDINGS,
    Resource,
)
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.admission.policies.definition import Binding, Bound, Policy
from wherry.kube.apiserver.cache import Event

_EXEMPT_GROUP = "admissionregistration.k8s.io"
_EXEMPT = frozenset(
    (
        ("", "bindings"),
        ("authentication.k8s.io", "tokenreviews"),
        ("authentication.k8s.io", "selfsubjectreviews"),
        ("authorization.k8s.io", "localsubjectaccessreviews"),
        ("authorization.k8s.io", "selfsubjectaccessreviews"),
        ("authorization.k8s.io", "selfsubjectrulesreviews"),
        ("authorization.k8s.io", "subjectaccessreviews"),
    )
)
"""Upstream: pkg/kubeapiserver/admission/exclusion/resources.go."""
_MOST = 4096


class Meant(NamedTuple):
    """A policy that a request is subject to, and the version in which it sees the request."""

    policy: Policy
    version: Resource
    bindings: tuple[Binding, ...]


class Index:
    """Policies of one kind and their bindings, by the names of the policies."""

    def __init__(self, context: Context, policies: Resource, bindings: Resource) -> None:
        self._catalogue = context.catalogue
        self._policies = context.cache.of(policies)
        self._bindings = context.cache.of(bindings)
        for cache in (self._policies, self._bindings):
            cache.listen(self._changed)
        self._bound: list[Bound] | None = None
        self._served: Served | None = None
        self._meant: dict[object, list[Meant]] = {}

    def _changed(self, event: Event) -> None:
        self._bound = None

    def meant(self, attributes: Attributes, asked: Resource) -> list[Meant]:
        """Those whose rules name the request; in order of their names."""
        if self._bound is None:
            self._rebuild()
        if not self._bound:
            return []
        if asked.group == _EXEMPT_GROUP or (asked.group, asked.plural) in _EXEMPT:
            return []
        served = self._catalogue.served
        if served is not self._served:
            self._served = served
            self._meant.clear()
        named = any(rule.names for bound in self._bound for rule in bound.policy.selection.rules)
        sort = (
            asked,
            attributes.operation,
            attributes.subresource,
            bool(attributes.namespace),
            attributes.name if named else "",
        )
        found = self._meant.get(sort)
        if found is None:
            if len(self._meant) > _MOST:
                self._meant.clear()
            found = self._meant[sort] = self._find(attributes, asked, served)
        return found

    def _find(self, attributes: Attributes, asked: Resource, served: Served) -> list[Meant]:
        found = []
        for policy, bindings in self._bound or ():
            version = policy.selection.version(served, attributes, asked)
            if version is None:
                continue
            chosen = tuple(
                binding
                for binding in bindings
                if binding.selection is None
                or binding.selection.names(
                    served, attributes, asked, any_resource=binding.any_resource
                )
            )
            if chosen:
                found.append(Meant(policy, version, chosen))
        return found

    def _rebuild(self) -> None:
        self._meant.clear()
        bindings: dict[str, list[Binding]] = {}
        for stored in self._bindings.list():
            binding = Binding(stored.object)
            bindings.setdefault(binding.policy, []).append(binding)
        self._bound = [
            Bound(Policy(stored.object), tuple(bindings[stored.key]))
            for stored in self._policies.list()
            if stored.key in bindings
        ]


def validating(context: Context) -> Index:
    """The validating policies of a server: one `Context.part`."""
    return Index(context, VALIDATING_ADMISSION_POLICIES, VALIDATING_ADMISSION_POLICY_BINDINGS)


def mutating(context: Context) -> Index:
    """The mutating policies of a server: one `Context.part`."""
    return Index(context, MUTATING_ADMISSION_POLICIES, MUTATING_ADMISSION_POLICY_BINDINGS)
