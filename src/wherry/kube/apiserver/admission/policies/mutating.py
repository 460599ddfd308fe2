"""MutatingAdmissionPolicy: expressions that say what to change of a write.

An ApplyConfiguration is merged into the object as server-side apply would merge it, without owners;
a JSONPatch is applied.
Upstream: k8s.io/apiserver/pkg/admission/plugin/policy/mutating.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Any

from wherry.kube.api import cel
from wherry.kube.api.cel.strings import shown as text_of
from wherry.kube.api.errors import StatusError
from wherry.kube.api.merge_types import KeyedList, Leaf, Map, MergeType, Set, Struct
from wherry.kube.api.merging import merge
from wherry.kube.api.meta import clone
from wherry.kube.api.patch import apply_operations
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

_NOTES = "MutatingAdmissionPolicy"
_CONDITION_NAMES = POLICY_NAMES - {"variables"}


@dataclass(slots=True)
class _Rounds:
    """What is to be known of one round in the next."""

    evaluated: set[str] = field(default_factory=set)  # that may be evaluated again
    again: set[str] = field(default_factory=set)  # that are to be
    left: Object | None = None  # as the policies left the object


class _Failed(Exception):
    """A mutation that came to nothing."""


async def change(
    meant: list[Meant], attributes: Attributes, context: Context, asked: Resource
) -> None:
    """Change a write by the policies it is subject to. Raises StatusError."""
    if attributes.object is None:
        return
    rounds: _Rounds = attributes.notes.setdefault(_NOTES, _Rounds())
    if attributes.reinvoking and rounds.left != attributes.object:
        rounds.again |= rounds.evaluated
    for policy, version, bindings in meant:
        for binding in bindings:
            name = f"{policy.name}/{binding.name}"
            if attributes.reinvoking and name not in rounds.again:
                continue
            if not policy.selection.selects(attributes, context.cache) or (
                binding.selection is not None
                and not binding.selection.selects(attributes, context.cache)
            ):
                continue
            changed = await _bound(policy, binding, version, attributes, context, asked)
            if changed:
                attributes.reinvoke = True
                rounds.again |= rounds.evaluated
            if policy.again:
                rounds.evaluated.add(name)
    rounds.left = clone(attributes.object)


async def _bound(
    policy: Policy,
    binding: Binding,
    version: Resource,
    attributes: Attributes,
    context: Context,
    asked: Resource,
) -> bool:
    """Whether the object is another one now."""
    by = f"policy '{policy.name}' with binding '{binding.name}' denied request: "
    changed = False
    try:
        for param in await params.find(policy, binding, attributes, context):
            changed |= await _mutate(policy, param, version, attributes, context, asked)
    except params.PolicyMisconfigured as error:
        if policy.fails:
            why = f"failed to configure policy: {error}"
            raise _refusal(attributes, f"policy '{policy.name}' denied request: {why}") from None
    except params.BindingMisconfigured as error:
        if policy.fails:
            raise _refusal(attributes, f"{by}failed to configure binding: {error}") from None
    except (_Failed, EvaluationFailed, conditions.Undecided) as error:
        if policy.fails:
            raise _refusal(attributes, f"{by}{error}") from None
    except cel.CostExceeded:
        if policy.fails:
            raise _refusal(attributes, f"{by}{OUT_OF_BUDGET}") from None
    return changed


async def _mutate(
    policy: Policy,
    param: Object | None,
    version: Resource,
    attributes: Attributes,
    context: Context,
    asked: Resource,
) -> bool:
    changed = False
    for i, mutation in enumerate(policy.mutations):
        shown = await versions.shown(attributes, context, asked, version)
        environment = Environment(attributes, context, asked, version, shown)
        evaluation = Evaluation(environment, policy.variables, param)
        if not i and policy.conditions:
            holds = conditions.hold(
                policy.conditions,
                environment,
                strict=policy.fails,
                names=_CONDITION_NAMES,
                more=extra(evaluation),
            )
            if not holds:
                return False
        assert shown[0] is not None
        if mutation.get("patchType") == "JSONPatch":
            made = patched(shown[0], evaluation.evaluate(mutation["jsonPatch"]["expression"]))
        else:
            value = evaluation.evaluate(mutation["applyConfiguration"]["expression"])
            kind = context.catalogue.served.kind(version.group, version.version, version.plural)
            assert kind is not None
            made = applied(shown[0], value, kind.merge_type())
        try:
            changed |= await versions.replace(attributes, context, asked, version, made)
        except StatusError as error:
            raise _Failed(str(error)) from None
    return changed


def patched(o: Object, value: Any) -> Any:
    """``o`` with the operations that an expression gave. Raises EvaluationFailed."""
    operations = plain(value)
    if not isinstance(operations, list):
        raise EvaluationFailed("error evaluating JSONPatch: expected a list of JSONPatch")
    try:
        return apply_operations(o, operations)
    except ValueError as error:
        raise EvaluationFailed(f"JSON Patch: {error}") from None


def applied(o: Object, value: Any, shape: MergeType) -> Object:
    """``o`` with the configuration that an expression gave. Raises EvaluationFailed."""
    configuration = plain(value)
    if not isinstance(configuration, dict):
        raise EvaluationFailed("error evaluating ApplyConfiguration: expected an Object")
    if wrong := _atomic(configuration, shape, ""):
        raise EvaluationFailed(
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps "
            f"or structs: {wrong}"
        )
    merged: Object = merge(o, configuration, shape)
    return merged


def _atomic(value: Any, shape: MergeType, path: str) -> str:
    """Where ``value`` replaces as a whole what may only be merged, or ""."""
    if isinstance(shape, Leaf):
        return path if isinstance(value, dict | list) else ""
    if isinstance(value, dict) and isinstance(shape, Struct | Map):
        found = (_atomic(each, shape.field(key), f"{path}.{key}") for key, each in value.items())
        return next(filter(None, found), "")
    if isinstance(value, list) and isinstance(shape, KeyedList | Set):
        found = (_atomic(each, shape.item, f"{path}[{i}]") for i, each in enumerate(value))
        return next(filter(None, found), "")
    return ""


def plain(value: Any) -> Any:
    """A CEL value as JSON has it."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, cel.Optional):
        return plain(value.value) if value.held else None
    if isinstance(value, bool | str | float) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, datetime.datetime | datetime.timedelta | bytes):
        return text_of(value)
    raise EvaluationFailed(f"unsupported value of type {cel.type_name(value)}")


def _refusal(attributes: Attributes, why: str) -> StatusError:
    error = attributes.forbidden(why)
    return StatusError(422, "Invalid", error.message, details=error.details)
