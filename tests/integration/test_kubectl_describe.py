"""``kubectl describe``: every kind there is, and what controllers say of what they look after."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from apiserver_process import Server
from conftest import Instance, eventually
from kubectl_space import Space, new_space, template, workload

from sample_objects import WRITABLE, minimal


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("apiserver")).start()
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log


@pytest.fixture
def kubectl(cluster: Instance) -> Iterator[Space]:
    with new_space(cluster) as space:
        yield space


def test_one_of_every_kind_is_described(server: Server) -> None:
    server.kubectl("create", "serviceaccount", "default")  # no controller runs here
    missing = []
    for resource in WRITABLE:
        body = minimal(resource)
        name = body["metadata"]["name"]
        kind = f"{resource.plural}.{resource.version}.{resource.group}".rstrip(".")
        server.kubectl("create", "--validate=false", "-f", "-", stdin=json.dumps(body))
        where = resource.plural if not resource.group else kind
        told = server.kubectl("describe", where, name, ok=False)
        if told.code != 0 or name not in told.out:
            missing.append((kind, told.err or told.out))
        server.kubectl("delete", where, name, "--wait=false", "--force", ok=False)
    assert missing == []


def says(kubectl: Space, what: str, *words: str) -> None:
    """Wait until the description of ``what`` has all the words."""
    told = ""

    def complete() -> bool:
        nonlocal told
        told = kubectl.describe(what)
        return all(word in told for word in words)

    try:
        eventually(complete)
    except BaseException:
        pytest.fail(f"{[word for word in words if word not in told]} not in:\n{told}")


def test_workloads_say_what_was_done_for_them(kubectl: Space) -> None:
    once = template("once", "true")
    once["spec"]["restartPolicy"] = "Never"
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}}
    kubectl.apply(
        workload("Deployment", "web", replicas=1),
        workload("StatefulSet", "db", replicas=1, serviceName="db"),
        workload("DaemonSet", "agent"),
        {**job, "spec": {"template": once}},
    )
    says(kubectl, "deployment/web", "ScalingReplicaSet", "Scaled up replica set web-")
    says(kubectl, "deployment/web", "Available", "MinimumReplicasAvailable")
    says(kubectl, "deployment/web", "Progressing", "NewReplicaSetAvailable")
    (rs,) = kubectl.get("rs", "-l", "app=web")["items"]
    says(kubectl, f"rs/{rs['metadata']['name']}", "SuccessfulCreate", "Created pod: web-")
    says(kubectl, "sts/db", "SuccessfulCreate", "create Pod db-0 in StatefulSet db successful")
    says(kubectl, "ds/agent", "SuccessfulCreate", "Created pod: agent-")
    says(kubectl, "job/once", "SuccessfulCreate", "Completed", "Job completed")
    says(kubectl, "pod/db-0", "Scheduled", "Pulled", "Created", "Started", "PodScheduled", "Ready")


def test_the_rest_of_the_cluster_says_what_was_done_for_it(kubectl: Space) -> None:
    (node,) = kubectl.get("nodes")["items"]
    name = node["metadata"]["name"]
    says(kubectl, f"node/{name}", "MemoryPressure", "KubeletReady", "Allocated resources")
    assert "RegisteredNode" in kubectl("events", "-n", "default", "--for", f"node/{name}").out
    kubectl("create", "service", "loadbalancer", "front", "--tcp=18090:80")
    says(kubectl, "service/front", "EnsuringLoadBalancer", "EnsuredLoadBalancer", "LoadBalancer")
    kubectl("create", "deployment", "still", "--image=hello:1", "--replicas=0")
    kubectl("autoscale", "deployment", "still", "--max=2", "--cpu-percent=50")
    says(kubectl, "hpa/still", "AbleToScale", "ScalingActive", "ScalingDisabled")
    kubectl("create", "cronjob", "nightly", "--image=hello:1", "--schedule=0 3 * * *", "--", "true")
    says(kubectl, "cronjob/nightly", "Schedule:", "0 3 * * *", "Last Schedule Time:  <unset>")
    kubectl("create", "ingress", "way", "--rule=a.example/*=front:80")
    says(kubectl, "ingress/way", "a.example", "front:80")
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data"},
            "spec": claim,
        }
    )
    says(kubectl, "pvc/data", "WaitForFirstConsumer", "waiting for first consumer")
