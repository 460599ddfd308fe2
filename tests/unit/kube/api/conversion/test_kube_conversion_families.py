"""Where old versions differed: what became of their fields and what was filled in."""

# Metrics are told best in one line each.
# ruff: noqa: E501

from __future__ import annotations

from typing import Any

import orjson
import pytest

from wherry.kube.api.catalogue import STATIC
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import Kind


def _kind(api_version: str, kind: str) -> Kind:
    group, _, version = api_version.rpartition("/")
    found = STATIC.by_kind(group, version, kind)
    assert found is not None
    return found


def _stored(o: dict[str, Any]) -> dict[str, Any]:
    """As it is stored, defaulted as at a create."""
    kind = _kind(o["apiVersion"], o["kind"])
    decoded = kind.decode(o)
    assert decoded.unknown == []
    kind.default(decoded.value)
    stored = kind.to_stored(decoded.value)
    _kind(stored["apiVersion"], stored["kind"]).default(stored)
    return stored


def _object(api_version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "n"}, "spec": spec}


# --- Ingress ------------------------------------------------------------------------------------


@pytest.mark.parametrize("api_version", ["extensions/v1beta1", "networking.k8s.io/v1beta1"])
def test_an_ingress_names_services_as_it_did(api_version: str) -> None:
    stored = _stored(
        _object(
            api_version,
            "Ingress",
            {
                "backend": {"serviceName": "all", "servicePort": "http"},
                "rules": [
                    {"http": {"paths": [{"backend": {"serviceName": "a", "servicePort": 80}}]}}
                ],
            },
        )
    )
    assert stored["apiVersion"] == "networking.k8s.io/v1"
    assert stored["spec"] == {
        "defaultBackend": {"service": {"name": "all", "port": {"name": "http"}}},
        "rules": [
            {
                "http": {
                    "paths": [
                        {
                            "backend": {"service": {"name": "a", "port": {"number": 80}}},
                            "pathType": "ImplementationSpecific",
                        }
                    ]
                }
            }
        ],
    }


@pytest.mark.parametrize(
    ("stored", "old"),
    [
        ("spec.defaultBackend.service.name", "spec.backend.serviceName"),
        ("spec.rules[0].http.paths[1].backend.service.port.name",
         "spec.rules[0].http.paths[1].backend.servicePort"),
        ("spec.rules[0].http.paths[1].backend.service.port.number",
         "spec.rules[0].http.paths[1].backend.servicePort"),
        ("spec.tls[0].hosts[0]", "spec.tls[0].hosts[0]"),
    ],
)  # fmt: skip
def test_faults_of_an_ingress_name_its_own_fields(stored: str, old: str) -> None:
    kind = _kind("extensions/v1beta1", "Ingress")
    faults = kind.as_asked([FieldError(stored, "FieldValueRequired", "Required value")], {})
    assert [fault.field for fault in faults] == [old]


# --- workloads ----------------------------------------------------------------------------------

_TEMPLATE = {
    "metadata": {"labels": {"app": "x"}},
    "spec": {"containers": [{"name": "c", "image": "i"}]},
}


@pytest.mark.parametrize(
    ("api_version", "limit", "deadline", "unavailable"),
    [
        ("extensions/v1beta1", 2147483647, 2147483647, 1),
        ("apps/v1beta1", 2, 600, "25%"),
        ("apps/v1beta2", 10, 600, "25%"),
    ],
)
def test_a_deployment_is_filled_in_as_it_was_then(
    api_version: str, limit: int, deadline: int, unavailable: Any
) -> None:
    stored = _stored(_object(api_version, "Deployment", {"template": _TEMPLATE}))
    spec = stored["spec"]
    assert spec["revisionHistoryLimit"] == limit
    assert spec["progressDeadlineSeconds"] == deadline
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == unavailable
    assert spec["replicas"] == 1
    if api_version == "apps/v1beta2":
        assert "selector" not in spec  # and so refused
    else:
        assert spec["selector"] == {"matchLabels": {"app": "x"}}
        assert stored["metadata"]["labels"] == {"app": "x"}


@pytest.mark.parametrize(
    ("api_version", "kind", "strategy"),
    [
        ("extensions/v1beta1", "DaemonSet", "OnDelete"),
        ("apps/v1beta2", "DaemonSet", "RollingUpdate"),
        ("apps/v1beta1", "StatefulSet", "OnDelete"),
        ("apps/v1beta2", "StatefulSet", "RollingUpdate"),
    ],
)
def test_sets_are_updated_as_they_were_then(api_version: str, kind: str, strategy: str) -> None:
    stored = _stored(_object(api_version, kind, {"template": _TEMPLATE}))
    assert stored["spec"]["updateStrategy"]["type"] == strategy


def test_what_became_an_annotation_is_a_field_again() -> None:
    kind = _kind("extensions/v1beta1", "Deployment")
    stored = kind.to_stored(_object("extensions/v1beta1", "Deployment", {"rollbackTo": {}}))
    assert stored["metadata"]["annotations"] == {"deprecated.deployment.rollback.to": "0"}
    assert kind.from_stored(stored)["spec"] == {"rollbackTo": {}}
    kind = _kind("extensions/v1beta1", "DaemonSet")
    stored = kind.to_stored(_object("extensions/v1beta1", "DaemonSet", {"templateGeneration": 3}))
    assert stored["metadata"]["annotations"] == {"deprecated.daemonset.template.generation": "3"}
    assert kind.from_stored(stored)["metadata"] == {"name": "n"}


def test_selectors_could_change() -> None:
    fault = FieldError(
        "spec.selector", "FieldValueInvalid", "Invalid value: {}: field is immutable"
    )
    for api_version, counts in (
        ("extensions/v1beta1", False),
        ("apps/v1beta1", False),
        ("apps/v1beta2", True),
    ):
        assert bool(_kind(api_version, "Deployment").as_asked([fault], {})) == counts


def test_the_scale_of_old_workloads_has_a_map_of_labels() -> None:
    kind = _kind("apps/v1beta1", "Deployment")
    o = _object("apps/v1", "Deployment", {"replicas": 2})
    o["spec"]["selector"] = {"matchLabels": {"a": "b"}}
    scale = kind.scale(o)
    assert scale["apiVersion"] == "apps/v1beta1"
    assert scale["status"] == {"replicas": 0, "selector": {"a": "b"}, "targetSelector": "a=b"}
    o["spec"]["selector"] = {"matchExpressions": [{"key": "a", "operator": "Exists"}]}
    assert kind.scale(o)["status"] == {"replicas": 0, "targetSelector": "a"}


def test_deleting_an_old_workload_leaves_its_pods() -> None:
    assert _kind("extensions/v1beta1", "Deployment").orphans
    assert _kind("batch/v1beta1", "CronJob").orphans
    assert not _kind("apps/v1", "Deployment").orphans
    assert not _kind("batch/v1", "CronJob").orphans


# --- HorizontalPodAutoscaler --------------------------------------------------------------------

_METRICS_V2 = [
    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
    {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
    {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "target": {"type": "Utilization", "averageUtilization": 60}}},
    {"type": "Pods", "pods": {"metric": {"name": "rps", "selector": {"matchLabels": {"a": "b"}}}, "target": {"type": "AverageValue", "averageValue": "1k"}}},
    {"type": "Object", "object": {"metric": {"name": "hits"}, "describedObject": {"kind": "Ingress", "name": "i"}, "target": {"type": "Value", "value": "10k"}}},
    {"type": "Object", "object": {"metric": {"name": "hits"}, "describedObject": {"kind": "Ingress", "name": "i"}, "target": {"type": "AverageValue", "averageValue": "2"}}},
    {"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "5"}}},
    {"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "5"}}},
]  # fmt: skip
_CURRENT_V2 = [
    {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 40, "averageValue": "10m"}}},
    {"type": "Pods", "pods": {"metric": {"name": "rps"}, "current": {"averageValue": "1k"}}},
    {"type": "Object", "object": {"metric": {"name": "hits"}, "describedObject": {"kind": "Ingress", "name": "i"}, "current": {"value": "9"}}},
    {"type": "External", "external": {"metric": {"name": "queue"}, "current": {"value": "5", "averageValue": "2"}}},
]  # fmt: skip
_BEHAVIOR = {
    "scaleDown": {
        "stabilizationWindowSeconds": 60,
        "selectPolicy": "Max",
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}],
    }
}


def _autoscaler() -> dict[str, Any]:
    o = _object(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        {
            "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"},
            "minReplicas": 1,
            "maxReplicas": 3,
            "metrics": _METRICS_V2,
            "behavior": _BEHAVIOR,
        },
    )
    o["metadata"]["annotations"] = {"mine": "kept"}
    o["status"] = {
        "currentReplicas": 1,
        "desiredReplicas": 2,
        "currentMetrics": _CURRENT_V2,
        "conditions": [{"type": "AbleToScale", "status": "True"}],
    }
    return o


def _by_text(metrics: list[Any]) -> list[bytes]:
    return sorted(orjson.dumps(each, option=orjson.OPT_SORT_KEYS) for each in metrics)


@pytest.mark.parametrize("version", ["v1", "v2beta1", "v2beta2"])
def test_an_autoscaler_comes_back_from_every_version(version: str) -> None:
    stored = _autoscaler()
    kind = _kind(f"autoscaling/{version}", "HorizontalPodAutoscaler")
    old = kind.from_stored(stored)
    decoded = kind.decode(old)
    assert decoded.unknown == []
    back = kind.to_stored(decoded.value)
    # v1 keeps the CPU apart, so the order is another; what an autoscaler does is not.
    assert _by_text(back["spec"].pop("metrics")) == _by_text(_METRICS_V2)
    stored = _autoscaler()
    del stored["spec"]["metrics"]
    assert back == stored


def test_v1_knows_the_cpu_and_keeps_the_rest_in_annotations() -> None:
    kind = _kind("autoscaling/v1", "HorizontalPodAutoscaler")
    old = kind.from_stored(_autoscaler())
    assert old["spec"] == {
        "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"},
        "minReplicas": 1,
        "maxReplicas": 3,
        "targetCPUUtilizationPercentage": 50,
    }
    assert old["status"]["currentCPUUtilizationPercentage"] == 40
    notes = old["metadata"]["annotations"]
    metrics = orjson.loads(notes["autoscaling.alpha.kubernetes.io/metrics"])
    assert metrics[0] == {
        "type": "Resource",
        "resource": {"name": "memory", "targetAverageValue": "1Gi"},
    }
    behavior = orjson.loads(notes["autoscaling.alpha.kubernetes.io/behavior"])
    assert behavior["ScaleDown"]["Policies"][0]["PeriodSeconds"] == 15
    assert "autoscaling.alpha.kubernetes.io/conditions" in notes
    assert notes["mine"] == "kept"


def test_v1_without_a_target_means_80_percent() -> None:
    spec = {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 3}
    stored = _stored(_object("autoscaling/v1", "HorizontalPodAutoscaler", spec))
    target = {"type": "Utilization", "averageUtilization": 80}
    assert stored["spec"]["metrics"] == [
        {"type": "Resource", "resource": {"name": "cpu", "target": target}}
    ]
    assert stored["spec"]["minReplicas"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        '"x"',
        "null",
        '[{"type":1}]',
        '{"ScaleUp":5}',
        '[[5],{"resource":5}]',
        '[{"resource":{"name":5,"targetAverageValue":[]}}]',
        "[" * 2000,
    ],
)
def test_a_broken_annotation_is_passed_over(text: str) -> None:
    o = _object("autoscaling/v1", "HorizontalPodAutoscaler", {"maxReplicas": 3})
    names = ("metrics", "current-metrics", "conditions", "behavior")
    o["metadata"]["annotations"] = {f"autoscaling.alpha.kubernetes.io/{n}": text for n in names}
    kind = _kind("autoscaling/v1", "HorizontalPodAutoscaler")
    stored = kind.to_stored(o)
    assert "annotations" not in stored["metadata"]
    kind.from_stored(stored)
    assert stored["spec"]["metrics"] == [
        {
            "type": "Resource",
            "resource": {
                "name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 80},
            },
        }
    ]
    assert "behavior" not in stored["spec"]


# --- the rest -----------------------------------------------------------------------------------


def test_an_empty_selector_of_a_budget_chose_nothing() -> None:
    kind = _kind("policy/v1beta1", "PodDisruptionBudget")
    stored = kind.to_stored(_object("policy/v1beta1", "PodDisruptionBudget", {"selector": {}}))
    (term,) = stored["spec"]["selector"]["matchExpressions"]
    assert term["operator"] == "Exists"
    assert kind.from_stored(stored)["spec"]["selector"] == {}
    everything = _object("policy/v1", "PodDisruptionBudget", {"selector": {}})
    old = kind.from_stored(everything)
    assert old["spec"]["selector"] != {}
    assert kind.to_stored(old)["spec"]["selector"] == {}


def test_where_an_endpoint_is_was_a_map() -> None:
    kind = _kind("discovery.k8s.io/v1beta1", "EndpointSlice")
    o = {
        "apiVersion": "discovery.k8s.io/v1beta1",
        "kind": "EndpointSlice",
        "metadata": {"name": "n"},
        "addressType": "IPv4",
        "endpoints": [
            {
                "addresses": ["10.0.0.1"],
                "nodeName": "a",
                "topology": {"kubernetes.io/hostname": "a", "topology.kubernetes.io/zone": "z"},
            }
        ],
    }
    stored = kind.to_stored(o)
    assert stored["endpoints"] == [{"addresses": ["10.0.0.1"], "nodeName": "a", "zone": "z"}]
    assert kind.from_stored(stored)["endpoints"] == o["endpoints"]


def test_an_event_has_better_names_in_its_own_group() -> None:
    kind = _kind("events.k8s.io/v1", "Event")
    stored = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "n", "namespace": "d"}}
    stored |= {"involvedObject": {"kind": "Pod", "name": "p"}, "message": "m", "count": 2}
    shown = kind.from_stored(stored)
    assert shown["regarding"] == {"kind": "Pod", "name": "p"}
    assert (shown["note"], shown["deprecatedCount"]) == ("m", 2)
    assert "regarding.name" in kind.selectable
    assert "involvedObject.name" not in kind.selectable
    assert kind.selectable_fields(stored)["regarding.name"] == "p"


def test_webhooks_were_asked_less_of() -> None:
    webhook = {"name": "a.b.c", "clientConfig": {"url": "https://h/"}, "rules": []}
    o = {
        "apiVersion": "admissionregistration.k8s.io/v1beta1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "n"},
        "webhooks": [webhook],
    }
    (stored,) = _stored(o)["webhooks"]
    assert stored["failurePolicy"] == "Ignore"
    assert stored["matchPolicy"] == "Exact"
    assert stored["timeoutSeconds"] == 30
    assert stored["admissionReviewVersions"] == ["v1beta1"]
    kind = _kind(o["apiVersion"], o["kind"])  # type: ignore[arg-type]
    whole = _stored(o)
    assert (
        kind.as_asked(_kind("admissionregistration.k8s.io/v1", o["kind"]).validate(whole), whole)
        == []
    )  # type: ignore[arg-type]


def test_the_signer_follows_from_what_a_request_asks() -> None:
    o = _object("certificates.k8s.io/v1beta1", "CertificateSigningRequest", {"request": "eA=="})
    stored = _stored(o)
    assert stored["spec"]["signerName"] == "kubernetes.io/legacy-unknown"
    assert stored["spec"]["usages"] == ["digital signature", "key encipherment"]
