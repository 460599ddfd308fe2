from __future__ import annotations

from typing import Any

import pytest

from wherry.kube.api import amounts
from wherry.kube.api.quota import reservations, scopes, usage
from wherry.kube.api.quota.reservations import Reservation
from wherry.kube.api.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    RESOURCE_CLAIMS,
    SERVICES,
)

NOW = 1_800_000_000.0


def pod(**spec: Any) -> dict[str, Any]:
    resources = {"requests": {"cpu": "100m", "x.io/gpu": "1"}, "limits": {"memory": "1Gi"}}
    container = {"name": "c", "resources": resources}
    return {"metadata": {"name": "p"}, "spec": {"containers": [container], **spec}}


def written(resource: Any, o: dict[str, Any]) -> dict[str, str]:
    return amounts.write(usage.of(resource, o, NOW))


def test_a_pod_uses_what_it_requests_and_its_limits() -> None:
    assert written(PODS, pod(overhead={"cpu": "50m"})) == {
        "count/pods": "1",
        "cpu": "150m",
        "limits.memory": "1Gi",
        "pods": "1",
        "requests.cpu": "150m",
        "requests.x.io/gpu": "1",
    }


def test_a_pod_that_has_finished_uses_only_its_place() -> None:
    done = {**pod(), "status": {"phase": "Succeeded"}}
    assert written(PODS, done) == {"count/pods": "1"}
    late = pod()
    late["metadata"] |= {
        "deletionTimestamp": "2026-01-01T00:00:00Z",
        "deletionGracePeriodSeconds": 30,
    }
    assert written(PODS, late) == {"count/pods": "1"}


def test_an_init_container_counts_where_it_needs_more() -> None:
    init = {"name": "i", "resources": {"requests": {"cpu": "1", "memory": "1Mi"}}}
    used = written(PODS, pod(initContainers=[init]))
    assert (used["requests.cpu"], used["requests.memory"]) == ("1", "1Mi")
    sidecar = {**init, "restartPolicy": "Always"}
    assert written(PODS, pod(initContainers=[sidecar]))["requests.cpu"] == "1100m"


@pytest.mark.parametrize(
    ("spec", "node_ports", "balancers"),
    [
        ({"type": "ClusterIP", "ports": [{}, {}]}, "0", "0"),
        ({"type": "NodePort", "ports": [{}, {}]}, "2", "0"),
        ({"type": "LoadBalancer", "ports": [{}]}, "1", "1"),
        (
            {
                "type": "LoadBalancer",
                "allocateLoadBalancerNodePorts": False,
                "ports": [{}, {"nodePort": 30000}],
            },
            "1",
            "1",
        ),
    ],
)
def test_a_service_uses_the_ports_it_is_meant_to_have(
    spec: dict[str, Any], node_ports: str, balancers: str
) -> None:
    used = written(SERVICES, {"metadata": {"name": "s"}, "spec": spec})
    assert used == {
        "count/services": "1",
        "services": "1",
        "services.loadbalancers": balancers,
        "services.nodeports": node_ports,
    }


def test_a_claim_uses_storage_also_of_its_class() -> None:
    spec = {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}}
    claim = {"metadata": {"name": "c"}, "spec": spec}
    suffix = "gold.storageclass.storage.k8s.io/"
    assert written(PERSISTENT_VOLUME_CLAIMS, claim) == {
        "count/persistentvolumeclaims": "1",
        f"{suffix}persistentvolumeclaims": "1",
        f"{suffix}requests.storage": "1Gi",
        "persistentvolumeclaims": "1",
        "requests.storage": "1Gi",
    }


def test_everything_can_be_counted() -> None:
    o: dict[str, Any] = {"metadata": {"name": "x"}}
    assert written(DEPLOYMENTS, o) == {"count/deployments.apps": "1"}
    assert written(CONFIG_MAPS, o) == {"configmaps": "1", "count/configmaps": "1"}
    names = ["count/pods", "cpu", "requests.x.io/gpu", "x.io/gpu", "configmaps", "requests.storage"]
    assert usage.matching(PODS, names) == ["count/pods", "cpu", "requests.x.io/gpu"]
    assert usage.matching(CONFIG_MAPS, names) == ["configmaps"]
    assert usage.matching(DEPLOYMENTS, names) == []


def test_a_quota_of_cpu_wants_every_container_to_say() -> None:
    body = pod(initContainers=[{"name": "i"}])
    assert usage.missing(["limits.cpu", "requests.cpu", "pods"], body) == (
        "must specify limits.cpu for: c,i; requests.cpu for: i"
    )
    whole = {**body["spec"], "resources": {"requests": {"cpu": "1"}}}
    assert usage.missing(["limits.cpu"], {**body, "spec": whole}) == ""


def test_a_resource_claim_uses_the_devices_it_may_get() -> None:
    requests = [
        {"name": "a", "exactly": {"deviceClassName": "gpu", "count": 2}},
        {
            "name": "b",
            "firstAvailable": [
                {"deviceClassName": "gpu", "count": 3},
                {"deviceClassName": "gpu", "allocationMode": "All"},
                {"deviceClassName": "nic"},
            ],
        },
    ]
    claim = {"metadata": {}, "spec": {"devices": {"requests": requests}}}
    assert written(RESOURCE_CLAIMS, claim) == {
        "count/resourceclaims.resource.k8s.io": "1",
        "gpu.deviceclass.resource.k8s.io/devices": "34",
        "nic.deviceclass.resource.k8s.io/devices": "1",
    }


def needs(scope: str, operator: str = "Exists", *values: str) -> dict[str, Any]:
    return {"scopeName": scope, "operator": operator, "values": list(values)}


@pytest.mark.parametrize(
    ("spec", "requirement", "met"),
    [
        ({"activeDeadlineSeconds": 5}, needs("Terminating"), True),
        ({}, needs("Terminating"), False),
        ({}, needs("NotTerminating"), True),
        ({"containers": [{"name": "c"}]}, needs("BestEffort"), True),
        ({}, needs("NotBestEffort"), True),
        ({"priorityClassName": "high"}, needs("PriorityClass", "In", "high"), True),
        ({"priorityClassName": "low"}, needs("PriorityClass", "In", "high"), False),
        ({}, needs("PriorityClass", "NotIn", "high"), True),
        ({}, needs("PriorityClass"), False),
        ({}, needs("PriorityClass", "DoesNotExist"), True),
        ({}, needs("CrossNamespacePodAffinity"), False),
        (
            {
                "affinity": {
                    "podAntiAffinity": {
                        "preferredDuringSchedulingIgnoredDuringExecution": [
                            {"weight": 1, "podAffinityTerm": {"namespaces": ["x"]}}
                        ]
                    }
                }
            },
            needs("CrossNamespacePodAffinity"),
            True,
        ),
    ],
)
def test_pods_are_in_scopes(spec: dict[str, Any], requirement: Any, met: bool) -> None:
    assert scopes.meets(PODS, pod(**spec), requirement) is met


def test_claims_are_in_the_scope_of_their_attributes() -> None:
    claim = {"metadata": {}, "spec": {"volumeAttributesClassName": "fast"}}
    meets = needs("VolumeAttributesClass", "In", "fast")
    assert scopes.meets(PERSISTENT_VOLUME_CLAIMS, claim, meets)
    assert not scopes.meets(PERSISTENT_VOLUME_CLAIMS, {**claim, "spec": {}}, meets)
    assert not scopes.meets(PERSISTENT_VOLUME_CLAIMS, claim, needs("BestEffort"))


def test_reservations_count_until_their_object_is_seen_or_they_are_old() -> None:
    quota: dict[str, Any] = {"metadata": {"name": "q", "annotations": {"a": "b"}}}
    noted = {
        "new": Reservation({"pods": usage.ONE}, NOW + 60),
        "old": Reservation({"pods": usage.ONE}, NOW - 1),
        "seen": Reservation({"pods": usage.ONE}, NOW + 60),
        "grows": Reservation({"pods": usage.ONE}, NOW + 60, "7"),
        "grown": Reservation({"pods": usage.ONE}, NOW + 60, "7"),
    }
    kept = reservations.read(reservations.write(quota, noted))
    assert kept == noted
    revisions = {"seen": "5", "grows": "7", "grown": "8"}
    assert reservations.pending(kept, revisions.get, NOW).keys() == {"new", "grows"}
    assert reservations.write(reservations.write(quota, noted), {}) == quota
    broken = {"metadata": {"annotations": {reservations.ANNOTATION: "[1"}}}
    assert reservations.read(broken) == {}
