"""A policy and its bindings, made ready for use."""

from __future__ import annotations

from typing import Any, NamedTuple

from wherry.kube.apiserver.admission.matching import Selection

Object = dict[str, Any]


class Binding:
    """Where a policy holds, with which parameters, and what becomes of those who break it."""

    def __init__(self, o: Object) -> None:
        spec = o["spec"]
        self.name: str = o["metadata"]["name"]
        self.policy: str = spec.get("policyName", "")
        self.param: Object | None = spec.get("paramRef")
        self.actions: list[str] = spec.get("validationActions") or []
        match = spec.get("matchResources")
        self.selection: Selection | None = None
        self.any_resource = True
        if match is not None:
            rules = match.get("resourceRules") or ()
            self.any_resource = not rules
            self.selection = Selection(match, rules, match.get("excludeResourceRules") or ())


class Policy:
    """A ValidatingAdmissionPolicy or a MutatingAdmissionPolicy."""

    def __init__(self, o: Object) -> None:
        spec = o["spec"]
        self.name: str = o["metadata"]["name"]
        self.fails: bool = spec.get("failurePolicy", "Fail") != "Ignore"
        match = spec.get("matchConstraints") or {}
        self.selection = Selection(
            match, match.get("resourceRules") or (), match.get("excludeResourceRules") or ()
        )
        self.param_kind: Object | None = spec.get("paramKind")
        self.conditions: list[Object] = spec.get("matchConditions") or []
        self.variables: list[Object] = spec.get("variables") or []
        self.validations: list[Object] = spec.get("validations") or []
        self.annotations: list[Object] = spec.get("auditAnnotations") or []
        self.mutations: list[Object] = spec.get("mutations") or []
        self.again: bool = spec.get("reinvocationPolicy") == "IfNeeded"


class Bound(NamedTuple):
    """A policy with its bindings."""

    policy: Policy
    bindings: tuple[Binding, ...]
