"""ValidatingAdmissionPolicies, MutatingAdmissionPolicies and their bindings.

What their expressions mean is judged where they are evaluated, in admission.

Upstream: pkg/apis/admissionregistration/v1/defaults.go and
pkg/apis/admissionregistration/validation/validation.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from wherry.kube.api import names
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import checks, fields, label_selectors
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.durations import age
from wherry.kube.api.kinds.expressions import POLICY_NAMES, check_expression
from wherry.kube.api.kinds.webhooks import (
    FAILURE_POLICIES,
    MATCH_POLICIES,
    check_conditions,
    check_rules,
    default_rules,
)

_ACTIONS = ("Audit", "Deny", "Warn")
_REASONS = ("Unauthorized", "Forbidden", "Invalid", "RequestEntityTooLarge")
_REINVOCATION = ("IfNeeded", "Never")
_PATCHES = {"ApplyConfiguration": "applyConfiguration", "JSONPatch": "jsonPatch"}
_MISSING = ("Allow", "Deny")
_RULES: Final = ("resourceRules", "excludeResourceRules")
_SELECTORS: Final = ("namespaceSelector", "objectSelector")
_AUDIT_LIMIT: Final = 20


class _Policy(Kind):
    unconditional_update = False
    has_generation = True

    def default(self, o: Object) -> None:
        spec = o.setdefault("spec", {})
        spec.setdefault("failurePolicy", "Fail")
        if (constraints := spec.get("matchConstraints")) is not None:
            _default_match(constraints)

    def check_policy(self, spec: Object, faults: Faults) -> None:
        """Faults that policies of both kinds can have."""
        if (param := spec.get("paramKind")) is not None:
            for name in ("apiVersion", "kind"):
                if not param.get(name):
                    faults.append(fields.required(f"spec.paramKind.{name}"))
        where = "spec.failurePolicy"
        checks.one_of(spec.get("failurePolicy"), FAILURE_POLICIES, where, faults)
        constraints = spec.get("matchConstraints")
        if constraints is None:
            faults.append(fields.required("spec.matchConstraints"))
        else:
            _check_match(constraints, "spec.matchConstraints", faults)
            if not constraints.get("resourceRules"):
                faults.append(fields.required("spec.matchConstraints.resourceRules"))
        known = POLICY_NAMES if param is not None else POLICY_NAMES - {"params"}
        conditions = spec.get("matchConditions") or ()
        check_conditions(conditions, "spec.matchConditions", faults, known - {"variables"})
        before: list[str] = []
        for index, variable in enumerate(spec.get("variables") or ()):
            where, name = f"spec.variables[{index}]", variable.get("name", "")
            if not name:
                faults.append(fields.required(f"{where}.name", "name is not specified"))
            else:
                checks.check(names.is_c_identifier, name, f"{where}.name", faults)
            if not variable.get("expression", "").strip():
                why = "expression is not specified"
                faults.append(fields.required(f"{where}.expression", why))
            text = variable.get("expression", "")
            check_expression(text, f"{where}.expression", known, faults, before)
            before.append(name)
        for text, where in self.expressions(spec):
            check_expression(text, where, known, faults, before)

    def expressions(self, spec: Object) -> Iterator[tuple[str, str]]:
        """The other expressions of a policy, and where they stand."""
        raise NotImplementedError


class ValidatingAdmissionPolicy(_Policy):
    """Expressions that an object must fulfil."""

    columns = (
        NAME_COLUMN,
        Column("Validations", "integer", description="How many expressions there are."),
        Column("ParamKind", description="The kind of its parameters."),
        AGE_COLUMN,
    )

    def expressions(self, spec: Object) -> Iterator[tuple[str, str]]:
        for index, validation in enumerate(spec.get("validations") or ()):
            for name in ("expression", "messageExpression"):
                yield validation.get(name) or "", f"spec.validations[{index}].{name}"
        for index, annotation in enumerate(spec.get("auditAnnotations") or ()):
            where = f"spec.auditAnnotations[{index}].valueExpression"
            yield annotation.get("valueExpression") or "", where

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        spec = o.get("spec") or {}
        self.check_policy(spec, faults)
        validations = spec.get("validations") or ()
        annotations = spec.get("auditAnnotations") or ()
        if not validations and not annotations:
            why = "validations or auditAnnotations must contain at least one item"
            faults.append(fields.required("spec.validations", f"{why}"))
            faults.append(fields.required("spec.auditAnnotations", f"{why}"))
        for index, validation in enumerate(validations):
            where = f"spec.validations[{index}]"
            if not validation.get("expression", "").strip():
                why = "expression is not specified"
                faults.append(fields.required(f"{where}.expression", why))
            if (reason := validation.get("reason")) is not None and reason not in _REASONS:
                faults.append(fields.not_supported(f"{where}.reason", reason, _REASONS))
        if len(annotations) > _AUDIT_LIMIT:
            why = f"must not have more than {_AUDIT_LIMIT} auditAnnotations"
            faults.append(fields.invalid("spec.auditAnnotations", fields.Struct(), why))
        seen: set[str] = set()
        for index, annotation in enumerate(annotations):
            where, key = f"spec.auditAnnotations[{index}]", annotation.get("key", "")
            if not key:
                faults.append(fields.required(f"{where}.key"))
            else:
                checks.qualified_name(f"{o['metadata'].get('name')}/{key}", f"{where}.key", faults)
            if key in seen:
                faults.append(fields.duplicate(f"{where}.key", key))
            seen.add(key)
            if not annotation.get("valueExpression", "").strip():
                why = "valueExpression is not specified"
                faults.append(fields.required(f"{where}.valueExpression", why))
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, spec = o["metadata"], o.get("spec") or {}
        created = age(meta.get("creationTimestamp"), now)
        return [meta.get("name", ""), len(spec.get("validations") or ()), _param(spec), created]


class MutatingAdmissionPolicy(_Policy):
    """Expressions that change an object."""

    columns = (
        NAME_COLUMN,
        Column("Mutations", "integer", description="How many changes there are."),
        Column("ParamKind", description="The kind of its parameters."),
        AGE_COLUMN,
    )

    def default(self, o: Object) -> None:
        super().default(o)
        o["spec"].setdefault("reinvocationPolicy", "Never")

    def expressions(self, spec: Object) -> Iterator[tuple[str, str]]:
        for index, mutation in enumerate(spec.get("mutations") or ()):
            for name in _PATCHES.values():
                text = (mutation.get(name) or {}).get("expression") or ""
                yield text, f"spec.mutations[{index}].{name}.expression"

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        spec = o.get("spec") or {}
        self.check_policy(spec, faults)
        mutations = spec.get("mutations") or ()
        if not mutations:
            why = "mutations must contain at least one item"
            faults.append(fields.required("spec.mutations", why))
        for index, mutation in enumerate(mutations):
            _check_mutation(mutation, f"spec.mutations[{index}]", faults)
        policy = spec.get("reinvocationPolicy")
        checks.one_of(policy, _REINVOCATION, "spec.reinvocationPolicy", faults)
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, spec = o["metadata"], o.get("spec") or {}
        created = age(meta.get("creationTimestamp"), now)
        return [meta.get("name", ""), len(spec.get("mutations") or ()), _param(spec), created]


class MutatingAdmissionPolicyBinding(Kind):
    """Where a policy holds, and with which parameters."""

    unconditional_update = False
    has_generation = True
    columns = (
        NAME_COLUMN,
        Column("PolicyName", description="The policy."),
        Column("ParamRef", description="Its parameters."),
        AGE_COLUMN,
    )

    def default(self, o: Object) -> None:
        if (match := o.setdefault("spec", {}).get("matchResources")) is not None:
            _default_match(match)

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        spec = o.get("spec") or {}
        if not (policy := spec.get("policyName", "")):
            faults.append(fields.required("spec.policyName"))
        else:
            checks.dns_subdomain(policy, "spec.policyName", faults)
        if (param := spec.get("paramRef")) is not None:
            _check_param(param, "spec.paramRef", faults)
        if (match := spec.get("matchResources")) is not None:
            _check_match(match, "spec.matchResources", faults)
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, spec = o["metadata"], o.get("spec") or {}
        param = spec.get("paramRef")
        shown = "<unset>"
        if param is not None:
            name = param.get("name") or label_selectors.selector_text(param.get("selector"))
            shown = f"{param['namespace']}/{name}" if param.get("namespace") else name
        created = age(meta.get("creationTimestamp"), now)
        return [meta.get("name", ""), spec.get("policyName", ""), shown, created]


class ValidatingAdmissionPolicyBinding(MutatingAdmissionPolicyBinding):
    """Where a policy holds, with which parameters, and what becomes of those who break it."""

    def validate_body(self, o: Object) -> list[FieldError]:
        faults = super().validate_body(o)
        actions = (o.get("spec") or {}).get("validationActions") or ()
        where = "spec.validationActions"
        if not actions:
            faults.append(fields.required(where, "at least one validation action is required"))
        for index, action in enumerate(actions):
            if action not in _ACTIONS:
                faults.append(fields.not_supported(f"{where}[{index}]", action, _ACTIONS))
            if action in actions[:index]:
                faults.append(fields.duplicate(f"{where}[{index}]", action))
        if {"Deny", "Warn"} <= set(actions):
            why = "must not contain both Deny and Warn (repeating the same validation failure "
            why += "information in the API response and headers serves no purpose)"
            faults.append(fields.invalid(where, list(actions), why))
        return faults


def _param(spec: Object) -> str:
    param = spec.get("paramKind")
    if param is None:
        return "<unset>"
    return f"{param.get('apiVersion', '')}/{param.get('kind', '')}"


def _default_match(match: Object) -> None:
    match.setdefault("matchPolicy", "Equivalent")
    for selector in _SELECTORS:
        match.setdefault(selector, {})
    for name in _RULES:
        default_rules(match.get(name) or ())


def _check_match(match: Object, path: str, faults: Faults) -> None:
    policy = match.get("matchPolicy")
    checks.one_of(policy, MATCH_POLICIES, f"{path}.matchPolicy", faults)
    for selector in _SELECTORS:
        if match.get(selector) is None:
            faults.append(fields.required(f"{path}.{selector}"))
        label_selectors.check_selector(match.get(selector), f"{path}.{selector}", faults)
    for name in _RULES:
        check_rules(match.get(name) or (), f"{path}.{name}", faults)


def _check_mutation(mutation: Object, path: str, faults: Faults) -> None:
    kind = mutation.get("patchType", "")
    checks.one_of(kind, tuple(_PATCHES), f"{path}.patchType", faults)
    for name, field in _PATCHES.items():
        body = mutation.get(field)
        if name == kind:
            if body is None:
                why = f"must be specified when patchType is {name}"
                faults.append(fields.required(f"{path}.{field}", why))
            elif not body.get("expression", "").strip():
                why = "expression is not specified"
                faults.append(fields.required(f"{path}.{field}.expression", why))
        elif body is not None:
            why = f"not allowed when patchType is {kind}"
            faults.append(fields.invalid(f"{path}.{field}", fields.Struct(body), why))


def _check_param(param: Object, path: str, faults: Faults) -> None:
    name, selector = param.get("name"), param.get("selector")
    if name and selector is not None:
        why = "name and selector are mutually exclusive"
        faults.append(fields.forbidden(f"{path}.name", why))
    elif not name and selector is None:
        faults.append(fields.required(path, "one of name or selector must be specified"))
    label_selectors.check_selector(selector, f"{path}.selector", faults)
    action = param.get("parameterNotFoundAction")
    checks.one_of(action, _MISSING, f"{path}.parameterNotFoundAction", faults)
