"""What is kept in order when nobody looks: owners and owned, endpoints, budgets, volumes and the
pods of nodes that are no more. With kubectl, on an instance whose nodes are but objects, so that
each state stays as long as it is looked at."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import Instance, eventually
from kubectl_space import Space, command_change, new_space, template, workload

HOST, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
NODES = {"a": "west", "b": "west", "c": "east", "d": "east"}
STRAY = "stray"
NOBODY = "0b5c6f9e-0000-4000-8000-000000000000"
READY = {"type": "Ready", "status": "True"}


def object_of(kind: str, name: str, version: str = "v1", **body: Any) -> dict[str, Any]:
    metadata = {"name": name, **body.pop("metadata", {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **body}


def node(name: str, zone: str) -> dict[str, Any]:
    amounts = {"cpu": "4", "memory": "8Gi", "pods": "110"}
    status = {"allocatable": amounts, "capacity": amounts, "conditions": [READY]}
    return object_of("Node", name, metadata={"labels": {HOST: name, ZONE: zone}}, status=status)


@pytest.fixture(scope="module")
def still(new_instance: Callable[[], Instance]) -> Iterator[Instance]:
    """Four nodes that only exist as objects; the real one takes no pods."""
    instance = new_instance()
    options = ("node-monitor-grace-period=1h", "terminated-pod-gc-threshold=2")
    instance.wherry("up", *(word for o in options for word in ("--controller-arg", o)))
    real = instance.get("nodes")["items"][0]["metadata"]["name"]
    instance.kubectl("cordon", real)
    instance.kubectl("label", "node", real, "node-role.kubernetes.io/control-plane=")
    listed = object_of("List", "all", items=[node(*each) for each in NODES.items()])
    instance.kubectl("create", "-f", "-", stdin=json.dumps(listed))
    eventually(lambda: "not-ready" not in instance.kubectl("get", "nodes", "-o", "json").out)
    eventually(lambda: instance.kubectl("get", "sa", "default", ok=False).code == 0)
    # It is looked for when it has had its time, which takes longer than the other tests.
    pod = {"nodeName": "absent", "containers": [{"name": "c", "image": "x"}]}
    instance.kubectl("create", "-f", "-", stdin=json.dumps(object_of("Pod", STRAY, spec=pod)))
    yield instance
    instance.wherry("down", "--purge", ok=False)


@pytest.fixture
def kubectl(still: Instance) -> Iterator[Space]:
    with new_space(still) as space:
        eventually(lambda: space("get", "serviceaccount", "default", ok=False).code == 0)
        yield space
        space("delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false", ok=False)


def there(kubectl: Space, what: str) -> bool:
    return kubectl("get", what, ok=False).code == 0


def uid(kubectl: Space, what: str) -> str:
    return str(kubectl.get(what)["metadata"]["uid"])


def owned(name: str, *owners: tuple[str, str], **metadata: Any) -> dict[str, Any]:
    """A ConfigMap with these ConfigMaps, by name and uid, as its owners."""
    references = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": uid}
        for owner, uid in owners
    ]
    return object_of("ConfigMap", name, metadata={"ownerReferences": references, **metadata})


@contextmanager
def draining(kubectl: Space, *how: str) -> Iterator[Iterator[str]]:
    """``kubectl drain`` of node d, which never ends here: what it says, line by line."""
    process = kubectl.cluster.start("kubectl", "drain", "d", "--force", "--timeout=110s", *how)
    try:
        assert process.stdout is not None
        yield process.stdout
    finally:
        process.terminate()
        process.wait(60)


def settle_pods(kubectl: Space, app: str, count: int) -> list[str]:
    """Have that many pods placed, and say for their kubelets that they are ready; their names."""
    listed = lambda: kubectl.pods(f"app={app}")  # noqa: E731
    placed = lambda: [p for p in listed() if p["spec"].get("nodeName")]  # noqa: E731
    eventually(lambda: len(placed()) == count)
    names = []
    for number, pod in enumerate(placed()):
        address = f"198.51.100.{number + 10}"
        status = {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [READY],
        }
        names.append(pod["metadata"]["name"])
        kubectl.patch(f"pod/{names[-1]}", {"status": status}, "--subresource=status")
    return names


# --- owners ------------------------------------------------------------------------------------


def test_in_the_background_the_owner_goes_first(kubectl: Space) -> None:
    kubectl("create", "configmap", "owner")
    owner = ("owner", uid(kubectl, "configmap/owner"))
    kubectl.apply(owned("held", owner, finalizers=["example.com/held"]), owned("free", owner))
    kubectl.apply(owned("grandchild", ("free", uid(kubectl, "configmap/free"))))
    kubectl("delete", "configmap", "owner", "--cascade=background")
    assert not there(kubectl, "configmap/owner"), "it does not wait for what it owns"
    kubectl("wait", "--for=delete", "configmap/free", "configmap/grandchild", "--timeout=110s")
    eventually(lambda: "deletionTimestamp" in kubectl.get("configmap/held")["metadata"])
    kubectl.patch("configmap/held", {"metadata": {"finalizers": None}})
    kubectl("wait", "--for=delete", "configmap/held", "--timeout=110s")


def test_in_the_foreground_the_owner_goes_last_and_an_orphan_stays(kubectl: Space) -> None:
    kubectl("create", "configmap", "owner")
    owner = ("owner", uid(kubectl, "configmap/owner"))
    held = owned("held", owner, finalizers=["example.com/held"])
    held["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] = True
    kubectl.apply(held)
    kubectl("delete", "configmap", "owner", "--cascade=foreground", "--wait=false")
    eventually(lambda: "deletionTimestamp" in kubectl.get("configmap/held")["metadata"])
    assert kubectl.get("configmap/owner")["metadata"]["finalizers"] == ["foregroundDeletion"]
    kubectl.patch("configmap/held", {"metadata": {"finalizers": None}})
    kubectl("wait", "--for=delete", "configmap/owner", "--timeout=110s")
    kubectl("create", "configmap", "owner")
    kubectl.apply(owned("orphan", ("owner", uid(kubectl, "configmap/owner"))))
    kubectl("delete", "configmap", "owner", "--cascade=orphan")
    assert "ownerReferences" not in kubectl.get("configmap/orphan")["metadata"]


def test_an_owner_in_another_namespace_is_none_and_it_is_said(
    still: Instance, kubectl: Space
) -> None:
    with new_space(still) as other:
        other("create", "configmap", "far")
        far = ("far", uid(other, "configmap/far"))
        kubectl.apply(owned("lost", far))
        kubectl("wait", "--for=delete", "configmap/lost", "--timeout=110s")
        eventually(lambda: "OwnerRefInvalidNamespace" in kubectl.reasons("lost"))
        text = f'uid: {far[1]}] does not exist in namespace "{kubectl.namespace}"'
        assert any(text in message for _, message in kubectl.told("lost"))
        assert there(other, "configmap/far")


def test_who_has_another_owner_stays_and_loses_the_one_that_is_not(kubectl: Space) -> None:
    kubectl("create", "configmap", "owner")
    owner = ("owner", uid(kubectl, "configmap/owner"))
    kubectl.apply(owned("kept", owner, ("nobody", NOBODY)), owned("gone", ("nobody", NOBODY)))
    kubectl("wait", "--for=delete", "configmap/gone", "--timeout=110s")
    references = lambda: kubectl.get("configmap/kept")["metadata"]["ownerReferences"]  # noqa: E731
    eventually(lambda: [r["name"] for r in references()] == ["owner"])


def test_those_who_own_each_other_go_together(kubectl: Space) -> None:
    kubectl("create", "configmap", "one")
    kubectl.apply(owned("two", ("one", uid(kubectl, "configmap/one"))))
    kubectl.apply(owned("one", ("two", uid(kubectl, "configmap/two"))))
    kubectl("delete", "configmap", "one", "--cascade=foreground")
    kubectl("wait", "--for=delete", "configmap/two", "--timeout=110s")


# --- pods and their services -------------------------------------------------------------------


def test_a_replication_controller_adopts_and_lets_go(kubectl: Space) -> None:
    pod = object_of("Pod", "found", metadata={"labels": {"app": "rc"}})
    kubectl.apply({**pod, "spec": template("rc")["spec"]})
    spec = {"replicas": 2, "selector": {"app": "rc"}, "template": template("rc")}
    kubectl.apply(object_of("ReplicationController", "rc", spec=spec))
    eventually(lambda: len(kubectl.pods("app=rc")) == 2)
    owners = lambda: kubectl.get("pod/found")["metadata"].get("ownerReferences")  # noqa: E731
    assert eventually(owners)[0]["kind"] == "ReplicationController"
    kubectl("label", "pod", "found", "app=other", "--overwrite")
    eventually(lambda: not owners())
    eventually(lambda: len(kubectl.pods("app=rc")) == 2)
    kubectl("delete", "rc", "rc")


def test_endpoints_have_hints_for_their_zones(kubectl: Space) -> None:
    pods = template("web")
    spread = {
        "maxSkew": 1,
        "topologyKey": HOST,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }
    pods["spec"]["topologySpreadConstraints"] = [spread]
    service = {"selector": {"app": "web"}, "ports": [{"port": 80}]}
    auto = {"annotations": {"service.kubernetes.io/topology-mode": "Auto"}}
    kubectl.apply(
        workload("Deployment", "web", replicas=4, template=pods),
        object_of("Service", "auto", metadata=auto, spec=service),
        object_of("Service", "plain", spec=service),
        object_of("Service", "near", spec={**service, "trafficDistribution": "PreferSameZone"}),
    )
    settle_pods(kubectl, "web", 4)

    def hints(name: str) -> list[tuple[str, str]]:
        """The zone of each endpoint that is ready, and for which it is meant."""
        found = kubectl.get("endpointslices", "-l", f"kubernetes.io/service-name={name}")["items"]
        return sorted(
            (NODES[e["nodeName"]], ((e.get("hints") or {}).get("forZones") or [{}])[0].get("name"))
            for each in found
            for e in each.get("endpoints") or ()
            if e["conditions"]["ready"]
        )

    own = [("east", "east"), ("east", "east"), ("west", "west"), ("west", "west")]
    eventually(lambda: hints("auto") == own)
    eventually(lambda: "TopologyAwareHintsEnabled" in kubectl.describe("service/auto"))
    eventually(lambda: hints("near") == own)
    eventually(lambda: hints("plain") == [(zone, None) for zone, _ in own])


def test_an_endpoint_that_ends_still_serves(kubectl: Space) -> None:
    service = {"selector": {"app": "web"}, "ports": [{"port": 80}]}
    kubectl.apply(
        workload("Deployment", "web", replicas=1), object_of("Service", "web", spec=service)
    )
    (name,) = settle_pods(kubectl, "web", 1)

    def states() -> dict[str, Any]:
        found = kubectl.get("endpointslices", "-l", "kubernetes.io/service-name=web")["items"]
        endpoints = [e for each in found for e in each.get("endpoints") or ()]
        return {e["targetRef"]["name"]: e["conditions"] for e in endpoints}

    eventually(lambda: states().get(name) == {"ready": True, "serving": True, "terminating": False})
    kubectl("delete", "pod", name, "--grace-period=600", "--wait=false")
    eventually(lambda: states().get(name) == {"ready": False, "serving": True, "terminating": True})
    addresses = lambda: kubectl.get("endpoints/web").get("subsets") or [{}]  # noqa: E731
    eventually(lambda: not addresses()[0].get("addresses"))
    kubectl("delete", "deployment", "web")


def test_a_budget_holds_up_a_drain(kubectl: Space) -> None:
    pods = template("web")
    pods["spec"]["nodeSelector"] = {HOST: "d"}
    kubectl.apply(workload("Deployment", "web", replicas=2, template=pods))
    kubectl("create", "pdb", "web", "--selector=app=web", "--max-unavailable=50%")
    settle_pods(kubectl, "web", 2)
    eventually(lambda: kubectl.get("pdb/web")["status"].get("disruptionsAllowed") == 1)
    with draining(kubectl) as said:
        told = "Cannot evict pod as it would violate the pod's disruption budget."
        assert any(told in line for line in said)
    # One was let go, and another comes for it.
    eventually(lambda: len(kubectl.pods("app=web")) == 2)
    allowed = lambda: kubectl.condition("pdb/web", "DisruptionAllowed")  # noqa: E731
    eventually(lambda: allowed()["reason"] == "InsufficientPods")
    eventually(lambda: "Allowed disruptions:  0" in kubectl.describe("pdb/web"))
    with draining(kubectl, "--disable-eviction"):
        eventually(lambda: all(not p["spec"].get("nodeName") for p in kubectl.pods("app=web")))
    kubectl("uncordon", "d")
    kubectl("delete", "deployment", "web")


# --- how many at once -----------------------------------------------------------------------------


def job(name: str, **spec: Any) -> dict[str, Any]:
    pods = template(name, "true")
    pods["spec"]["restartPolicy"] = "Never"
    pods["spec"]["terminationGracePeriodSeconds"] = 600
    return object_of("Job", name, "batch/v1", spec={"template": pods, **spec})


def test_a_pod_that_ends_is_replaced_at_once_or_when_it_has_failed(kubectl: Space) -> None:
    policies = {"eager": "TerminatingOrFailed", "patient": "Failed"}
    kubectl.apply(*(job(name, podReplacementPolicy=each) for name, each in policies.items()))
    first = {name: settle_pods(kubectl, name, 1)[0] for name in policies}
    kubectl("delete", "pod", *first.values(), "--wait=false")
    eventually(lambda: len(kubectl.pods("app=eager")) == 1)
    for name in policies:
        eventually(lambda name=name: kubectl.get(f"job/{name}")["status"].get("terminating") == 1)
    eventually(lambda: kubectl.get("job/eager")["status"].get("active") == 1)
    assert not kubectl.pods("app=patient")
    ended = {"status": {"phase": "Failed"}}  # as its kubelet would say
    kubectl.patch(f"pod/{first['patient']}", ended, "--subresource=status")
    eventually(lambda: len(kubectl.pods("app=patient")) == 1)
    kubectl("delete", "job", "--all", "--wait=false")


def test_a_job_that_somebody_else_manages_is_left_alone(kubectl: Space) -> None:
    kubectl.apply(job("theirs", managedBy="example.com/other"), job("ours"))
    eventually(lambda: kubectl.pods("app=ours"))
    assert not kubectl.pods("app=theirs")
    assert not kubectl.get("job/theirs").get("status")
    kubectl("delete", "job", "--all", "--wait=false")


def test_of_a_deployment_as_many_are_renewed_at_once_as_percentages_allow(kubectl: Space) -> None:
    strategy = {"rollingUpdate": {"maxSurge": "50%", "maxUnavailable": "25%"}}
    kubectl.apply(workload("Deployment", "web", replicas=4, strategy=strategy))
    settle_pods(kubectl, "web", 4)
    kubectl.settled("deployment/web")
    kubectl.patch("deployment/web", command_change("true"))

    def sizes() -> list[int]:
        return sorted(each["spec"]["replicas"] for each in kubectl.get("rs")["items"])

    eventually(lambda: sizes() == [3, 3])  # 4 + 2 together, of which 3 are available
    kubectl("delete", "deployment", "web")


def test_of_a_stateful_set_as_many_are_renewed_at_once_as_it_says(kubectl: Space) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}
    pods = template("db")
    pods["spec"]["terminationGracePeriodSeconds"] = 600
    body = workload(
        *("StatefulSet", "db"), replicas=4, serviceName="db", template=pods, updateStrategy=rolling
    )
    body["spec"]["podManagementPolicy"] = "Parallel"
    kubectl.apply(body)
    settle_pods(kubectl, "db", 4)
    kubectl.settled("sts/db")
    kubectl.patch("sts/db", command_change("true"))
    left = lambda: [p["metadata"]["name"] for p in kubectl.pods("app=db")]  # noqa: E731
    eventually(lambda: left() == ["db-0", "db-1"])
    eventually(lambda: kubectl.get("sts/db")["status"]["observedGeneration"] == 2)
    assert left() == ["db-0", "db-1"]
    kubectl("delete", "sts", "db")


# --- volumes -----------------------------------------------------------------------------------


def volume(name: str, size: str, storage_class: str, **spec: Any) -> dict[str, Any]:
    wanted = {
        "capacity": {"storage": size},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": storage_class,
        "hostPath": {"path": "/nonexistent"},
        **spec,
    }
    return object_of("PersistentVolume", name, spec=wanted)


def claim(name: str, size: str, storage_class: str) -> dict[str, Any]:
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
        "storageClassName": storage_class,
    }
    return object_of("PersistentVolumeClaim", name, spec=spec)


def test_a_claim_gets_the_smallest_volume_that_is_large_enough(kubectl: Space) -> None:
    name = kubectl.namespace
    sizes = {"tiny": "1Gi", "middle": "5Gi", "large": "20Gi"}
    kubectl.apply(*(volume(f"{name}-{each}", size, name) for each, size in sizes.items()))
    bound = lambda claimed: kubectl.get(f"pvc/{claimed}")["spec"].get("volumeName")  # noqa: E731
    kubectl.apply(claim("first", "2Gi", name))
    eventually(lambda: bound("first") == f"{name}-middle")
    room = lambda: kubectl.get("pvc/first")["status"].get("capacity")  # noqa: E731
    assert eventually(room)["storage"] == "5Gi"
    kubectl.apply(claim("second", "2Gi", name))
    eventually(lambda: bound("second") == f"{name}-large")
    kubectl.apply(claim("third", "2Gi", name))
    eventually(lambda: "ProvisioningFailed" in kubectl.reasons("third"))
    assert bound("third") is None, "what is too small is nobody's"
    kubectl.apply(volume(f"{name}-late", "2Gi", name))
    eventually(lambda: bound("third") == f"{name}-late")
    kubectl("delete", "pvc", "--all")
    kubectl("delete", "pv", *(f"{name}-{each}" for each in (*sizes, "late")))


def test_what_was_not_made_by_a_class_that_allows_it_does_not_grow(kubectl: Space) -> None:
    name = kubectl.namespace
    kubectl.apply(volume(f"{name}-fixed", "5Gi", name), claim("fixed", "1Gi", name))
    kubectl("wait", "pvc/fixed", "--for=jsonpath={.status.phase}=Bound", "--timeout=110s")
    more = json.dumps({"spec": {"resources": {"requests": {"storage": "9Gi"}}}})
    refused = kubectl("patch", "pvc", "fixed", "-p", more, ok=False)
    assert (
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the "
        "pvc must support resize" in refused.err
    )
    kubectl("delete", "pvc", "fixed")
    kubectl("delete", "pv", f"{name}-fixed")


def test_a_volume_that_is_promised_waits_for_its_claim_and_one_that_was_used_for_nobody(
    kubectl: Space,
) -> None:
    name = kubectl.namespace
    promise = {"claimRef": {"namespace": name, "name": "expected"}}
    kubectl.apply(volume(f"{name}-promised", "5Gi", name, **promise))
    kubectl.apply(claim("other", "1Gi", name))
    eventually(lambda: kubectl.reasons("other"))
    assert kubectl.get("pvc/other")["status"]["phase"] == "Pending"
    kubectl.apply(claim("expected", "1Gi", name))
    kubectl("wait", "pvc/expected", "--for=jsonpath={.status.phase}=Bound", "--timeout=110s")
    assert kubectl.get("pvc/expected")["spec"]["volumeName"] == f"{name}-promised"
    kubectl("delete", "pvc", "expected")
    phase = lambda: kubectl.get(f"pv/{name}-promised")["status"]["phase"]  # noqa: E731
    eventually(lambda: phase() == "Released")
    kubectl.apply(claim("expected", "1Gi", name))
    eventually(lambda: kubectl.reasons("expected"))
    assert phase() == "Released", "what is on it belongs to the one that is gone"
    kubectl.patch(f"pv/{name}-promised", {"spec": {"claimRef": None}})
    eventually(lambda: phase() == "Bound")
    kubectl("delete", "pvc", "--all")
    kubectl("delete", "pv", f"{name}-promised")


# --- pods that nobody looks after ---------------------------------------------------------------


def test_of_the_finished_pods_the_oldest_go(kubectl: Space) -> None:
    for name in ("p1", "p2", "p3", "p4"):
        spec = {"nodeName": "a", "containers": [{"name": "c", "image": "x"}]}
        kubectl.apply(object_of("Pod", name, spec=spec))
    for name in ("p4", "p3", "p2", "p1"):
        kubectl.patch(f"pod/{name}", {"status": {"phase": "Failed"}}, "--subresource=status")
    eventually(lambda: len(kubectl.pods()) == 2)


def test_a_pod_of_a_node_that_is_no_more_is_removed(still: Instance) -> None:
    eventually(lambda: still.kubectl("get", "pod", STRAY, ok=False).code != 0, seconds=120)
