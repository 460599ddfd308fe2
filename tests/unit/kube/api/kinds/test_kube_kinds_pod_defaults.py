"""What a pod says that its author did not: pkg/apis/core/v1/defaults.go."""

from __future__ import annotations

from typing import Any

import pytest

POD = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - name: web
    image: hello:1
"""


def test_a_bare_pod_is_filled_in(api: Any) -> None:
    o = api.create(POD)
    assert o["spec"] == {
        "containers": [
            {
                "name": "web",
                "image": "hello:1",
                "imagePullPolicy": "IfNotPresent",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
    }
    assert o["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    assert o["metadata"]["generation"] == 1
    assert api.faults(POD) == []


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("hello", "Always"),
        ("hello:latest", "Always"),
        ("hello:1", "IfNotPresent"),
        ("localhost:5000/hello", "Always"),
        ("localhost:5000/a/hello:2", "IfNotPresent"),
        ("hello@sha256:" + "0" * 64, "IfNotPresent"),
        ("hello:latest@sha256:" + "0" * 64, "Always"),
    ],
)
def test_only_the_latest_image_is_always_pulled(
    api: Any, with_: Any, image: str, policy: str
) -> None:
    o = api.create(with_(POD, **{"spec.containers.0.image": image}))
    assert o["spec"]["containers"][0]["imagePullPolicy"] == policy


def test_limits_stand_in_for_requests_and_quantities_are_canonical(api: Any, with_: Any) -> None:
    resources = {"limits": {"cpu": 0.5, "memory": "1024Mi"}, "requests": {"cpu": "0.1"}}
    o = api.create(with_(POD, **{"spec.containers.0.resources": resources}))
    assert o["spec"]["containers"][0]["resources"] == {
        "limits": {"cpu": "500m", "memory": "1Gi"},
        "requests": {"cpu": "100m", "memory": "1Gi"},
    }


def test_cpu_is_counted_in_whole_thousandths(api: Any, with_: Any) -> None:
    o = api.create(with_(POD, **{"spec.containers.0.resources": {"limits": {"cpu": "100u"}}}))
    assert o["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "1m"}


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "0"}}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        (
            {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"memory": "1024Mi"}},
            "Guaranteed",
        ),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1m"}}, "Burstable"),
    ],
)
def test_the_class_of_service_follows_from_requests_and_limits(
    api: Any, with_: Any, resources: Any, expected: str
) -> None:
    o = api.create(with_(POD, **{"spec.containers.0.resources": resources}))
    assert o["status"]["qosClass"] == expected


def test_one_container_without_limits_makes_the_pod_burstable(api: Any, with_: Any) -> None:
    limits = {"limits": {"cpu": "1", "memory": "1Gi"}}
    o = with_(POD, **{"spec.containers.0.resources": limits})
    o["spec"]["containers"].append({"name": "b", "image": "b"})
    assert api.create(o)["status"]["qosClass"] == "Burstable"


def test_probes_ports_and_hooks_are_filled_in(api: Any, with_: Any) -> None:
    o = api.create(
        with_(
            POD,
            **{
                "spec.containers.0.ports": [{"containerPort": 80}],
                "spec.containers.0.livenessProbe": {"httpGet": {"port": 80}},
                "spec.containers.0.lifecycle": {"preStop": {"httpGet": {"port": "http"}}},
                "spec.containers.0.env": [
                    {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                ],
            },
        )
    )
    container = o["spec"]["containers"][0]
    assert container["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert container["livenessProbe"] == {
        "httpGet": {"path": "/", "port": 80, "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    assert container["lifecycle"]["preStop"]["httpGet"]["path"] == "/"
    assert container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
    assert container["env"][1]["valueFrom"]["resourceFieldRef"]["divisor"] == "0"


def test_volumes_are_filled_in(api: Any, with_: Any) -> None:
    volumes = [
        {"name": "a"},
        {"name": "b", "configMap": {"name": "c"}},
        {"name": "c", "secret": {"secretName": "c", "defaultMode": 256}},
        {"name": "d", "hostPath": {"path": "/x"}},
        {"name": "e", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
    ]
    o = api.create(with_(POD, **{"spec.volumes": volumes}))
    assert o["spec"]["volumes"] == [
        {"name": "a", "emptyDir": {}},
        {"name": "b", "configMap": {"name": "c", "defaultMode": 420}},
        {"name": "c", "secret": {"secretName": "c", "defaultMode": 256}},
        {"name": "d", "hostPath": {"path": "/x", "type": ""}},
        {
            "name": "e",
            "projected": {
                "defaultMode": 420,
                "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}],
            },
        },
    ]


def test_a_pod_on_the_host_network_takes_the_hosts_ports(api: Any, with_: Any) -> None:
    o = with_(POD, **{"spec.hostNetwork": True, "spec.containers.0.ports": [{"containerPort": 80}]})
    assert api.create(o)["spec"]["containers"][0]["ports"][0]["hostPort"] == 80


def test_the_old_name_of_the_service_account_is_understood(api: Any, with_: Any) -> None:
    spec = api.create(with_(POD, **{"spec.serviceAccount": "robot"}))["spec"]
    assert spec["serviceAccountName"] == spec["serviceAccount"] == "robot"


def test_a_gated_pod_says_so_in_its_status(api: Any, with_: Any) -> None:
    o = api.create(with_(POD, **{"spec.schedulingGates": [{"name": "x.io/wait"}]}))
    (condition,) = o["status"]["conditions"]
    assert (condition["type"], condition["reason"]) == ("PodScheduled", "SchedulingGated")


def test_a_template_keeps_what_its_author_wrote(api: Any) -> None:
    o = api.create(
        """
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: web}
        spec:
          selector: {matchLabels: {app: web}}
          template:
            metadata: {labels: {app: web}}
            spec:
              hostNetwork: true
              containers:
              - {name: a, image: a, ports: [{containerPort: 80}], resources: {limits: {cpu: 1}}}
        """
    )
    spec = o["spec"]["template"]["spec"]
    assert "enableServiceLinks" not in spec
    assert spec["containers"][0]["resources"] == {"limits": {"cpu": "1"}}
    assert spec["containers"][0]["ports"] == [{"containerPort": 80, "protocol": "TCP"}]


def test_label_keys_are_merged_into_selectors_when_the_pod_is_created(api: Any, with_: Any) -> None:
    constraint = {
        "maxSkew": 1,
        "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"x": "y"}},
        "matchLabelKeys": ["app"],
    }
    o = with_(POD, **{"spec.topologySpreadConstraints": [constraint]})
    (created,) = api.create(o)["spec"]["topologySpreadConstraints"]
    assert created["labelSelector"]["matchExpressions"] == [
        {"key": "app", "operator": "In", "values": ["web"]}
    ]
    assert api.faults(o) == []
