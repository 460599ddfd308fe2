"""ValidatingAdmissionPolicy: expressions that must be true of a write.

Upstream: k8s.io/apiserver/pkg/admission/plugin/policy/validating.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import orjson

from wherry.kube.api import cel
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import Resource
from wherry.kube.apiserver.admission import conditions, versions
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.admission.expressions import POLICY_NAMES, Environment
from wherry.kube.apiserver.admission.policies import params
from wherry.kube.apiserver.admission.policies.definition import Binding, Policy
from wherry.kube.apiserver.admission.policies.evaluation import (
    OUT_OF_BUDGET,
    Evaluation,
    EvaluationFailed,
    Object,
    extra,
)
from wherry.kube.apiserver.admission.policies.index import Meant

_CODES = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413, "Invalid": 422}
_LONGEST = 5 * 1024  # of a message, in characters
_LONGEST_ANNOTATION = 10 * 1024
_FAILURES = "validation.policy.admission.k8s.io/validation_failure"
_CONDITION_NAMES = POLICY_NAMES - {"variables"}


@dataclass(slots=True)
class Fault:
    """A validation that did not hold; ``index``: which."""

    message: str
    reason: str = ""
    index: int = 0


@dataclass(slots=True)
class _Outcome:
    """What all policies say of a write."""

    denied: list[tuple[str, Fault]] = field(default_factory=list)  # by whom, in upstream's words
    failures: list[Object] = field(default_factory=list)
    annotations: dict[str, list[str]] = field(default_factory=dict)


async def judge(
    meant: list[Meant], attributes: Attributes, context: Context, asked: Resource
) -> None:
    """Judge a write by the policies it is subject to.

    Raises:
        StatusError: one that is enforced does not hold.
    """
    outcome = _Outcome()
    for policy, version, bindings in meant:
        if not policy.selection.selects(attributes, context.cache):
            continue
        shown = await versions.shown(attributes, context, asked, version)
        environment = Environment(attributes, context, asked, version, shown)
        for binding in bindings:
            if binding.selection is None or binding.selection.selects(attributes, context.cache):
                await _bound(policy, binding, attributes, context, environment, outcome)
    for key, values in outcome.annotations.items():
        attributes.annotations[key] = ", ".join(values)
    if outcome.failures:
        attributes.annotations[_FAILURES] = orjson.dumps(outcome.failures).decode()
    if outcome.denied:
        raise _refusal(attributes, *outcome.denied[0])


async def _bound(
    policy: Policy,
    binding: Binding,
    attributes: Attributes,
    context: Context,
    environment: Environment,
    outcome: _Outcome,
) -> None:
    by = f"ValidatingAdmissionPolicy '{policy.name}' with binding '{binding.name}'"
    try:
        found = await params.find(policy, binding, attributes, context)
    except params.PolicyMisconfigured as error:
        if policy.fails:
            by = f"ValidatingAdmissionPolicy '{policy.name}'"
            outcome.denied.append((by, Fault(f"failed to configure policy: {error}")))
        return
    except (params.BindingMisconfigured, StatusError) as error:
        if policy.fails:
            outcome.denied.append((by, Fault(f"failed to configure binding: {error}")))
        return
    for param in found:
        evaluation = Evaluation(environment, policy.variables, param)
        for fault in faults_of(policy, environment, evaluation, outcome.annotations):
            for action in binding.actions:
                if action == "Deny":
                    outcome.denied.append((by, fault))
                elif action == "Warn":
                    attributes.warnings.append(f"Validation failed for {by}: {fault.message}")
                elif action == "Audit":
                    outcome.failures.append(
                        {
                            "message": fault.message,
                            "policy": policy.name,
                            "binding": binding.name,
                            "expressionIndex": str(fault.index),
                            "validationActions": binding.actions,
                        }
                    )


def faults_of(
    policy: Policy,
    environment: Environment,
    evaluation: Evaluation,
    annotations: dict[str, list[str]],
) -> list[Fault]:
    """What a policy has against a write; ``annotations`` takes what it tells the audit log."""
    if policy.conditions:
        try:
            if not conditions.hold(
                policy.conditions,
                environment,
                strict=policy.fails,
                names=_CONDITION_NAMES,
                more=extra(evaluation),
            ):
                return []
        except conditions.Undecided as error:
            return [Fault(str(error))]
    faults: list[Fault] = []
    try:
        for i, validation in enumerate(policy.validations):
            try:
                if evaluation.evaluate(validation["expression"]) is not True:
                    message = _message(validation, evaluation)
                    faults.append(Fault(message, validation.get("reason") or "", i))
            except EvaluationFailed as error:
                if policy.fails:
                    faults.append(Fault(str(error), index=i))
        for annotation in policy.annotations:
            try:
                _annotate(policy, annotation, evaluation, annotations)
            except EvaluationFailed as error:
                if policy.fails:
                    faults.append(Fault(str(error)))
    except cel.CostExceeded:
        if policy.fails:
            faults.append(Fault(OUT_OF_BUDGET))
    return faults


def _message(validation: Object, evaluation: Evaluation) -> str:
    if text := validation.get("messageExpression"):
        try:
            said = evaluation.evaluate(text)
        except EvaluationFailed:
            said = ""
        if isinstance(said, str):
            said = said.strip()
            if said and "\n" not in said and len(said) <= _LONGEST:
                return said
    if message := (validation.get("message") or "").strip():
        return str(message)
    return f"failed expression: {validation['expression'].strip()}"


def _annotate(
    policy: Policy,
    annotation: Object,
    evaluation: Evaluation,
    annotations: dict[str, list[str]],
) -> None:
    value = evaluation.evaluate(annotation["valueExpression"])
    if value is None:
        return
    if not isinstance(value, str):
        raise EvaluationFailed(
            f"valueExpression '{annotation['valueExpression']}' resulted in unsupported return "
            "type: it must return a string or null"
        )
    said = value.strip()[:_LONGEST_ANNOTATION]
    known = annotations.setdefault(f"{policy.name}/{annotation['key']}", [])
    if said and said not in known:
        known.append(said)


def _refusal(attributes: Attributes, by: str, fault: Fault) -> StatusError:
    why = f"{by} denied request: {fault.message}"
    error = attributes.forbidden(why)
    reason = fault.reason or "Invalid"
    details = dict(error.details or {})
    details["causes"] = [*details.get("causes", ()), {"message": why}]
    return StatusError(_CODES.get(reason, 422), reason, error.message, details=details)
