"""HorizontalPodAutoscalers of autoscaling/v2.

Upstream: pkg/apis/autoscaling/v2/defaults.go, pkg/apis/autoscaling/validation/validation.go.
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
from wherry.kube.api.kinds.podspec.resources import canonicalize_one
from wherry.kube.api.quantity import ZERO, QuantityError, parse

_SOURCES: Final = {
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
    "External": "external",
    "ContainerResource": "containerResource",
}
_TYPES = ("ContainerResource", "External", "Object", "Pods", "Resource")
_TARGETS = ("Utilization", "Value", "AverageValue")
_WINDOW_LIMIT: Final = 3600
_PERIOD_LIMIT: Final = 1800
_SHOWN: Final = 2
_UNKNOWN: Final = "<unknown>"


class HorizontalPodAutoscaler(Kind):
    """A number of replicas that follows what is measured."""

    columns = (
        NAME_COLUMN,
        Column("Reference", description="What is scaled."),
        Column("Targets", description="What is measured, and what it should be."),
        Column("MinPods", description="The fewest replicas."),
        Column("MaxPods", description="The most replicas."),
        Column("Replicas", "integer", description="Replicas there are."),
        AGE_COLUMN,
    )

    def default(self, o: Object) -> None:
        spec = o.setdefault("spec", {})
        spec.setdefault("minReplicas", 1)
        if not spec.get("metrics"):
            target = {"type": "Utilization", "averageUtilization": 80}
            spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
        for metric in spec["metrics"]:
            source = metric.get(_SOURCES.get(metric.get("type", ""), "")) or {}
            target = source.get("target") or {}
            canonicalize_one(target, "value")
            canonicalize_one(target, "averageValue")
        if (behavior := spec.get("behavior")) is not None:
            _default_rules(behavior, "scaleUp", (("Pods", 4), ("Percent", 100)))
            behavior["scaleUp"].setdefault("stabilizationWindowSeconds", 0)
            _default_rules(behavior, "scaleDown", (("Percent", 100),))

    def initial_status(self, o: Object) -> Object:
        return {"desiredReplicas": 0}

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        spec = o.get("spec") or {}
        fewest, most = spec.get("minReplicas"), spec.get("maxReplicas", 0)
        if fewest is not None and fewest < 1:
            why = "must be greater than or equal to 1"
            faults.append(fields.invalid("spec.minReplicas", fewest, why))
        if most < 1:
            faults.append(fields.invalid("spec.maxReplicas", most, "must be greater than 0"))
        if fewest is not None and most < fewest:
            why = "must be greater than or equal to `minReplicas`"
            faults.append(fields.invalid("spec.maxReplicas", most, why))
        _check_reference(spec.get("scaleTargetRef") or {}, "spec.scaleTargetRef", faults)
        for index, metric in enumerate(spec.get("metrics") or ()):
            _check_metric(metric, f"spec.metrics[{index}]", faults)
        for name in ("scaleUp", "scaleDown"):
            if (rules := (spec.get("behavior") or {}).get(name)) is not None:
                _check_rules(rules, f"spec.behavior.{name}", faults)
        return faults

    def validate_status(self, new: Object, old: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        status = new.get("status") or {}
        for name in ("currentReplicas", "desiredReplicas"):
            faults += fields.non_negative(f"status.{name}", status.get(name, 0))
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, spec, status = o["metadata"], o.get("spec") or {}, o.get("status") or {}
        target = spec.get("scaleTargetRef") or {}
        fewest = spec.get("minReplicas")
        return [
            meta.get("name", ""),
            f"{target.get('kind', '')}/{target.get('name', '')}",
            _targets(spec.get("metrics") or (), status.get("currentMetrics") or ()),
            "<unset>" if fewest is None else str(fewest),
            str(spec.get("maxReplicas", 0)),
            status.get("currentReplicas", 0),
            age(meta.get("creationTimestamp"), now),
        ]


def _default_rules(behavior: Object, name: str, policies: tuple[tuple[str, int], ...]) -> None:
    rules = behavior.setdefault(name, {})
    rules.setdefault("selectPolicy", "Max")
    if not rules.get("policies"):
        rules["policies"] = [
            {"type": kind, "value": value, "periodSeconds": 15} for kind, value in policies
        ]


def _check_reference(reference: Object, path: str, faults: Faults) -> None:
    for name in ("kind", "name"):
        value = reference.get(name, "")
        if not value:
            faults.append(fields.required(f"{path}.{name}"))
        checks.check(names.is_path_segment, value, f"{path}.{name}", faults)
    if "apiVersion" in reference and reference["apiVersion"].count("/") > 1:
        value = reference["apiVersion"]
        why = f"unexpected GroupVersion string: {value}"
        faults.append(fields.invalid(f"{path}.apiVersion", value, why))


def _check_metric(metric: Object, path: str, faults: Faults) -> None:
    kind = metric.get("type", "")
    if not kind:
        faults.append(fields.required(f"{path}.type", "must specify a metric source type"))
        return
    if kind not in _SOURCES:
        faults.append(fields.not_supported(f"{path}.type", kind, _TYPES))
        return
    given = [name for name in _SOURCES.values() if name in metric]
    for extra in given[1:]:
        why = "must populate the given metric source only"
        faults.append(fields.forbidden(f"{path}.{extra}", why))
    wanted = _SOURCES[kind]
    if wanted not in given:
        why = "must populate information for the given metric source"
        faults.append(fields.required(f"{path}.{wanted}", why))
        return
    source, where = metric[wanted], f"{path}.{wanted}"
    if kind == "Object":
        _check_reference(source.get("describedObject") or {}, f"{where}.describedObject", faults)
    if kind in ("Object", "Pods", "External"):
        identifier = source.get("metric") or {}
        name = identifier.get("name", "")
        if not name:
            faults.append(fields.required(f"{where}.metric.name", "must specify a metric name"))
        checks.check(names.is_path_segment, name, f"{where}.metric.name", faults)
        label_selectors.check_selector(
            identifier.get("selector"), f"{where}.metric.selector", faults
        )
    elif not source.get("name"):
        faults.append(fields.required(f"{where}.name", "must specify a resource name"))
    if kind == "ContainerResource" and not source.get("container"):
        faults.append(fields.required(f"{where}.container", "must specify a container"))
    _check_target(source.get("target") or {}, kind, f"{where}.target", faults)


def _check_target(target: Object, kind: str, path: str, faults: Faults) -> None:
    given = target.get("type", "")
    if not given:
        faults.append(fields.required(f"{path}.type", "must specify a metric target type"))
    elif given not in _TARGETS:
        why = "must be either Utilization, Value, or AverageValue"
        faults.append(fields.invalid(f"{path}.type", given, why))
    for name in ("value", "averageValue"):
        if name in target and _not_positive(target[name]):
            faults.append(fields.invalid(f"{path}.{name}", str(target[name]), "must be positive"))
    utilization, average = target.get("averageUtilization"), target.get("averageValue")
    if utilization is not None and utilization < 1:
        why = "must be greater than 0"
        faults.append(fields.invalid(f"{path}.averageUtilization", utilization, why))
    if kind in ("Resource", "ContainerResource"):
        if utilization is None and average is None:
            why = "must set either a target raw value or a target utilization"
            faults.append(fields.required(f"{path}.averageUtilization", why))
        if utilization is not None and average is not None:
            why = "may not set both a target raw value and a target utilization"
            faults.append(fields.forbidden(f"{path}.averageValue", why))
    elif kind == "Pods":
        if average is None:
            why = "must specify a positive target averageValue"
            faults.append(fields.required(f"{path}.averageValue", why))
    elif "value" not in target and average is None:
        why = "must set either a target value for metric or a per-pod target"
        faults.append(fields.required(f"{path}.averageValue", why))
    elif kind == "External" and "value" in target and average is not None:
        why = "may not set both a target value for metric and a per-pod target"
        faults.append(fields.forbidden(f"{path}.value", why))


def _not_positive(value: Any) -> bool:
    try:
        return parse(str(value)) <= ZERO
    except QuantityError:
        return True


def _check_rules(rules: Object, path: str, faults: Faults) -> None:
    window = rules.get("stabilizationWindowSeconds")
    if window is not None:
        where = f"{path}.stabilizationWindowSeconds"
        faults += fields.non_negative(where, window)
        if window > _WINDOW_LIMIT:
            faults.append(
                fields.invalid(where, window, f"must be less than or equal to {_WINDOW_LIMIT}")
            )
    policy = rules.get("selectPolicy")
    if policy is not None and policy not in ("Max", "Min", "Disabled"):
        supported = ("Disabled", "Max", "Min")
        faults.append(fields.not_supported(f"{path}.selectPolicy", policy, supported))
    policies = rules.get("policies") or ()
    if not policies:
        faults.append(fields.required(f"{path}.policies", "must specify at least one Policy"))
    for index, policy in enumerate(policies):
        where = f"{path}.policies[{index}]"
        if policy.get("type") not in ("Pods", "Percent"):
            kind = policy.get("type", "")
            faults.append(fields.not_supported(f"{where}.type", kind, ("Percent", "Pods")))
        if (value := policy.get("value", 0)) <= 0:
            faults.append(fields.invalid(f"{where}.value", value, "must be greater than zero"))
        if (period := policy.get("periodSeconds", 0)) <= 0:
            why = "must be greater than zero"
            faults.append(fields.invalid(f"{where}.periodSeconds", period, why))
        if period > _PERIOD_LIMIT:
            why = f"must be less than or equal to {_PERIOD_LIMIT}"
            faults.append(fields.invalid(f"{where}.periodSeconds", period, why))


def _targets(specs: Any, statuses: Any) -> str:
    if not specs:
        return "<none>"
    shown = []
    for index, metric in enumerate(specs[:_SHOWN]):
        seen = statuses[index] if index < len(statuses) else {}
        shown.append(_target(metric, seen))
    text = ", ".join(shown)
    more = len(specs) - _SHOWN
    return f"{text} + {more} more..." if more > 0 else text


def _target(metric: Object, seen: Object) -> str:
    kind = metric.get("type", "")
    name = _SOURCES.get(kind)
    if name is None:
        return "<unknown type>"
    source, target = metric.get(name) or {}, (metric.get(name) or {}).get("target") or {}
    current = (seen.get(name) or {}).get("current") or {}
    if kind in ("Resource", "ContainerResource"):
        label = f"{source.get('name', '')}: "
        if "averageValue" in target:
            return f"{label}{current.get('averageValue', _UNKNOWN)}/{target['averageValue']}"
        now = current.get("averageUtilization")
        wanted = target.get("averageUtilization")
        shown = _UNKNOWN if now is None else f"{now}%"
        return f"{label}{shown}/{'<auto>' if wanted is None else f'{wanted}%'}"
    if kind == "Pods" or "averageValue" in target:
        wanted = target.get("averageValue", "<auto>")
        average = "" if kind == "Pods" else " (avg)"
        return f"{current.get('averageValue', _UNKNOWN)}/{wanted}{average}"
    return f"{current.get('value', _UNKNOWN)}/{target.get('value', '<auto>')}"
