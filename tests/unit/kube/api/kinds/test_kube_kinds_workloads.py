"""Deployments, ReplicaSets, ReplicationControllers."""

from __future__ import annotations

from typing import Any

import pytest

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: hello:1}
"""
RC = """
apiVersion: v1
kind: ReplicationController
metadata: {name: web}
spec:
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: hello:1}
"""


def replica_set() -> str:
    return DEPLOYMENT.replace("Deployment", "ReplicaSet")


def test_a_bare_deployment_is_filled_in(api: Any) -> None:
    o = api.create(DEPLOYMENT)
    assert {k: v for k, v in o["spec"].items() if k not in ("selector", "template")} == {
        "replicas": 1,
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
        },
    }
    assert o["status"] == {}
    assert api.faults(DEPLOYMENT) == []


def test_a_replication_controller_takes_selector_and_labels_from_its_template(api: Any) -> None:
    o = api.create(RC)
    assert o["spec"]["selector"] == o["metadata"]["labels"] == {"app": "web"}
    assert o["status"] == {"replicas": 0}
    assert api.faults(RC) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"spec.selector": {"matchLabels": {"app": "x"}}},
            [
                'spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not '
                "match template `labels`"
            ],
        ),
        (
            {"spec.selector": None},
            [
                "spec.selector: Required value",
                'spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not '
                "match template `labels`",
            ],
        ),
        (
            {"spec.selector": {}},
            ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
        ),
        (
            {"spec.selector": {"matchExpressions": [{"key": "app", "operator": "Is"}]}},
            [
                'spec.selector.matchExpressions[0].operator: Invalid value: "Is": not a valid '
                "selector operator",
                'spec.selector: Invalid value: {"matchExpressions":[{"key":"app","operator":"Is"}]}'
                ": invalid label selector",
            ],
        ),
        (
            {"spec.replicas": -1},
            ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
        ),
        (
            {"spec.template.spec.restartPolicy": "Never"},
            [
                'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: '
                '"Always"'
            ],
        ),
        (
            {"spec.template.spec.containers": []},
            ["spec.template.spec.containers: Required value"],
        ),
        (
            {"spec.template.metadata.labels": {"app": "web", "b": "c/d"}},
            [
                'spec.template.labels: Invalid value: "c/d": a valid label must be an empty '
                "string or consist of alphanumeric characters, '-', '_' or '.', and must start "
                "and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or "
                "'12345', regex used for validation is "
                "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            ],
        ),
        (
            {"spec.strategy": {"type": "Recreate", "rollingUpdate": {}}},
            [
                "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy "
                "`type` is 'Recreate'"
            ],
        ),
        (
            {"spec.strategy": {"type": "Swap"}},
            [
                'spec.strategy: Unsupported value: {"Type":"Swap","RollingUpdate":null}: '
                'supported values: "Recreate", "RollingUpdate"'
            ],
        ),
        (
            {"spec.strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}},
            [
                'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 '
                "when `maxSurge` is 0"
            ],
        ),
        (
            {"spec.strategy": {"rollingUpdate": {"maxSurge": "ten", "maxUnavailable": "101%"}}},
            [
                'spec.strategy.rollingUpdate.maxSurge: Invalid value: "ten": a valid percent '
                "string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', "
                "regex used for validation is '[0-9]+%')",
                'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be '
                "greater than 100%",
            ],
        ),
        (
            {"spec.minReadySeconds": 600},
            [
                "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than "
                "minReadySeconds"
            ],
        ),
    ],
)
def test_a_deployment_with_a_fault_is_refused_with_its_path(
    api: Any, with_: Any, changes: dict[str, Any], expected: list[str]
) -> None:
    assert api.faults(with_(DEPLOYMENT, **changes)) == expected


@pytest.mark.parametrize("manifest", [DEPLOYMENT, replica_set()])
def test_the_selector_is_immutable(api: Any, manifest: str) -> None:
    def change(o: Any) -> None:
        o["spec"]["selector"] = {"matchLabels": {"app": "y"}}
        o["spec"]["template"]["metadata"]["labels"] = {"app": "y"}

    _, faults = api.update(api.create(manifest), change)
    assert faults == [
        'spec.selector: Invalid value: {"matchLabels":{"app":"y"}}: field is immutable'
    ]


def test_a_replication_controllers_selector_is_not(api: Any) -> None:
    def change(o: Any) -> None:
        o["spec"]["selector"] = {"app": "y"}
        o["spec"]["template"]["metadata"]["labels"] = {"app": "y"}

    assert api.update(api.create(RC), change)[1] == []


@pytest.mark.parametrize(("manifest", "generation"), [(DEPLOYMENT, 2), (replica_set(), 1)])
def test_a_deployments_generation_counts_annotations_too(
    api: Any, manifest: str, generation: int
) -> None:
    new, _ = api.update(
        api.create(manifest), lambda o: o["metadata"].update(annotations={"a": "b"})
    )
    assert new["metadata"]["generation"] == generation


def test_a_status_update_of_a_deployment_keeps_its_labels(api: Any) -> None:
    old = api.create(DEPLOYMENT)

    def change(o: Any) -> None:
        o["metadata"]["labels"] = {"a": "b"}
        o["spec"]["replicas"] = 9
        o["status"] = {"replicas": 1, "observedGeneration": 1}

    new, faults = api.update_status(old, change)
    assert faults == []
    assert new == {**old, "status": {"replicas": 1, "observedGeneration": 1}}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"replicas": 1, "readyReplicas": 1, "availableReplicas": 1}, []),
        (
            {"replicas": 1, "readyReplicas": 2},
            ["status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"],
        ),
        (
            {"replicas": 2, "availableReplicas": 1},
            ["status.availableReplicas: Invalid value: 1: cannot be greater than readyReplicas"],
        ),
        (
            {"observedGeneration": -1},
            ["status.observedGeneration: Invalid value: -1: must be greater than or equal to 0"],
        ),
    ],
)
def test_a_status_must_add_up(api: Any, status: Any, expected: list[str]) -> None:
    for manifest in (DEPLOYMENT, replica_set(), RC):
        _, faults = api.update_status(api.create(manifest), lambda o: o.update(status=status))
        assert faults == expected


def test_scale_is_a_view_of_replicas_and_selector(api: Any, with_: Any) -> None:
    expressions = [{"key": "tier", "operator": "In", "values": ["b", "a"]}]
    o = api.create(
        with_(
            DEPLOYMENT,
            **{
                "spec.replicas": 3,
                "spec.selector.matchExpressions": expressions,
                "metadata.labels": {"x": "y"},
            },
        )
    )
    o["metadata"] |= {"uid": "u", "resourceVersion": "7"}
    o["status"]["replicas"] = 2
    kind = api.kind_of(o)
    scale = kind.scale(o)
    assert scale == {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {"name": "web", "namespace": "default", "uid": "u", "resourceVersion": "7"},
        "spec": {"replicas": 3},
        "status": {"replicas": 2, "selector": "app=web,tier in (a,b)"},
    }
    spec = o["spec"]
    kind.apply_scale(o, {"spec": {"replicas": 5}})
    assert (o["spec"]["replicas"], spec["replicas"]) == (5, 3)  # the shared part is not touched
    assert [str(f) for f in kind.validate_scale({"spec": {"replicas": -1}})] == [
        "spec.replicas: Invalid value: -1: must be greater than or equal to 0"
    ]
    rc = api.create(RC)
    assert api.kind_of(rc).scale(rc)["status"]["selector"] == "app=web"


def test_what_says_nothing_new_is_no_new_generation(api: Any) -> None:
    def change(o: Any) -> None:
        o["spec"]["paused"] = False
        o["spec"]["template"]["spec"]["hostNetwork"] = False

    new, faults = api.update(api.create(DEPLOYMENT), change)
    assert faults == []
    assert new["metadata"]["generation"] == 1
