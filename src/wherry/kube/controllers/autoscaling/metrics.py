"""One metric of an autoscaler: what is asked, how many replicas follow, what the status says.

Each type is a function in ``TYPES``. Upstream: computeStatusFor… in horizontal.go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from wherry.kube.api.errors import StatusError
from wherry.kube.api.quantity import from_milli, to_milli
from wherry.kube.api.selectors import labels_from_object
from wherry.kube.client.transport import Object, Transport
from wherry.kube.controllers.autoscaling import replicas, sources
from wherry.kube.controllers.autoscaling.replicas import (
    CannotCompute,
    Proposal,
    Timing,
    Tolerances,
)
from wherry.kube.controllers.autoscaling.targets import NoTarget, Scale, Targets


class MetricFault(Exception):
    """A metric of which nothing follows. ``reason`` and ``why`` are the condition's and the
    event's, ``str()`` is told where all metrics are."""

    def __init__(self, reason: str, why: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.why = why


@dataclass(frozen=True, slots=True)
class Measured:
    """So many replicas, because of the metric called ``name``; what the status says of it."""

    replicas: int
    name: str
    status: Object


@dataclass(frozen=True, slots=True)
class View:
    """What all metrics of an autoscaler are judged by. ``pods`` are those that the scale's
    selector takes."""

    transport: Transport
    targets: Targets
    namespace: str
    scale: Scale
    selector: str
    pods: Sequence[Object]
    tolerances: Tolerances
    timing: Timing


_Answer = tuple[Proposal, str, Object]
"""What follows, how the metric is called, what the status has of it besides the type."""


async def measure(metric: Object, view: View) -> Measured:
    """Ask for a metric and say what follows.

    Raises:
        MetricFault: nothing does.
    """
    kind = metric.get("type") or ""
    if kind not in TYPES:
        why = f'unknown metric source type "{kind}"'
        raise MetricFault("InvalidMetricSourceType", why, why)
    place, compute, told = TYPES[kind]
    source = metric.get(place) or {}
    try:
        proposal, name, status = await compute(source, view)
    except (CannotCompute, NoTarget, StatusError) as error:
        message = f"failed to get {told(source)} metric value: {error}"
        raise MetricFault(f"FailedGet{kind}Metric", str(error), message) from error
    return Measured(proposal.replicas, name, {"type": kind, place: status})


async def _resource(source: Object, view: View) -> _Answer:
    proposal, name, current = await _of_pods(source, "", view)
    return proposal, name, {"name": source["name"], "current": current}


async def _container_resource(source: Object, view: View) -> _Answer:
    container = source["container"]
    proposal, name, current = await _of_pods(source, container, view)
    name = name.replace(" resource utilization", " container resource utilization")
    return proposal, name, {"name": source["name"], "container": container, "current": current}


async def _of_pods(source: Object, container: str, view: View) -> _Answer:
    target: Object = source.get("target") or {}
    resource: str = source["name"]
    average: str | None = target.get("averageValue")
    utilization: int | None = target.get("averageUtilization")
    if average is None and utilization is None:
        raise CannotCompute(
            "invalid resource metric source: neither an average utilization target nor an average "
            "value (usage) target was set"
        )
    what = "utilization" if average is None else "usage"
    try:
        figures = await _figures(
            f"unable to get metrics for resource {resource}",
            sources.resource(view.transport, view.namespace, resource, view.selector, container),
        )
        if average is not None:
            proposal = replicas.for_average(
                view.scale.wanted,
                to_milli(average),
                view.pods,
                figures,
                resource,
                view.tolerances,
                view.timing,
            )
            return proposal, f"{resource} resource", {"averageValue": _quantity(proposal.usage)}
        assert utilization is not None
        proposal = replicas.for_utilization(
            view.scale.wanted,
            utilization,
            view.pods,
            figures,
            container,
            resource,
            view.tolerances,
            view.timing,
        )
    except CannotCompute as error:
        raise CannotCompute(f"failed to get {resource} {what}: {error}") from error
    current = {
        "averageUtilization": proposal.utilization,
        "averageValue": _quantity(proposal.usage),
    }
    return proposal, f"{resource} resource utilization (percentage of request)", current


async def _pods(source: Object, view: View) -> _Answer:
    metric, target = source["metric"], source.get("target") or {}
    name = metric["name"]
    figures = await _figures(
        f"unable to get metric {name}",
        sources.of_pods(view.transport, view.namespace, name, view.selector, _selector(metric)),
    )
    proposal = replicas.for_average(
        view.scale.wanted,
        to_milli(target["averageValue"]),
        view.pods,
        figures,
        "",
        view.tolerances,
        view.timing,
    )
    current = {"averageValue": _quantity(proposal.usage)}
    return proposal, f"pods metric {name}", {"metric": _identifier(metric), "current": current}


async def _object(source: Object, view: View) -> _Answer:
    target: Object = source.get("target") or {}
    metric, of = source["metric"], source["describedObject"]
    kind, value, average = target.get("type"), target.get("value"), target.get("averageValue")
    if (kind == "Value" and value is not None) or (kind == "AverageValue" and average is not None):
        measured = await _of_object(metric, of, view)
    else:
        raise CannotCompute(
            "invalid object metric source: neither a value target nor an average value target was "
            "set"
        )
    status: Object = {"metric": _identifier(metric), "describedObject": dict(of)}
    if kind == "Value":
        proposal = replicas.for_value(
            view.scale.wanted, to_milli(str(value)), measured, view.pods, view.tolerances
        )
        name = f"{of.get('kind', '')} metric {metric['name']}"
        return proposal, name, {**status, "current": {"value": _quantity(proposal.usage)}}
    proposal = replicas.for_value_per_pod(
        view.scale.there, to_milli(str(average)), measured, view.tolerances
    )
    current = {"averageValue": _quantity(proposal.usage)}
    return proposal, f"external metric {_shown(metric)}", {**status, "current": current}


async def _of_object(metric: Object, of: Object, view: View) -> int:
    kind, api_version = of.get("kind") or "", of.get("apiVersion") or ""
    namespaced = f"namespaces/{view.namespace}"
    name = metric["name"]
    try:
        if kind == "Namespace" and api_version in ("", "v1"):
            place = f"{namespaced}/metrics"  # its own: an autoscaler sees no other
        else:
            mapping = await view.targets.mapping(api_version, kind)
            place = f"{namespaced}/{mapping.qualified}/{of.get('name', '')}"
        return await sources.of_object(view.transport, place, name, _selector(metric))
    except (CannotCompute, NoTarget) as error:
        said = "unable to fetch metrics from custom metrics API: "
        why = str(error) if isinstance(error, CannotCompute) else f"{said}{error}"
        where = f"{kind} {view.namespace}/{of.get('name', '')}"
        raise CannotCompute(f"unable to get metric {name}: {where} {why}") from error


async def _external(source: Object, view: View) -> _Answer:
    target: Object = source.get("target") or {}
    metric: Object = source["metric"]
    name, value, average = metric["name"], target.get("value"), target.get("averageValue")
    if value is None and average is None:
        raise CannotCompute(
            "invalid external metric source: neither a value target nor an average value target "
            "was set"
        )
    shown = f"{view.namespace}/{name}/{_selector_shown(metric.get('selector'))}"
    whole = f"{name} external metric" if average is not None else f"external metric {name}"
    try:
        measured = await _figures(
            f"unable to get external metric {shown}",
            sources.external(view.transport, view.namespace, name, _selector(metric)),
        )
        if average is not None:
            proposal = replicas.for_value_per_pod(
                view.scale.there, to_milli(average), measured, view.tolerances
            )
            current = {"averageValue": _quantity(proposal.usage)}
        else:
            proposal = replicas.for_value(
                view.scale.wanted, to_milli(str(value)), measured, view.pods, view.tolerances
            )
            current = {"value": _quantity(proposal.usage)}
    except CannotCompute as error:
        raise CannotCompute(f"failed to get {whole}: {error}") from error
    status = {"metric": _identifier(metric), "current": current}
    return proposal, f"external metric {_shown(metric)}", status


async def _figures(said: str, asked: Awaitable[Any]) -> Any:
    try:
        return await asked
    except CannotCompute as error:
        raise CannotCompute(f"{said}: {error}") from error


def _quantity(thousandths: int) -> str:
    return str(from_milli(thousandths))


def _selector(metric: Object) -> str:
    """As a query; a metric without one takes all series."""
    selector = metric.get("selector")
    return "" if selector is None else str(labels_from_object(selector))


def _identifier(metric: Object) -> Object:
    named: Object = {"name": metric["name"]}
    if metric.get("selector") is not None:
        named["selector"] = metric["selector"]
    return named


def _shown(metric: Object) -> str:
    return f"{metric['name']}({_selector_shown(metric.get('selector'))})"


def _selector_shown(selector: Object | None) -> str:
    """As upstream's events show a selector: Go's form of the structure."""
    if selector is None:
        return "nil"
    labels = selector.get("matchLabels") or {}
    labelled = "".join(f"{name}: {labels[name]}," for name in sorted(labels))
    expressions = "".join(
        "LabelSelectorRequirement{"
        f"Key:{each.get('key', '')},Operator:{each.get('operator', '')},"
        f"Values:[{' '.join(each.get('values') or ())}],}},"
        for each in selector.get("matchExpressions") or ()
    )
    return (
        f"&LabelSelector{{MatchLabels:map[string]string{{{labelled}}},"
        f"MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )


_Compute = Callable[[Object, View], Awaitable[_Answer]]

TYPES: dict[str, tuple[str, _Compute, Callable[[Object], str]]] = {
    "Resource": ("resource", _resource, lambda s: f"{s['name']} resource"),
    "ContainerResource": (
        "containerResource",
        _container_resource,
        lambda s: f"{s['container']} container",
    ),
    "Pods": ("pods", _pods, lambda s: "pods"),
    "Object": ("object", _object, lambda s: "object"),
    "External": ("external", _external, lambda s: f"{s['metric']['name']} external"),
}
"""By type: its field in the metric, what computes it, how errors call it."""
