"""The autoscaler's controller on a fake server that serves scales and metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from cluster import READY, Cluster, deployment
from fake_api import FakeAPI

from wherry.kube.api import errors, meta
from wherry.kube.api.resources import DEPLOYMENTS, EVENTS, HORIZONTAL_POD_AUTOSCALERS, PODS
from wherry.kube.client.client import Client
from wherry.kube.controllers import Options
from wherry.kube.controllers.base import AutoscalingOptions

NAME = "horizontal-pod-autoscaler-controller"
Object = dict[str, Any]
_LISTS = {
    "/apis/apps": {"versions": [{"version": "v1"}]},
    "/apis/apps/v1": {
        "resources": [
            {"name": "deployments/scale", "kind": "Scale", "namespaced": True},
            {"name": "deployments", "kind": "Deployment", "namespaced": True},
        ]
    },
    "/api/v1": {"resources": [{"name": "services", "kind": "Service", "namespaced": True}]},
}


class MeasuredAPI(FakeAPI):
    """With scales of Deployments, discovery, and metrics: ``answers`` by path."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, Object] = dict(_LISTS)
        self.usage: dict[str, str] = {}
        """What pods use of the CPU, by name."""
        self.refuses = ""
        self.selector = "app=web"
        self.asked: list[tuple[str, dict[str, str]]] = []

    async def request(self, method: str, path: str, **more: Any) -> Object:
        if path.endswith("/scale"):
            return await self._scale(method, path, more.get("body"))
        if path == "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods":
            return {"items": [_measured(name, used) for name, used in self.usage.items()]}
        if path in self.answers or path.startswith(("/apis/custom.", "/apis/external.", "/apis/x")):
            self.asked.append((path, dict(more.get("query") or ())))
            if path not in self.answers:
                raise errors.StatusError(404, "NotFound", "404 page not found")
            return self.answers[path]
        return await super().request(method, path, **more)

    async def _scale(self, method: str, path: str, body: Any) -> Object:
        place = path.removesuffix("/scale")
        found = await super().request("GET", place)
        if method == "PUT":
            if self.refuses:
                raise errors.StatusError(403, "Forbidden", self.refuses)
            patch = {"spec": {"replicas": body["spec"]["replicas"]}}
            found = await super().request("PATCH", place, body=patch)
        replicas = found["spec"]["replicas"]
        return {
            "kind": "Scale",
            "metadata": {"name": meta.name(found)},
            "spec": {"replicas": replicas},
            "status": {"replicas": replicas, "selector": self.selector},
        }


def _measured(name: str, used: str) -> Object:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "timestamp": meta.now(),
        "window": "15s",
        "containers": [{"name": "hello", "usage": {"cpu": used}}],
    }


class Measured(Cluster):
    """Deployments have as many pods as the test gives them, an hour old."""

    def __init__(self, **autoscaling: Any) -> None:
        super().__init__(NAME, kubelet=False)
        self.measured = self.api = MeasuredAPI()
        self.client = Client(self.api)
        period = autoscaling.pop("period", 0.02)
        self.options = Options((NAME,), autoscaling=AutoscalingOptions(period, **autoscaling))

    async def deploy(self, replicas: int, *, used: str = "", pods: int | None = None) -> None:
        await self.client.create(DEPLOYMENTS, deployment(replicas=replicas))
        for number in range(replicas if pods is None else pods):
            name = f"web-{number}"
            container = {"name": "hello", "image": "x", "resources": {"requests": {"cpu": "100m"}}}
            pod = {
                "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}},
                "spec": {"containers": [container]},
            }
            await self.client.create(PODS, pod)
            status = READY(startTime="2020-01-01T00:00:00Z")
            status["conditions"][0]["lastTransitionTime"] = "2020-01-01T00:00:01Z"
            patch = {"status": status}
            await self.client.patch(PODS, name, patch, "default", subresource="status")
            if used:
                self.measured.usage[name] = used

    async def scale(self, *metrics: Object, name: str = "web", **spec: Any) -> None:
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
        spec = {"minReplicas": 1, "maxReplicas": 10, "scaleTargetRef": target, **spec}
        await self.client.create(
            HORIZONTAL_POD_AUTOSCALERS,
            {
                "metadata": {"name": name, "namespace": "default"},
                "spec": {**spec, "metrics": list(metrics or [cpu(50)])},
            },
        )

    def status(self, name: str = "web") -> Object:
        found = self.api.get(HORIZONTAL_POD_AUTOSCALERS, name, "default")
        return (found or {}).get("status") or {}

    def says(self, kind: str, name: str = "web") -> tuple[str, str, str]:
        for each in self.status(name).get("conditions") or ():
            if each["type"] == kind:
                return each["status"], each["reason"], each["message"]
        return "", "", ""

    def replicas(self) -> int:
        found = self.api.get(DEPLOYMENTS, "web", "default")
        assert found is not None
        return int(found["spec"]["replicas"])

    def events(self) -> dict[str, str]:
        return {e["reason"]: e["message"] for e in self.api.find(EVENTS)}


def cpu(target: int) -> Object:
    goal = {"type": "Utilization", "averageUtilization": target}
    return {"type": "Resource", "resource": {"name": "cpu", "target": goal}}


@pytest.fixture
async def cluster() -> AsyncIterator[Measured]:
    async with Measured() as made:
        yield made


async def test_replicas_grow_with_the_load_and_the_status_says_why(cluster: Measured) -> None:
    await cluster.deploy(2, used="100m")
    await cluster.scale()
    await cluster.until(lambda: cluster.replicas() == 4 and cluster.status().get("lastScaleTime"))
    await cluster.until(lambda: "SuccessfulRescale" in cluster.events())
    reason = "cpu resource utilization (percentage of request) above target"
    assert cluster.events()["SuccessfulRescale"] == f"New size: 4; reason: {reason}"
    status = cluster.status()
    current = {"averageUtilization": 100, "averageValue": "100m"}
    assert status["currentMetrics"] == [
        {"type": "Resource", "resource": {"name": "cpu", "current": current}}
    ]
    assert cluster.says("ScalingActive") == (
        "True",
        "ValidMetricFound",
        "the HPA was able to successfully calculate a replica count from "
        "cpu resource utilization (percentage of request)",
    )
    assert cluster.says("ScalingLimited")[:2] == ("False", "DesiredWithinRange")
    assert cluster.says("AbleToScale")[0] == "True"


async def test_fewer_are_had_when_the_window_is_over() -> None:
    async with Measured(downscale_stabilization=0.1) as cluster:
        await cluster.deploy(4, used="10m")
        await cluster.scale()
        await cluster.until(lambda: cluster.replicas() == 1)
        await cluster.until(lambda: "SuccessfulRescale" in cluster.events())
        message = "New size: 1; reason: All metrics below target"
        assert cluster.events()["SuccessfulRescale"] == message


async def test_within_the_window_nothing_shrinks(cluster: Measured) -> None:
    await cluster.deploy(4, used="10m")
    await cluster.scale()
    await cluster.until(lambda: cluster.says("AbleToScale")[1] == "ScaleDownStabilized")
    assert cluster.replicas() == 4
    assert cluster.status()["desiredReplicas"] == 4


@pytest.mark.parametrize(
    ("there", "spec", "then", "reason"),
    [
        (8, {"maxReplicas": 5}, 5, "Current number of replicas above Spec.MaxReplicas"),
        (1, {"minReplicas": 3}, 3, "Current number of replicas below Spec.MinReplicas"),
    ],
)
async def test_bounds_hold_without_any_metric(
    cluster: Measured, there: int, spec: Object, then: int, reason: str
) -> None:
    await cluster.deploy(there, pods=0)
    await cluster.scale(**spec)
    await cluster.until(lambda: cluster.replicas() == then)
    await cluster.until(lambda: "SuccessfulRescale" in cluster.events())
    assert cluster.events()["SuccessfulRescale"] == f"New size: {then}; reason: {reason}"


async def test_a_change_of_the_spec_is_looked_at_at_once() -> None:
    async with Measured(period=3600) as cluster:
        await cluster.deploy(2, used="50m")
        await cluster.scale()
        await cluster.until(lambda: cluster.status().get("currentMetrics"))
        patch = {"spec": {"minReplicas": 3}}
        await cluster.client.patch(HORIZONTAL_POD_AUTOSCALERS, "web", patch, "default")
        await cluster.until(lambda: cluster.replicas() == 3)


async def test_of_nothing_nothing_is_scaled(cluster: Measured) -> None:
    await cluster.deploy(0)
    await cluster.scale()
    await cluster.until(lambda: cluster.says("ScalingActive")[1] == "ScalingDisabled")
    assert cluster.replicas() == 0


async def test_without_metrics_the_conditions_and_events_say_so(cluster: Measured) -> None:
    await cluster.deploy(2)
    await cluster.scale()
    why = (
        "failed to get cpu utilization: unable to get metrics for resource cpu: "
        "no metrics returned from resource metrics API"
    )
    await cluster.until(lambda: cluster.says("ScalingActive")[1] == "FailedGetResourceMetric")
    message = f"the HPA was unable to compute the replica count: {why}"
    assert cluster.says("ScalingActive")[2] == message
    await cluster.until(lambda: "FailedComputeMetricsReplicas" in cluster.events())
    assert cluster.events()["FailedGetResourceMetric"] == why
    assert cluster.events()["FailedComputeMetricsReplicas"] == (
        "invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric "
        f"value: {why}"
    )


async def test_what_cannot_be_found_or_scaled_is_said(cluster: Measured) -> None:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "nobody"}
    await cluster.scale(name="lost", scaleTargetRef=target)
    target = {"apiVersion": "x/v1", "kind": "Thing", "name": "x"}
    await cluster.scale(name="strange", scaleTargetRef=target)
    said = "the HPA controller was unable to get the target's current scale: "
    await cluster.until(lambda: cluster.says("AbleToScale", "lost")[1] == "FailedGetScale")
    assert cluster.says("AbleToScale", "lost")[2] == f'{said}deployments.apps "nobody" not found'
    await cluster.until(lambda: cluster.says("AbleToScale", "strange")[1] == "FailedGetScale")
    message = f'{said}no matches for kind "Thing" in group "x"'
    assert cluster.says("AbleToScale", "strange")[2] == message


async def test_a_refused_rescale_is_said_and_tried_again(cluster: Measured) -> None:
    cluster.measured.refuses = "it is not allowed"
    await cluster.deploy(2, used="100m")
    await cluster.scale()
    await cluster.until(lambda: cluster.says("AbleToScale")[1] == "FailedUpdateScale")
    message = "the HPA controller was unable to update the target scale: it is not allowed"
    assert cluster.says("AbleToScale")[2] == message
    cluster.measured.refuses = ""
    await cluster.until(lambda: cluster.replicas() == 4)


async def test_pods_of_two_autoscalers_are_nobodys(cluster: Measured) -> None:
    await cluster.deploy(2, used="100m")
    await cluster.scale(cpu(100))
    await cluster.until(lambda: cluster.status().get("currentMetrics"))
    await cluster.scale(cpu(100), name="other")
    await cluster.until(lambda: cluster.says("ScalingActive")[1] == "AmbiguousSelector")
    assert cluster.says("ScalingActive")[2] == (
        "pods by selector app=web are controlled by multiple HPAs: [default/other default/web]"
    )
    await cluster.client.delete(HORIZONTAL_POD_AUTOSCALERS, "other", "default")
    await cluster.until(lambda: cluster.says("ScalingActive")[1] == "ValidMetricFound")


async def test_a_target_without_a_selector_is_not_scaled(cluster: Measured) -> None:
    cluster.measured.selector = ""
    await cluster.deploy(2, used="100m")
    await cluster.scale()
    await cluster.until(lambda: cluster.says("ScalingActive")[1] == "InvalidSelector")
    await cluster.until(lambda: cluster.events().get("SelectorRequired"))


def _value(value: str, **more: Any) -> Object:
    return {"items": [{"value": value, "timestamp": meta.now(), **more}]}


CUSTOM = "/apis/custom.metrics.k8s.io"
EXTERNAL = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default"
QUEUE = {"name": "queue", "selector": {"matchLabels": {"of": "web"}}}


@pytest.mark.parametrize(
    ("metric", "path", "answer", "query", "reason", "seen"),
    [
        (
            {
                "type": "Pods",
                "pods": {
                    "metric": {"name": "rps"},
                    "target": {"type": "AverageValue", "averageValue": "10"},
                },
            },
            f"{CUSTOM}/v1beta2/namespaces/default/pods/*/rps",
            {
                "items": [
                    {
                        "describedObject": {"kind": "Pod", "name": f"web-{i}"},
                        "value": "20",
                        "timestamp": meta.now(),
                    }
                    for i in range(2)
                ]
            },
            {"labelSelector": "app=web"},
            "pods metric rps",
            {"averageValue": "20"},
        ),
        (
            {
                "type": "Object",
                "object": {
                    "metric": {"name": "hits"},
                    "describedObject": {"kind": "Service", "name": "web", "apiVersion": "v1"},
                    "target": {"type": "Value", "value": "1k"},
                },
            },
            f"{CUSTOM}/v1beta2/namespaces/default/services/web/hits",
            _value("2k"),
            {},
            "Service metric hits",
            {"value": "2k"},
        ),
        (
            {
                "type": "External",
                "external": {"metric": QUEUE, "target": {"type": "Value", "value": "30"}},
            },
            f"{EXTERNAL}/queue",
            {"items": [{"value": "20"}, {"value": "40"}]},
            {"labelSelector": "of=web"},
            "external metric queue(&LabelSelector{MatchLabels:map[string]string{of: web,},"
            "MatchExpressions:[]LabelSelectorRequirement{},})",
            {"value": "60"},
        ),
        (
            {
                "type": "External",
                "external": {
                    "metric": {"name": "queue"},
                    "target": {"type": "AverageValue", "averageValue": "5"},
                },
            },
            f"{EXTERNAL}/queue",
            {"items": [{"value": "20"}]},
            {},
            "external metric queue(nil)",
            {"averageValue": "10"},
        ),
    ],
)
async def test_custom_and_external_metrics_are_asked_of_whoever_serves_them(
    cluster: Measured,
    metric: Object,
    path: str,
    answer: Object,
    query: dict[str, str],
    reason: str,
    seen: Object,
) -> None:
    cluster.measured.answers[CUSTOM] = {
        "versions": [{"version": "v1beta1"}, {"version": "v1beta2"}]
    }
    cluster.measured.answers[path] = answer
    await cluster.deploy(2)
    await cluster.scale(metric, maxReplicas=4)
    await cluster.until(lambda: cluster.replicas() == 4)
    assert (path, query) in cluster.measured.asked
    await cluster.until(lambda: "SuccessfulRescale" in cluster.events())
    assert cluster.events()["SuccessfulRescale"] == f"New size: 4; reason: {reason} above target"
    (told,) = cluster.status()["currentMetrics"]
    assert told[metric["type"].lower()]["current"] == seen


async def test_a_metric_that_fails_prevents_shrinking_but_not_growing(cluster: Measured) -> None:
    external = {
        "type": "External",
        "external": {"metric": QUEUE, "target": {"type": "Value", "value": "30"}},
    }
    await cluster.deploy(2, used="100m")
    await cluster.scale(external, cpu(50))
    await cluster.until(lambda: cluster.replicas() == 4)
    await cluster.until(lambda: cluster.status().get("currentMetrics"))
    assert cluster.status()["currentMetrics"][0] == {"type": ""}
    for name in cluster.measured.usage:
        cluster.measured.usage[name] = "0"
    await cluster.until(lambda: cluster.says("ScalingActive")[1] == "FailedGetExternalMetric")
    assert cluster.says("ScalingActive")[2].endswith(
        "unable to fetch metrics from external metrics API: the server could not find the "
        "requested resource (get queue.external.metrics.k8s.io)"
    )


async def test_external_metrics_scale_to_nothing_and_back() -> None:
    external = {
        "type": "External",
        "external": {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "10"}},
    }
    async with Measured(downscale_stabilization=0) as cluster:
        cluster.measured.answers[f"{EXTERNAL}/queue"] = _value("0")
        await cluster.deploy(2)
        await cluster.scale(external, minReplicas=0)
        await cluster.until(lambda: cluster.replicas() == 0)
        cluster.measured.answers[f"{EXTERNAL}/queue"] = _value("25")
        await cluster.until(lambda: cluster.replicas() == 3)
