"""The official Python client at work: typed, dynamic, watching, electing a leader."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apiserver_process import Server
from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "nginx"}]},
        },
    },
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("apiserver")).start()
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log


@pytest.fixture(scope="module")
def api(server: Server) -> Iterator[client.ApiClient]:
    opened = config.new_client_from_config(str(server.kubeconfig()))
    with opened:
        yield opened


@pytest.fixture
def namespace(api: client.ApiClient) -> str:
    name = f"test-{uuid.uuid4().hex[:6]}"
    client.CoreV1Api(api).create_namespace({"metadata": {"name": name}})
    return name


def test_typed_objects_go_to_and_fro(api: client.ApiClient, namespace: str) -> None:
    core, apps = client.CoreV1Api(api), client.AppsV1Api(api)
    made = apps.create_namespaced_deployment(namespace, DEPLOYMENT)
    assert made.spec.replicas == 2 and made.metadata.generation == 1
    assert made.spec.strategy.rolling_update.max_surge == "25%"
    made.spec.replicas = 3
    changed = apps.replace_namespaced_deployment("web", namespace, made)
    assert changed.metadata.generation == 2
    with pytest.raises(ApiException) as stale:
        apps.replace_namespaced_deployment("web", namespace, made)
    assert stale.value.status == 409
    scale = apps.patch_namespaced_deployment_scale("web", namespace, {"spec": {"replicas": 5}})
    assert scale.spec.replicas == 5
    patched = apps.patch_namespaced_deployment(
        "web",
        namespace,
        {"spec": {"template": {"spec": {"containers": [{"name": "d", "image": "d"}]}}}},
    )
    assert {c.name for c in patched.spec.template.spec.containers} == {"c", "d"}
    apps.delete_namespaced_deployment("web", namespace)
    with pytest.raises(ApiException) as missing:
        apps.read_namespaced_deployment("web", namespace)
    assert missing.value.status == 404 and missing.value.reason == "Not Found"
    core.create_namespaced_secret(namespace, client.V1Secret(
        metadata=client.V1ObjectMeta(name="s"), string_data={"a": "b"}
    ))  # fmt: skip
    assert core.read_namespaced_secret("s", namespace).data == {"a": "Yg=="}


def test_lists_come_in_pages_of_one_moment(api: client.ApiClient, namespace: str) -> None:
    core = client.CoreV1Api(api)
    for n in range(7):
        core.create_namespaced_config_map(namespace, {"metadata": {"name": f"c{n}"}})
    page = core.list_namespaced_config_map(namespace, limit=3)
    assert page.metadata.remaining_item_count == 4
    core.delete_namespaced_config_map("c4", namespace)
    names = [item.metadata.name for item in page.items]
    while page.metadata._continue:
        page = core.list_namespaced_config_map(
            namespace, limit=3, _continue=page.metadata._continue
        )
        names += [item.metadata.name for item in page.items]
    assert names == [f"c{n}" for n in range(7)]


def test_a_watch_streams_until_it_is_stopped(api: client.ApiClient, namespace: str) -> None:
    core = client.CoreV1Api(api)
    since = core.list_namespaced_config_map(namespace).metadata.resource_version

    def churn() -> None:
        for n in range(3):
            core.create_namespaced_config_map(namespace, {"metadata": {"name": f"c{n}"}})
        core.delete_namespaced_config_map("c0", namespace)

    writer = threading.Thread(target=churn)
    writer.start()
    stream, seen = watch.Watch(), []
    for event in stream.stream(
        core.list_namespaced_config_map, namespace, resource_version=since, timeout_seconds=60
    ):
        seen.append((event["type"], event["object"].metadata.name))
        if event["type"] == "DELETED":
            stream.stop()
    writer.join()
    assert seen == [("ADDED", "c0"), ("ADDED", "c1"), ("ADDED", "c2"), ("DELETED", "c0")]


def test_the_dynamic_client_discovers_every_resource(
    api: client.ApiClient, namespace: str, tmp_path: Path
) -> None:
    found = dynamic.DynamicClient(api, cache_file=str(tmp_path / "discovered"))
    deployments = found.resources.get(api_version="apps/v1", kind="Deployment")
    made = deployments.create(body=DEPLOYMENT, namespace=namespace)
    assert made.spec.replicas == 2
    applied = deployments.server_side_apply(
        body={**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "replicas": 2}},
        name="web",
        namespace=namespace,
        field_manager="tester",
    )
    managers = {entry.manager for entry in applied.metadata.managedFields}
    assert "tester" in managers
    with pytest.raises(ConflictError):
        deployments.server_side_apply(
            body={**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "replicas": 9}},
            name="web",
            namespace=namespace,
            field_manager="another",
        )
    assert deployments.scale.get(name="web", namespace=namespace).spec.replicas == 2
    listed = found.resources.get(api_version="v1", kind="ConfigMap").get(namespace=namespace)
    assert listed.kind == "ConfigMapList"
    deployments.delete(name="web", namespace=namespace)
    with pytest.raises(NotFoundError):
        deployments.get(name="web", namespace=namespace)
    kinds = {(r.group_version, r.kind) for group in found.resources for r in group if r.kind}
    assert {("v1", "Pod"), ("batch/v1", "CronJob"), ("storage.k8s.io/v1", "StorageClass")} <= kinds


def test_manifests_are_created_from_yaml(
    api: client.ApiClient, namespace: str, tmp_path: Path
) -> None:
    manifest = tmp_path / "all.yaml"
    manifest.write_text(
        """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: tick}
spec:
  schedule: "*/5 * * * *"
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: one}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: two}}
"""
    )
    utils.create_from_yaml(api, str(manifest), namespace=namespace)
    core = client.CoreV1Api(api)
    names = {item.metadata.name for item in core.list_namespaced_config_map(namespace).items}
    assert {"one", "two"} <= names
    assert client.BatchV1Api(api).read_namespaced_cron_job("tick", namespace).spec.suspend is False
    with pytest.raises(utils.FailToCreateError) as failure:
        utils.create_from_yaml(api, str(manifest), namespace=namespace)
    # The client shows the answer's body as it came, to the byte.
    assert (
        'Error from server (Conflict): {"kind":"Status","apiVersion":"v1","metadata":{},'
        '"status":"Failure","message":"configmaps \\"one\\" already exists",'
        '"reason":"AlreadyExists","details":{"name":"one","kind":"configmaps"},"code":409}\n'
    ) in str(failure.value)


def test_custom_objects_live(api: client.ApiClient, namespace: str) -> None:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    client.ApiextensionsV1Api(api).create_custom_resource_definition(
        {
            "metadata": {"name": "gadgets.example.com"},
            "spec": {
                "group": "example.com",
                "names": {"plural": "gadgets", "kind": "Gadget"},
                "scope": "Namespaced",
                "versions": [
                    {
                        "name": "v1",
                        "served": True,
                        "storage": True,
                        "schema": {"openAPIV3Schema": schema},
                    }
                ],
            },
        }
    )
    custom = client.CustomObjectsApi(api)
    where = ("example.com", "v1", namespace, "gadgets")
    stream = watch.Watch()
    definitions = client.ApiextensionsV1Api(api).list_custom_resource_definition
    for event in stream.stream(definitions, timeout_seconds=60):
        status = event["object"].status
        conditions = (status and status.conditions) or []
        if any(c.type == "Established" and c.status == "True" for c in conditions):
            stream.stop()
    custom.create_namespaced_custom_object(
        *where,
        {"apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": "g"}, "size": 3},
    )
    custom.patch_namespaced_custom_object(*where, "g", {"size": 4})
    assert custom.get_namespaced_custom_object(*where, "g")["size"] == 4
    assert len(custom.list_namespaced_custom_object(*where)["items"]) == 1
    custom.delete_namespaced_custom_object(*where, "g")


class Candidate:
    """One who wants to lead, in a thread; it ends when it is told to stop, once it has led."""

    def __init__(self, name: str, namespace: str) -> None:
        self.leads, self._stop = threading.Event(), threading.Event()
        election = leaderelection.LeaderElection(
            electionconfig.Config(
                LeaseLock("lock", namespace, name),
                lease_duration=4,
                renew_deadline=3,
                retry_period=1,
                onstarted_leading=self._lead,
                onstopped_leading=lambda: None,
            )
        )
        self._thread = threading.Thread(target=election.run)
        self._thread.start()

    def _lead(self) -> None:
        self.leads.set()
        self._stop.wait()
        raise RuntimeError("enough")  # who cannot do its work any more gives up the lease

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


def test_one_of_two_candidates_leads_and_hands_over(server: Server, namespace: str) -> None:
    config.load_kube_config(str(server.kubeconfig()))
    leases = client.CoordinationV1Api()

    def holder() -> str:
        lease = leases.read_namespaced_lease("lock", namespace)
        return str(lease.spec.holder_identity)

    first = Candidate("one", namespace)
    assert first.leads.wait(60)
    assert holder() == "one"
    second = Candidate("two", namespace)
    try:
        assert not second.leads.wait(1)
    finally:
        first.stop()
        assert second.leads.wait(60)
        second.stop()
    assert holder() == "two"


def test_events_are_written_and_found(api: client.ApiClient, namespace: str) -> None:
    events = client.EventsV1Api(api)
    events.create_namespaced_event(
        namespace,
        {
            "metadata": {"generateName": "e-"},
            "eventTime": time.strftime("%Y-%m-%dT%H:%M:%S.123456Z", time.gmtime()),
            "reportingController": "example.com/tester",
            "reportingInstance": "t-1",
            "action": "Testing",
            "reason": "Tested",
            "type": "Normal",
            "note": "all is well",
            "regarding": {"kind": "ConfigMap", "name": "c", "namespace": namespace},
        },
    )
    (found,) = client.CoreV1Api(api).list_namespaced_event(
        namespace, field_selector="reason=Tested,involvedObject.name=c"
    ).items  # fmt: skip
    assert (found.message, found.reporting_component) == ("all is well", "example.com/tester")
