"""Autoscalers and the metrics server on a real instance."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Instance, eventually
from kubernetes import client as python_client
from kubernetes import config as python_config
from metrics_adapter import Adapter, certificate

IMAGE = "wherry.io/busybox:1"
Object = dict[str, Any]


def deployment(name: str, command: str, *, replicas: int = 1) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [
                        {
                            "name": "work",
                            "image": IMAGE,
                            "command": ["sh", "-c", command],
                            "resources": {"requests": {"cpu": "50m"}},
                        }
                    ],
                },
            },
        },
    }


def apply(instance: Instance, *objects: Object) -> None:
    listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    instance.kubectl("apply", "-f", "-", stdin=json.dumps(listed))


@pytest.fixture(scope="module")
def eager(
    new_instance: Callable[[], Instance], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Instance]:
    """An instance whose autoscalers look every second, with a metrics server of its own that asks
    the kubelet as often, in place of the one in the server."""
    instance = new_instance()
    period = "horizontal-pod-autoscaler-sync-period=1s"
    window = "horizontal-pod-autoscaler-downscale-stabilization=2s"
    instance.wherry("up", "--controller-arg", period, "--controller-arg", window)
    address = instance.get("node")["items"][0]["status"]["addresses"][0]["address"]
    cert, key = certificate(
        tmp_path_factory.mktemp("pair"), "metrics-server.kube-system.svc", address
    )
    wait_available(instance, "v1beta1.metrics.k8s.io")
    instance.kubectl("delete", "apiservice", "v1beta1.metrics.k8s.io")
    pki = instance.data_dir / "pki"
    apart = subprocess.Popen(
        [
            *(sys.executable, "-m", "wherry.kube.metrics"),
            *("--kubeconfig", str(instance.data_dir / "admin.conf"), "--metric-resolution", "1s"),
            *("--bind-address", address, "--secure-port", "0", "--advertise-address", address),
            *("--tls-cert-file", str(cert), "--tls-private-key-file", str(key)),
            *("--tls-ca-file", str(cert)),
            *("--requestheader-client-ca-file", str(pki / "front-proxy" / "ca.crt")),
            *("--requestheader-allowed-names", "front-proxy-client"),
            *("--kubelet-client-certificate", str(pki / "apiserver-kubelet-client.crt")),
            *("--kubelet-client-key", str(pki / "apiserver-kubelet-client.key")),
            *("--kubelet-certificate-authority", str(pki / "ca.crt")),
        ],
    )
    try:
        yield instance
    finally:
        apart.terminate()
        apart.wait(60)


def condition(instance: Instance, namespace: str, name: str, kind: str) -> tuple[str, str]:
    status = instance.get("hpa", name, "-n", namespace).get("status") or {}
    for each in status.get("conditions") or ():
        if each["type"] == kind:
            return each["status"], each["reason"]
    return "", ""


def replicas(instance: Instance, what: str, namespace: str) -> int:
    return int(instance.get(*what.split("/"), "-n", namespace)["spec"]["replicas"])


def wait_available(instance: Instance, name: str) -> None:
    for what in ("create", "condition=Available"):
        instance.kubectl("wait", f"--for={what}", f"apiservice/{name}")


@pytest.fixture
def place(eager: Instance, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"t{abs(hash(request.node.name)) % 10**8}"
    eager.kubectl("create", "namespace", name)
    yield name
    eager.kubectl("delete", "namespace", name, "--wait=false", ok=False)


def test_a_deployment_follows_its_cpu_up_and_down(eager: Instance, place: str) -> None:
    # They burn what they get until they are told that it is enough.
    burn = "while [ ! -e /enough ]; do :; done; exec sleep 3600"
    apply(eager_in(eager, place), deployment("burner", burn))
    eager.kubectl(
        *("autoscale", "deployment", "burner", "-n", place),
        *("--min=1", "--max=3", "--cpu-percent=50"),
    )
    eventually(lambda: replicas(eager, "deployment/burner", place) == 3)
    described = lambda: eager.kubectl("describe", "hpa", "burner", "-n", place).out  # noqa: E731
    why = "reason: cpu resource utilization (percentage of request) above target"
    eventually(lambda: "SuccessfulRescale" in described() and why in described())
    active = lambda: condition(eager, place, "burner", "ScalingActive")  # noqa: E731
    eventually(lambda: active() == ("True", "ValidMetricFound"))
    eventually(lambda: condition(eager, place, "burner", "ScalingLimited")[0] == "True")

    def row() -> list[str]:
        return eager.kubectl("get", "hpa", "burner", "-n", place).out.splitlines()[1].split()

    assert row()[:3] == ["burner", "Deployment/burner", "cpu:"]
    eventually(lambda: row()[3].endswith("%/50%"))

    def burning() -> bool:
        words = ("top", "pod", "-n", place, "-l", "app=burner", "--no-headers")
        lines = eager.kubectl(*words, ok=False).out.splitlines()
        return any(int(line.split()[1].removesuffix("m")) > 50 for line in lines)

    eventually(burning)
    # When the load is over there is one again.
    eager.kubectl("rollout", "status", "deployment/burner", "-n", place, "--timeout=110s")
    for pod in eager.kubectl("get", "pods", "-n", place, "-o", "name").out.split():
        eager.kubectl("exec", "-n", place, pod, "--", "touch", "/enough")
    eventually(lambda: replicas(eager, "deployment/burner", place) == 1, seconds=90)
    events = lambda: eager.kubectl("get", "events", "-n", place).out  # noqa: E731
    eventually(lambda: "New size: 1; reason: All metrics below target" in events())


def eager_in(instance: Instance, namespace: str) -> Instance:
    """The same, with another namespace for what has none."""
    made = Instance(instance.data_dir)
    plain = instance.kubectl
    made.kubectl = lambda *args, **more: plain(*args, "-n", namespace, **more)  # type: ignore[method-assign]
    return made


@pytest.fixture(scope="module")
def adapter(eager: Instance, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adapter]:
    """custom.metrics.k8s.io and external.metrics.k8s.io, served by the test."""
    address = eager.get("node")["items"][0]["status"]["addresses"][0]["address"]
    pair = certificate(tmp_path_factory.mktemp("adapter"), "adapter.default.svc", address)
    with Adapter(address, pair) as adapter:
        apply(eager, *adapter.objects())
        for name in ("v1beta2.custom.metrics.k8s.io", "v1beta1.external.metrics.k8s.io"):
            wait_available(eager, name)
        yield adapter


def hpa(name: str, target: Object, metric: Object, **spec: Any) -> Object:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {"scaleTargetRef": target, "maxReplicas": 5, "metrics": [metric], **spec},
    }


def external(name: str, target: Object) -> Object:
    return {"type": "External", "external": {"metric": {"name": name}, "target": target}}


def test_a_custom_resource_follows_an_external_metric(
    eager: Instance, place: str, adapter: Adapter
) -> None:
    paths = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "fleets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "fleets", "singular": "fleet", "kind": "Fleet"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "x-kubernetes-preserve-unknown-fields": True,
                        }
                    },
                    "subresources": {
                        "status": {},
                        "scale": {**paths, "labelSelectorPath": ".status.selector"},
                    },
                }
            ],
        },
    }
    apply(eager, definition)
    eager.kubectl("wait", "--for=condition=Established", "crd/fleets.example.com")
    fleet = {
        "apiVersion": "example.com/v1",
        "kind": "Fleet",
        "metadata": {"name": "f"},
        "spec": {"replicas": 1},
    }
    here = eager_in(eager, place)
    eventually(lambda: "fleets" in eager.kubectl("api-resources").out)
    apply(here, fleet)
    status = {"status": {"replicas": 1, "selector": "app=fleet"}}
    here.kubectl("patch", "fleet", "f", "--subresource=status", "--type=merge", "-p",
                 json.dumps(status))  # fmt: skip
    adapter.external["queue"] = ["20", "15"]
    target = {"apiVersion": "example.com/v1", "kind": "Fleet", "name": "f"}
    apply(here, hpa("f", target, external("queue", {"type": "AverageValue", "averageValue": "10"})))
    eventually(lambda: replicas(eager, "fleet/f", place) == 4)
    events = lambda: eager.kubectl("get", "events", "-n", place).out  # noqa: E731
    eventually(lambda: "New size: 4; reason: external metric queue(nil) above target" in events())


def test_custom_metrics_of_pods_and_objects_are_followed(
    eager: Instance, place: str, adapter: Adapter
) -> None:
    here = eager_in(eager, place)
    apply(here, deployment("web", "exec sleep 3600", replicas=1))
    eager.kubectl("rollout", "status", "deployment/web", "-n", place)
    adapter.pods["rps"] = "30"
    adapter.objects_["hits"] = "5"
    per_pod = {
        "type": "Pods",
        "pods": {
            "metric": {"name": "rps"},
            "target": {"type": "AverageValue", "averageValue": "10"},
        },
    }
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    apply(here, hpa("web", target, per_pod, maxReplicas=3))
    eventually(lambda: replicas(eager, "deployment/web", place) == 3)
    of_object = {
        "type": "Object",
        "object": {
            "metric": {"name": "hits"},
            "describedObject": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "target": {"type": "Value", "value": "10"},
        },
    }
    apply(here, hpa("web", target, of_object, maxReplicas=3))
    eventually(lambda: replicas(eager, "deployment/web", place) <= 2)
    found = lambda: eager.get("hpa", "web", "-n", place)["status"]["conditions"]  # noqa: E731
    eventually(lambda: "Deployment metric hits" in str(found()))


def test_a_policy_says_how_fast_and_a_window_how_soon(
    eager: Instance, place: str, adapter: Adapter
) -> None:
    here = eager_in(eager, place)
    web = deployment("web", "exec sleep 3600", replicas=1)
    web["spec"]["template"]["spec"]["nodeSelector"] = {"no": "where"}  # nobody needs to run
    apply(here, web)
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    adapter.external["load"] = ["90"]
    metric = external("load", {"type": "AverageValue", "averageValue": "10"})

    def behave(window: int) -> None:
        two = {"type": "Pods", "value": 2, "periodSeconds": 1800}
        one = {"type": "Pods", "value": 1, "periodSeconds": 3}
        down = {"policies": [one], "stabilizationWindowSeconds": window}
        behavior = {"scaleUp": {"policies": [two]}, "scaleDown": down}
        apply(here, hpa("web", target, metric, maxReplicas=10, behavior=behavior))

    behave(3600)
    eventually(lambda: replicas(eager, "deployment/web", place) == 3)
    limited = lambda: condition(eager, place, "web", "ScalingLimited")  # noqa: E731
    eventually(lambda: limited() == ("True", "ScaleUpLimit"))
    adapter.external["load"] = ["10"]
    able = lambda: condition(eager, place, "web", "AbleToScale")  # noqa: E731
    eventually(lambda: able() == ("True", "ScaleDownStabilized"))
    assert replicas(eager, "deployment/web", place) == 3
    here.kubectl("delete", "hpa", "web")  # it forgets what it added, which may go at once
    behave(0)
    eventually(lambda: replicas(eager, "deployment/web", place) == 1)
    events = lambda: eager.kubectl("get", "events", "-n", place).out  # noqa: E731
    eventually(lambda: "New size: 1; reason: All metrics below target" in events())
    assert "New size: 2; reason: All metrics below target" in events(), "one after the other"


def test_one_container_of_a_pod_is_followed(eager: Instance, place: str) -> None:
    here = eager_in(eager, place)
    web = deployment("web", "exec sleep 3600", replicas=1)
    (container,) = web["spec"]["template"]["spec"]["containers"]
    apply(here, web)
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    source = {
        "name": "memory",
        "container": container["name"],
        "target": {"type": "AverageValue", "averageValue": "1Ki"},
    }
    metric = {"type": "ContainerResource", "containerResource": source}
    apply(here, hpa("web", target, metric, maxReplicas=2))
    eventually(lambda: replicas(eager, "deployment/web", place) == 2)
    told = lambda: eager.kubectl("describe", "hpa", "web", "-n", place).out  # noqa: E731
    eventually(lambda: "New size: 2; reason: memory resource above target" in told())


def test_what_cannot_be_measured_is_told_by_describe(eager: Instance, place: str) -> None:
    here = eager_in(eager, place)
    apply(here, deployment("still", "exec sleep 3600"))
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "still"}
    metric = external("nowhere", {"type": "Value", "value": "1"})
    apply(here, hpa("still", target, metric))
    eventually(
        lambda: (
            condition(eager, place, "still", "ScalingActive")
            == ("False", "FailedGetExternalMetric")
        )
    )
    told = eager.kubectl("describe", "hpa", "still", "-n", place).out
    assert "unable to fetch metrics from external metrics API" in told


def test_top_and_clients_read_what_is_used(cluster: Instance, namespace: str) -> None:
    pod = deployment("x", "exec sleep 3600")["spec"]["template"]["spec"]
    two = {**pod, "containers": [pod["containers"][0], {**pod["containers"][0], "name": "other"}]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "two"}, "spec": two}
    body["metadata"]["labels"] = {"app": "two"}
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(body))
    wait_available(cluster, "v1beta1.metrics.k8s.io")

    def top(*arguments: str) -> str:
        return cluster.kubectl("top", "pod", "-n", namespace, *arguments, ok=False).out

    eventually(lambda: "two" in top(), seconds=110)  # two looks at it, fifteen seconds apart
    lines = top("--containers", "--no-headers").splitlines()
    assert sorted(line.split()[1] for line in lines) == ["other", "work"]
    assert "________" in top("--sum", "-l", "app=two")
    assert top("-l", "app=none") == ""
    everything = cluster.kubectl("top", "pod", "-A", "--sort-by=memory").out
    assert namespace in everything
    node = cluster.kubectl("top", "node", "--sort-by=cpu").out.splitlines()
    assert node[0].split() == ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"]
    assert node[1].split()[4].endswith("%")
    table = cluster.kubectl("get", "pods.metrics.k8s.io", "-n", namespace).out.splitlines()
    assert table[0].split() == ["NAME", "CPU", "MEMORY", "WINDOW"]
    python_config.load_kube_config(str(cluster.data_dir / "admin.conf"))
    api = python_client.CustomObjectsApi()
    found = api.list_namespaced_custom_object("metrics.k8s.io", "v1beta1", namespace, "pods")
    assert [item["metadata"]["name"] for item in found["items"]] == ["two"]
    nodes = api.list_cluster_custom_object("metrics.k8s.io", "v1beta1", "nodes")
    assert nodes["items"][0]["usage"]["memory"]


def test_who_may_view_a_namespace_may_see_what_its_pods_use(
    cluster: Instance, namespace: str
) -> None:
    cluster.kubectl("create", "serviceaccount", "bob", "-n", namespace)
    user = f"--as=system:serviceaccount:{namespace}:bob"
    wait_available(cluster, "v1beta1.metrics.k8s.io")
    refused = cluster.kubectl("top", "pod", "-n", namespace, user, ok=False)
    assert 'cannot list resource "pods" in API group "metrics.k8s.io"' in refused.err
    cluster.kubectl(
        *("create", "rolebinding", "bob", "-n", namespace, "--clusterrole=view"),
        f"--serviceaccount={namespace}:bob",
    )
    eventually(
        lambda: (
            cluster.kubectl("get", "pods.metrics.k8s.io", "-n", namespace, user, ok=False).code == 0
        )
    )
    roles = cluster.kubectl("get", "clusterrole", "system:aggregated-metrics-reader").out
    assert "system:aggregated-metrics-reader" in roles


def test_the_metrics_server_is_in_discovery_and_openapi(cluster: Instance) -> None:
    wait_available(cluster, "v1beta1.metrics.k8s.io")
    eventually(lambda: "PodMetrics" in cluster.kubectl("api-resources").out)
    told = cluster.kubectl("explain", "pods", "--api-version=metrics.k8s.io/v1beta1").out
    assert "PodMetrics" in told
    service = cluster.get("apiservice", "v1beta1.metrics.k8s.io")["spec"]["service"]
    assert (service["namespace"], service["name"]) == ("kube-system", "metrics-server")
