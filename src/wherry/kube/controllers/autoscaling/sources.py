"""Asks the metrics APIs, whoever serves them.

Upstream: pkg/controller/podautoscaler/metrics, k8s.io/metrics/pkg/client/{custom,external}_metrics.
"""

from __future__ import annotations

from datetime import timedelta

from wherry.kube.api import meta, spans
from wherry.kube.api.errors import StatusError
from wherry.kube.api.quantity import to_milli
from wherry.kube.client.transport import Object, Query, Transport
from wherry.kube.controllers.autoscaling.replicas import CannotCompute, Figure

_CUSTOM = "custom.metrics.k8s.io"
_CUSTOM_VERSIONS = ("v1beta2", "v1beta1")
_WINDOW = timedelta(minutes=1)  # of custom metrics that do not say


async def resource(
    transport: Transport, namespace: str, name: str, selector: str, container: str
) -> dict[str, Figure]:
    """What pods use of a resource; with ``container``, what that one of theirs does.

    Raises:
        CannotCompute: there are no figures.
    """
    path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods"
    listed = await _ask(
        transport,
        path,
        [("labelSelector", selector)],
        "unable to fetch metrics from resource metrics API",
        "pods.metrics.k8s.io",
    )
    items = listed.get("items") or ()
    if not items:
        raise CannotCompute("no metrics returned from resource metrics API")
    figures = {}
    for item in items:
        value = _contained(item, name, container) if container else _summed(item, name)
        if value is not None:
            window = timedelta(seconds=spans.parse(item.get("window") or "0s"))
            figures[meta.name(item)] = Figure(value, meta.parse_time(item["timestamp"]), window)
    return figures


def _summed(item: Object, name: str) -> int | None:
    values = [(each.get("usage") or {}).get(name) for each in item.get("containers") or ()]
    if not values or None in values:
        return None
    return sum(to_milli(value) for value in values if value is not None)


def _contained(item: Object, name: str, container: str) -> int | None:
    for each in item.get("containers") or ():
        if each["name"] == container:
            value = (each.get("usage") or {}).get(name)
            return None if value is None else to_milli(value)
    where = f"{meta.namespace(item)}/{meta.name(item)}"
    raise CannotCompute(
        f"failed to get container metrics: container {container} not present in metrics for "
        f"pod {where}"
    )


async def of_pods(
    transport: Transport, namespace: str, metric: str, selector: str, metric_selector: str
) -> dict[str, Figure]:
    """A custom metric of pods. Raises CannotCompute."""
    query = [("labelSelector", selector), ("metricLabelSelector", metric_selector)]
    items = await _custom(transport, f"namespaces/{namespace}/pods/*/{metric}", query)
    if not items:
        raise CannotCompute("no metrics returned from custom metrics API")
    return {
        item["describedObject"]["name"]: Figure(
            to_milli(item["value"]),
            meta.parse_time(item["timestamp"]),
            _WINDOW
            if item.get("windowSeconds") is None
            else timedelta(seconds=item["windowSeconds"]),
        )
        for item in items
    }


async def of_object(transport: Transport, place: str, metric: str, metric_selector: str) -> int:
    """A custom metric of one object; ``place`` is its path without what the API begins with.

    Raises:
        CannotCompute: there is no figure.
    """
    query = [("metricLabelSelector", metric_selector)]
    items = await _custom(transport, f"{place}/{metric}", query)
    if len(items) != 1:
        raise CannotCompute(
            "unable to fetch metrics from custom metrics API: the custom metrics API server "
            f"returned {len(items)} results when we asked for exactly one"
        )
    return to_milli(items[0]["value"])


async def external(transport: Transport, namespace: str, metric: str, selector: str) -> int:
    """The sum of an external metric. Raises CannotCompute."""
    listed = await _ask(
        transport,
        f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metric}",
        [("labelSelector", selector)],
        "unable to fetch metrics from external metrics API",
        f"{metric}.external.metrics.k8s.io",
    )
    items = listed.get("items") or ()
    if not items:
        raise CannotCompute("no metrics returned from external metrics API")
    return sum(to_milli(item["value"]) for item in items)


async def _custom(transport: Transport, path: str, query: Query) -> list[Object]:
    said = "unable to fetch metrics from custom metrics API"
    try:
        told = await transport.request("GET", f"/apis/{_CUSTOM}")
        served = {each["version"] for each in told.get("versions") or ()}
    except (StatusError, ConnectionError):
        served = set()
    version = next((each for each in _CUSTOM_VERSIONS if each in served), None)
    if version is None:
        raise CannotCompute(f"{said}: no custom metrics API ({_CUSTOM}) registered")
    what = path.replace("namespaces/", "", 1).partition("/")[2].partition("/")[0] or "namespaces"
    listed = await _ask(
        transport, f"/apis/{_CUSTOM}/{version}/{path}", query, said, f"{what}.{_CUSTOM}"
    )
    return listed.get("items") or []


async def _ask(transport: Transport, path: str, query: Query, said: str, what: str) -> Object:
    try:
        return await transport.request("GET", path, query=[each for each in query if each[1]])
    except StatusError as error:
        raise CannotCompute(f"{said}: {_told(error, what)}") from error
    except (ConnectionError, TimeoutError) as error:
        raise CannotCompute(f"{said}: {error}") from error


def _told(error: StatusError, what: str) -> str:
    """The words of clients for those answers that are no API's."""
    if error.details:
        return str(error)
    if error.code == 404:
        return f"the server could not find the requested resource (get {what})"
    if error.code == 503:
        return f"the server is currently unable to handle the request (get {what})"
    return str(error)
