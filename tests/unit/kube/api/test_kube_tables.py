"""The tables kubectl prints: pkg/printers/internalversion/printers.go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from wherry.kube.api import resources
from wherry.kube.api.kinds import KINDS
from wherry.kube.api.kinds.durations import human
from wherry.kube.api.resources import Resource
from wherry.kube.api.tables import table

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


META = {"name": "web", "namespace": "default", "creationTimestamp": ago(90)}


def cells(resource: Resource, o: dict[str, Any]) -> list[Any]:
    kind = KINDS[resource.group, resource.version, resource.plural]
    o = {"metadata": META, **o}
    (row,) = table(kind, [o], now=NOW)["rows"]
    return list(row["cells"])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119.9, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (599, "9m59s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 61, "3h1m"),
        (8 * 3600 + 61, "8h"),
        (47 * 3600, "47h"),
        (48 * 3600, "2d"),
        (5 * 86400 + 12 * 3600, "5d12h"),
        (8 * 86400 + 3600, "8d"),
        (729 * 86400, "729d"),
        (730 * 86400, "2y"),
        (800 * 86400, "2y70d"),
        (8 * 365 * 86400 + 86400, "8y"),
    ],
)
def test_spans_are_told_in_at_most_two_units(seconds: float, text: str) -> None:
    assert human(seconds) == text


def test_a_table_describes_its_columns_and_holds_as_much_of_the_object_as_asked() -> None:
    kind = KINDS["", "v1", "namespaces"]
    o = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": META,
        "status": {"phase": "Active"},
    }
    shown = table(kind, [o], now=NOW)
    assert shown["kind"] == "Table"
    assert shown["apiVersion"] == "meta.k8s.io/v1"
    assert [(c["name"], c["format"]) for c in shown["columnDefinitions"]] == [
        ("Name", "name"),
        ("Status", ""),
        ("Age", ""),
    ]
    partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": META}
    assert shown["rows"] == [{"cells": ["web", "Active", "90s"], "object": partial}]
    whole = table(kind, [o], include_object="Object", now=NOW)["rows"]
    assert whole == [{"cells": ["web", "Active", "90s"], "object": o}]
    assert table(kind, [o], include_object="None", now=NOW)["rows"] == [
        {"cells": ["web", "Active", "90s"]}
    ]


def pod(status: dict[str, Any], spec: dict[str, Any] | None = None, **meta: Any) -> list[Any]:
    containers = [{"name": "a"}, {"name": "b"}]
    o = {
        "metadata": {**META, **meta},
        "spec": {"containers": containers, **(spec or {})},
        "status": status,
    }
    return cells(resources.PODS, o)


def container(ready: bool = False, restarts: int = 0, **state: Any) -> dict[str, Any]:
    return {"name": "a", "ready": ready, "restartCount": restarts, "state": state}


RUNNING = container(True, running={"startedAt": ago(60)})
READY = [{"type": "Ready", "status": "True"}]


@pytest.mark.parametrize(
    ("status", "spec", "expected"),
    [
        ({"phase": "Pending"}, {}, ["0/2", "Pending", "0"]),
        (
            {"phase": "Running", "containerStatuses": [RUNNING, RUNNING]},
            {},
            ["2/2", "Running", "0"],
        ),
        (
            {
                "phase": "Pending",
                "containerStatuses": [container(waiting={"reason": "ImagePullBackOff"}), RUNNING],
            },
            {},
            ["1/2", "ImagePullBackOff", "0"],
        ),
        (
            {
                "phase": "Running",
                "containerStatuses": [
                    {
                        **container(restarts=3, waiting={"reason": "CrashLoopBackOff"}),
                        "lastState": {"terminated": {"finishedAt": ago(5)}},
                    },
                    RUNNING,
                ],
            },
            {},
            ["1/2", "CrashLoopBackOff", "3 (5s ago)"],
        ),
        (
            {"phase": "Failed", "containerStatuses": [container(terminated={"exitCode": 3})]},
            {},
            ["0/2", "ExitCode:3", "0"],
        ),
        (
            {"phase": "Failed", "containerStatuses": [container(terminated={"signal": 9})]},
            {},
            ["0/2", "Signal:9", "0"],
        ),
        (
            {
                "phase": "Succeeded",
                "containerStatuses": [container(terminated={"reason": "Completed", "exitCode": 0})],
            },
            {},
            ["0/2", "Completed", "0"],
        ),
        (
            {
                "phase": "Running",
                "conditions": READY,
                "containerStatuses": [container(terminated={"reason": "Completed"}), RUNNING],
            },
            {},
            ["1/2", "Running", "0"],
        ),
        (
            {
                "phase": "Running",
                "containerStatuses": [container(terminated={"reason": "Completed"}), RUNNING],
            },
            {},
            ["1/2", "NotReady", "0"],
        ),
        (
            {
                "phase": "Pending",
                "initContainerStatuses": [
                    container(terminated={"exitCode": 0}),
                    container(restarts=2, running={}),
                ],
                "containerStatuses": [container(waiting={"reason": "PodInitializing"})] * 2,
            },
            {"initContainers": [{"name": "i"}, {"name": "j"}]},
            ["0/2", "Init:1/2", "2"],
        ),
        (
            {
                "phase": "Pending",
                "initContainerStatuses": [container(waiting={"reason": "CrashLoopBackOff"})],
            },
            {"initContainers": [{"name": "i"}]},
            ["0/2", "Init:CrashLoopBackOff", "0"],
        ),
        (
            {
                "phase": "Pending",
                "initContainerStatuses": [container(terminated={"exitCode": 1, "reason": "Error"})],
            },
            {"initContainers": [{"name": "i"}]},
            ["0/2", "Init:Error", "0"],
        ),
        (
            {
                "phase": "Running",
                "initContainerStatuses": [{**container(True, 1, running={}), "started": True}],
                "containerStatuses": [RUNNING, RUNNING],
            },
            {"initContainers": [{"name": "a", "restartPolicy": "Always"}]},
            ["3/3", "Running", "1"],
        ),
        (
            {
                "phase": "Pending",
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
                ],
            },
            {},
            ["0/2", "SchedulingGated", "0"],
        ),
        ({"phase": "Failed", "reason": "Evicted"}, {}, ["0/2", "Evicted", "0"]),
    ],
)
def test_a_pods_state_is_read_from_its_containers(
    status: dict[str, Any], spec: dict[str, Any], expected: list[str]
) -> None:
    assert pod(status, spec)[1:4] == expected


def test_a_pod_that_is_being_deleted_is_terminating_until_it_ended() -> None:
    running = {"phase": "Running", "containerStatuses": [RUNNING, RUNNING]}
    assert pod(running, deletionTimestamp=ago(1))[2] == "Terminating"
    assert pod({**running, "reason": "NodeLost"}, deletionTimestamp=ago(1))[2] == "Unknown"
    ended = [container(terminated={"reason": "Completed"})]
    succeeded = {"phase": "Succeeded", "containerStatuses": ended}
    assert pod(succeeded, deletionTimestamp=ago(1))[2] == "Completed"


def test_a_pods_wide_columns() -> None:
    status = {
        "phase": "Running",
        "podIPs": [{"ip": "10.0.0.1"}],
        "conditions": [{"type": "x.io/a", "status": "True"}],
    }
    spec = {
        "nodeName": "n",
        "readinessGates": [{"conditionType": "x.io/a"}, {"conditionType": "b"}],
    }
    assert pod(status, spec)[4:] == ["90s", "10.0.0.1", "n", "<none>", "1/2"]
    assert pod({})[4:] == ["90s", "<none>", "<none>", "<none>", "<none>"]


def test_a_pod_that_ended_is_marked_as_completed() -> None:
    kind = KINDS["", "v1", "pods"]
    (row,) = table(kind, [{"metadata": META, "status": {"phase": "Succeeded"}}], now=NOW)["rows"]
    assert row["conditions"] == [
        {
            "type": "Completed",
            "status": "True",
            "reason": "Succeeded",
            "message": "The pod has completed successfully.",
        }
    ]


TEMPLATE = {
    "spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:2"}]},
}


@pytest.mark.parametrize(
    ("resource", "o", "expected"),
    [
        (
            resources.DEPLOYMENTS,
            {
                "spec": {
                    "replicas": 3,
                    "template": TEMPLATE,
                    "selector": {
                        "matchLabels": {"app": "web"},
                        "matchExpressions": [{"key": "tier", "operator": "Exists"}],
                    },
                },
                "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1},
            },
            ["web", "2/3", 3, 1, "90s", "a,b", "x:1,y:2", "app=web,tier"],
        ),
        (
            resources.REPLICA_SETS,
            {
                "spec": {"replicas": 3, "template": TEMPLATE, "selector": {}},
                "status": {"replicas": 2, "readyReplicas": 1},
            },
            ["web", 3, 2, 1, "90s", "a,b", "x:1,y:2", "<none>"],
        ),
        (
            resources.REPLICATION_CONTROLLERS,
            {"spec": {"selector": {"b": "c", "a": "b"}}},
            ["web", 0, 0, 0, "90s", "", "", "a=b,b=c"],
        ),
        (
            resources.SERVICES,
            {
                "spec": {
                    "type": "NodePort",
                    "clusterIP": "10.96.0.1",
                    "clusterIPs": ["10.96.0.1"],
                    "ports": [
                        {"port": 80, "nodePort": 30080, "protocol": "TCP"},
                        {"port": 53, "protocol": "UDP"},
                    ],
                    "selector": {"app": "web"},
                }
            },
            ["web", "NodePort", "10.96.0.1", "<none>", "80:30080/TCP,53/UDP", "90s", "app=web"],
        ),
        (
            resources.SERVICES,
            {"spec": {"type": "LoadBalancer"}},
            ["web", "LoadBalancer", "<none>", "<pending>", "<none>", "90s", "<none>"],
        ),
        (
            resources.SERVICES,
            {
                "spec": {"type": "LoadBalancer", "externalIPs": ["192.0.2.9"]},
                "status": {"loadBalancer": {"ingress": [{"hostname": "h"}, {"ip": "192.0.2.1"}]}},
            },
            ["web", "LoadBalancer", "<none>", "192.0.2.1,h,192.0.2.9", "<none>", "90s", "<none>"],
        ),
        (
            resources.SERVICES,
            {"spec": {"type": "ExternalName", "externalName": "example.com"}},
            ["web", "ExternalName", "<none>", "example.com", "<none>", "90s", "<none>"],
        ),
        (
            resources.ENDPOINTS,
            {
                "subsets": [
                    {
                        "addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}],
                        "ports": [{"port": 80}, {"port": 81}],
                    }
                ]
            },
            ["web", "10.0.0.1:80,10.0.0.2:80,10.0.0.1:81 + 1 more...", "90s"],
        ),
        (resources.ENDPOINTS, {}, ["web", "<none>", "90s"]),
        (
            resources.ENDPOINT_SLICES,
            {
                "addressType": "IPv4",
                "ports": [{"port": 80}, {"name": "x"}],
                "endpoints": [{"addresses": [f"10.0.0.{i}"]} for i in range(5)],
            },
            ["web", "IPv4", "80,x", "10.0.0.0,10.0.0.1,10.0.0.2 + 2 more...", "90s"],
        ),
        (
            resources.ENDPOINT_SLICES,
            {"addressType": "IPv4"},
            ["web", "IPv4", "<unset>", "<unset>", "90s"],
        ),
        (
            resources.NODES,
            {
                "metadata": {
                    **META,
                    "labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "a"},
                },
                "spec": {"unschedulable": True},
                "status": {
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "nodeInfo": {"kubeletVersion": "v1", "osImage": "Debian"},
                    "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
                },
            },
            [
                *("web", "Ready,SchedulingDisabled", "a,worker", "90s", "v1"),
                *("192.0.2.1", "<none>", "Debian", "<unknown>", "<unknown>"),
            ],
        ),
        (resources.CONFIG_MAPS, {"data": {"a": "b"}, "binaryData": {"c": ""}}, ["web", 2, "90s"]),
        (resources.SECRETS, {"type": "Opaque", "data": {"a": ""}}, ["web", "Opaque", 1, "90s"]),
        (resources.SERVICE_ACCOUNTS, {}, ["web", 0, "90s"]),
        (resources.LEASES, {"spec": {"holderIdentity": "me"}}, ["web", "me", "90s"]),
        (
            resources.EVENTS,
            {
                "firstTimestamp": ago(300),
                "lastTimestamp": ago(10),
                "count": 4,
                "type": "Warning",
                "reason": "BackOff",
                "message": " it failed \n",
                "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.x"},
                "source": {"component": "kubelet", "host": "n"},
            },
            [
                *("10s", "Warning", "BackOff", "pod/p", "spec.x", "kubelet, n", "it failed"),
                *("5m", 4, "web"),
            ],
        ),
        (
            resources.EVENTS,
            {
                "eventTime": "2026-03-01T11:59:00.000000Z",
                "series": {"count": 7, "lastObservedTime": "2026-03-01T11:59:58.000000Z"},
                "reportingComponent": "scheduler",
                "involvedObject": {"kind": "Node"},
            },
            ["2s", "", "", "node", "", "scheduler", "", "60s", 7, "web"],
        ),
    ],
)
def test_cells(resource: Resource, o: dict[str, Any], expected: list[Any]) -> None:
    assert cells(resource, o) == expected
