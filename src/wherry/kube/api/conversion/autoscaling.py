"""HorizontalPodAutoscalers before autoscaling/v2: v1 knows the CPU only and keeps the rest in
annotations; v2beta1 words metrics in another way.

Upstream: pkg/apis/autoscaling/{v1,v2beta1}/conversion.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import orjson

from wherry.kube.api.conversion.version import Conversion
from wherry.kube.api.decoding import Mistyped, decoder
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds.base import Object

_PREFIX = "autoscaling.alpha.kubernetes.io/"
METRICS, CURRENT = f"{_PREFIX}metrics", f"{_PREFIX}current-metrics"
CONDITIONS, BEHAVIOR = f"{_PREFIX}conditions", f"{_PREFIX}behavior"
_KEPT = (METRICS, CURRENT, CONDITIONS, BEHAVIOR)
"""Annotations that hold what a version has no fields for."""

_DEFAULT_UTILIZATION = 80
_PACKAGE = "io.k8s.api.autoscaling."


# --- metrics: as v2beta1 has them, and as v2 ----------------------------------------------------


def _put(out: Object, **values: Any) -> Object:
    """``out`` with those of the values that there are."""
    return out | {name: value for name, value in values.items() if value is not None}


def _target(utilization: Any = None, average: Any = None, value: Any = None) -> Object:
    if utilization is not None:
        kind = "Utilization"
    elif value is not None:
        kind = "Value"
    else:
        kind = "AverageValue"
    out: Object = {"type": kind}
    return _put(out, averageUtilization=utilization, averageValue=average, value=value)


def _metric(source: Object, selector: str = "selector") -> Object:
    return _put({"name": source.get("metricName", "")}, selector=source.get(selector))


def _new_source(kind: str, source: Object) -> Object:
    """What a metric is measured by and held at, from v2beta1."""
    get = source.get
    match kind:
        case "resource" | "containerResource":
            out: Object = {"name": get("name", "")}
            target = _target(get("targetAverageUtilization"), get("targetAverageValue"))
            return _put(out, container=get("container")) | {"target": target}
        case "pods":
            return {"metric": _metric(source), "target": _target(average=get("targetAverageValue"))}
        case "object":
            value, average = get("targetValue"), get("averageValue")
            # The value had to be given, and is nothing where there is an average.
            target = _target(average=average, value=None if average is not None else value)
            return _put(
                {"metric": _metric(source), "target": target}, describedObject=get("target")
            )
        case "external":
            target = _target(average=get("targetAverageValue"), value=get("targetValue"))
            return {"metric": _metric(source, "metricSelector"), "target": target}
    return source


def _old_source(kind: str, source: Object) -> Object:
    """The same for v2beta1."""
    target, metric = source.get("target") or {}, source.get("metric") or {}
    utilization = target.get("averageUtilization")
    average, value = target.get("averageValue"), target.get("value")
    name, selector = metric.get("name", ""), metric.get("selector")
    match kind:
        case "resource" | "containerResource":
            out = _put({"name": source.get("name", "")}, container=source.get("container"))
            return _put(out, targetAverageUtilization=utilization, targetAverageValue=average)
        case "pods":
            return _put({"metricName": name}, selector=selector, targetAverageValue=average or "0")
        case "object":
            out = _put({"metricName": name}, target=source.get("describedObject"))
            return _put(out, targetValue=value or "0", selector=selector, averageValue=average)
        case "external":
            out = _put({"metricName": name}, metricSelector=selector)
            return _put(out, targetValue=value, targetAverageValue=average)
    return source


def _new_reading(kind: str, source: Object) -> Object:
    """What a metric shows, from v2beta1."""
    get = source.get
    match kind:
        case "resource" | "containerResource":
            current = _put(
                {},
                averageUtilization=get("currentAverageUtilization"),
                averageValue=get("currentAverageValue"),
            )
            out: Object = {"name": get("name", "")}
            return _put(out, container=get("container")) | {"current": current}
        case "pods":
            current = _put({}, averageValue=get("currentAverageValue"))
            return {"metric": _metric(source), "current": current}
        case "object":
            current = _put({}, value=get("currentValue"), averageValue=get("averageValue"))
            out = {"metric": _metric(source), "current": current}
            return _put(out, describedObject=get("target"))
        case "external":
            current = _put({}, value=get("currentValue"), averageValue=get("currentAverageValue"))
            return {"metric": _metric(source, "metricSelector"), "current": current}
    return source


def _old_reading(kind: str, source: Object) -> Object:
    """The same for v2beta1."""
    current, metric = source.get("current") or {}, source.get("metric") or {}
    average, value = current.get("averageValue"), current.get("value")
    name, selector = metric.get("name", ""), metric.get("selector")
    match kind:
        case "resource" | "containerResource":
            out = _put({"name": source.get("name", "")}, container=source.get("container"))
            utilization = current.get("averageUtilization")
            return _put(
                out,
                currentAverageUtilization=utilization,
                currentAverageValue=average if average is not None else "0",
            )
        case "pods":
            return _put({"metricName": name}, selector=selector, currentAverageValue=average or "0")
        case "object":
            out = _put({"metricName": name}, target=source.get("describedObject"))
            return _put(out, currentValue=value or "0", selector=selector, averageValue=average)
        case "external":
            out = _put({"metricName": name}, metricSelector=selector)
            return _put(out, currentValue=value or "0", currentAverageValue=average)
    return source


def _each(metrics: Sequence[Object], convert: Callable[[str, Object], Object]) -> list[Object]:
    """Metrics with their sources converted."""
    return [
        {"type": metric.get("type", "")}
        | {
            name: convert(name, value) if isinstance(value, dict) else value
            for name, value in metric.items()
        }
        for metric in metrics
        if isinstance(metric, dict)
    ]


# --- annotations --------------------------------------------------------------------------------


def _annotated(o: Object, notes: dict[str, Any]) -> Object:
    """With these notes as JSON in annotations, and none of those that were there before."""
    metadata = o.get("metadata") or {}
    annotations = metadata.get("annotations") or {}
    if not notes and not any(name in annotations for name in _KEPT):
        return o
    kept = {name: value for name, value in annotations.items() if name not in _KEPT}
    kept |= {name: orjson.dumps(value).decode() for name, value in notes.items()}
    metadata = {name: value for name, value in metadata.items() if name != "annotations"}
    if kept:
        metadata["annotations"] = kept
    return {**o, "metadata": metadata}


def _noted(o: Object, name: str, definition: str) -> Any:
    """What an annotation holds; None where that is nothing of the definition, or of a list of it
    (``[]`` in front): users may write annotations, too."""
    text = ((o.get("metadata") or {}).get("annotations") or {}).get(name)
    if not text:
        return None
    try:
        value = orjson.loads(text)
        if not definition.startswith("[]"):
            return decoder(_PACKAGE + definition)(_with_case(value, str.lower), None, [])
        decode = decoder(_PACKAGE + definition[2:])
        return [decode(each, None, []) for each in value] if isinstance(value, list) else None
    except (orjson.JSONDecodeError, Mistyped, RecursionError):
        return None


def _with_case(value: Any, change: Callable[[str], str]) -> Any:
    """With the first letter of each key changed: upstream writes behaviors down by their Go
    names."""
    if isinstance(value, dict):
        return {change(k[:1]) + k[1:]: _with_case(each, change) for k, each in value.items()}
    if isinstance(value, list):
        return [_with_case(each, change) for each in value]
    return value


def _with_behavior(o: Object, spec: Object) -> Object:
    behavior = _noted(o, BEHAVIOR, "v2.HorizontalPodAutoscalerBehavior")
    return {**spec, "behavior": behavior} if behavior else spec


# --- v2beta1 ------------------------------------------------------------------------------------


def _default_v2beta1(o: Object) -> None:
    spec = o.setdefault("spec", {})
    if not spec.get("metrics"):
        cpu = {"name": "cpu", "targetAverageUtilization": _DEFAULT_UTILIZATION}
        spec["metrics"] = [{"type": "Resource", "resource": cpu}]


def from_v2beta1(o: Object) -> Object:
    out = _sources(o, "spec", "metrics", _new_source)
    out = _sources(out, "status", "currentMetrics", _new_reading)
    if "spec" in out:
        out = {**out, "spec": _with_behavior(o, out["spec"])}
    return _annotated(out, {})


def to_v2beta1(o: Object) -> Object:
    out = _sources(o, "spec", "metrics", _old_source)
    out = _sources(out, "status", "currentMetrics", _old_reading)
    behavior = (o.get("spec") or {}).get("behavior")
    if not behavior:
        return _annotated(out, {})
    spec = {name: value for name, value in out["spec"].items() if name != "behavior"}
    return _annotated({**out, "spec": spec}, {BEHAVIOR: _with_case(behavior, str.upper)})


def _sources(o: Object, part: str, field: str, convert: Callable[[str, Object], Object]) -> Object:
    held = (o.get(part) or {}).get(field)
    if not held:
        return o
    return {**o, part: {**o[part], field: _each(held, convert)}}


# --- v1 -----------------------------------------------------------------------------------------


def _cpu(metrics: Sequence[Object]) -> Object | None:
    """The first metric of the CPU."""
    for metric in metrics:
        if metric.get("type") == "Resource" and (metric.get("resource") or {}).get("name") == "cpu":
            return metric
    return None


def _is_cpu_utilization(metric: Object) -> bool:
    target = (metric.get("resource") or {}).get("target") or {}
    return _cpu([metric]) is not None and target.get("averageUtilization") is not None


def _cpu_at(utilization: int) -> Object:
    target = {"type": "Utilization", "averageUtilization": utilization}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


def from_v1(o: Object) -> Object:
    out = dict(o)
    if "spec" in o:
        spec = {k: v for k, v in o["spec"].items() if k != "targetCPUUtilizationPercentage"}
        utilization = o["spec"].get("targetCPUUtilizationPercentage")
        metrics = _each(_noted(o, METRICS, "[]v2beta1.MetricSpec") or (), _new_source)
        if utilization is not None or not metrics:
            given = _DEFAULT_UTILIZATION if utilization is None else utilization
            metrics.append(_cpu_at(given))
        out["spec"] = _with_behavior(o, {**spec, "metrics": metrics})
    status = {
        k: v for k, v in (o.get("status") or {}).items() if k != "currentCPUUtilizationPercentage"
    }
    utilization = (o.get("status") or {}).get("currentCPUUtilizationPercentage")
    current = _noted(o, CURRENT, "[]v2beta1.MetricStatus")
    conditions = _noted(o, CONDITIONS, "[]v2.HorizontalPodAutoscalerCondition")
    if current is not None:
        status["currentMetrics"] = _each(current, _new_reading)
    elif utilization is not None:
        reading = {"name": "cpu", "current": {"averageUtilization": utilization}}
        status["currentMetrics"] = [{"type": "Resource", "resource": reading}]
    if conditions is not None:
        status["conditions"] = conditions
    if status or "status" in o:
        out["status"] = status
    return _annotated(out, {})


def to_v1(o: Object) -> Object:
    out, notes = dict(o), {}
    if "spec" in o:
        metrics = o["spec"].get("metrics") or ()
        spec = {k: v for k, v in o["spec"].items() if k not in ("metrics", "behavior")}
        cpu = _cpu(metrics)
        if cpu is not None and _is_cpu_utilization(cpu):
            utilization = cpu["resource"]["target"]["averageUtilization"]
            spec["targetCPUUtilizationPercentage"] = utilization
        if others := [metric for metric in metrics if not _is_cpu_utilization(metric)]:
            notes[METRICS] = _each(others, _old_source)
        if behavior := o["spec"].get("behavior"):
            notes[BEHAVIOR] = _with_case(behavior, str.upper)
        out["spec"] = spec
    if "status" in o:
        status = dict(o["status"])
        current, conditions = status.pop("currentMetrics", ()), status.pop("conditions", ())
        if current:
            notes[CURRENT] = _each(current, _old_reading)
            cpu = _cpu(current)
            reading = ((cpu or {}).get("resource") or {}).get("current") or {}
            if reading.get("averageUtilization") is not None:
                status["currentCPUUtilizationPercentage"] = reading["averageUtilization"]
        if conditions:
            notes[CONDITIONS] = conditions
        out["status"] = {"currentReplicas": 0, "desiredReplicas": 0, **status}
    return _annotated(out, notes)


# --- words --------------------------------------------------------------------------------------

_CPU_TARGET = re.compile(r"^spec\.metrics\[\d+\]\.resource\.target(\.averageUtilization)?$")
_OLD_TARGETS = (
    (re.compile(r"esource\.target\.averageUtilization$"), "esource.targetAverageUtilization"),
    (re.compile(r"(esource|pods|external)\.target\.averageValue$"), r"\1.targetAverageValue"),
    (re.compile(r"object\.target\.averageValue$"), "object.averageValue"),
    (re.compile(r"(object|external)\.target\.value$"), r"\1.targetValue"),
    (re.compile(r"\.metric\.name$"), ".metricName"),
    (re.compile(r"object\.describedObject\b"), "object.target"),
)


def _fault_v1(fault: FieldError) -> FieldError:
    return replace(fault, field=_CPU_TARGET.sub("spec.targetCPUUtilizationPercentage", fault.field))


def _fault_v2beta1(fault: FieldError) -> FieldError:
    path = fault.field
    for pattern, old in _OLD_TARGETS:
        path = pattern.sub(old, path)
    return replace(fault, field=path)


V1 = Conversion(from_v1, to_v1, fault=_fault_v1)
V2BETA1 = Conversion(from_v2beta1, to_v2beta1, _default_v2beta1, _fault_v2beta1)
