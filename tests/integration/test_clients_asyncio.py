"""The Python client's asyncio twin, and lightkube: neither notices whom it talks to."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import kubernetes_asyncio as k8s
import lightkube
import pytest
from apiserver_process import Server
from lightkube import codecs
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.autoscaling_v1 import ScaleSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Namespace, Secret
from lightkube.types import CascadeType, PatchType

MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: nginx}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, labels: {app: web}}
data: {a: "1"}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("apiserver")).start()
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log


@pytest.fixture
async def api(server: Server) -> AsyncIterator[k8s.client.ApiClient]:
    opened = await k8s.config.new_client_from_config(str(server.kubeconfig()))
    async with opened:
        yield opened


@pytest.fixture
def light(server: Server) -> lightkube.Client:
    return lightkube.Client(KubeConfig.from_file(str(server.kubeconfig())), field_manager="light")


@pytest.fixture
def namespace(light: lightkube.Client) -> str:
    name = f"test-{uuid.uuid4().hex[:6]}"
    light.create(Namespace(metadata=ObjectMeta(name=name)))
    return name


# --- kubernetes_asyncio -------------------------------------------------------------------------


async def test_many_requests_at_once(api: k8s.client.ApiClient, namespace: str) -> None:
    core = k8s.client.CoreV1Api(api)
    await asyncio.gather(
        *(
            core.create_namespaced_config_map(namespace, {"metadata": {"name": f"c{n}"}})
            for n in range(30)
        )
    )
    assert len((await core.list_namespaced_config_map(namespace)).items) == 30
    await core.delete_collection_namespaced_config_map(namespace, field_selector="metadata.name=c3")
    names = {c.metadata.name for c in (await core.list_namespaced_config_map(namespace)).items}
    assert len(names) == 29 and "c3" not in names


async def test_a_stream_of_events(api: k8s.client.ApiClient, namespace: str) -> None:
    core = k8s.client.CoreV1Api(api)
    since = (await core.list_namespaced_secret(namespace)).metadata.resource_version

    async def churn() -> None:
        for n in range(3):
            body = {"metadata": {"name": f"s{n}"}, "stringData": {"k": "v"}}
            await core.create_namespaced_secret(namespace, body)
        await core.delete_namespaced_secret("s1", namespace)

    writing = asyncio.create_task(churn())
    seen = []
    async with k8s.watch.Watch().stream(
        core.list_namespaced_secret, namespace, resource_version=since, timeout_seconds=60
    ) as stream:
        async for event in stream:
            seen.append((event["type"], event["object"].metadata.name))
            if event["type"] == "DELETED":
                break
    await writing
    assert seen == [("ADDED", "s0"), ("ADDED", "s1"), ("ADDED", "s2"), ("DELETED", "s1")]


async def test_its_dynamic_client(
    api: k8s.client.ApiClient, namespace: str, tmp_path: Path
) -> None:
    found = await k8s.dynamic.DynamicClient(api, cache_file=str(tmp_path / "discovered"))
    maps = await found.resources.get(api_version="v1", kind="ConfigMap")
    await maps.create(body={"metadata": {"name": "a"}, "data": {"k": "v"}}, namespace=namespace)
    got = await maps.get(name="a", namespace=namespace)
    assert got.data.k == "v"
    await maps.patch(
        body={"data": {"k": None}},
        name="a",
        namespace=namespace,
        content_type="application/merge-patch+json",
    )
    assert (await maps.get(name="a", namespace=namespace)).to_dict().get("data") is None


async def test_an_error_is_a_status(api: k8s.client.ApiClient, namespace: str) -> None:
    with pytest.raises(k8s.client.ApiException) as failure:
        await k8s.client.AppsV1Api(api).create_namespaced_deployment(
            namespace, {"metadata": {"name": "Bad Name"}, "spec": {"selector": {}, "template": {}}}
        )
    assert failure.value.status == 422
    assert 'Deployment.apps \\"Bad Name\\" is invalid' in failure.value.body


# --- lightkube ----------------------------------------------------------------------------------


def test_lightkube_applies_lists_watches_and_deletes(
    light: lightkube.Client, namespace: str
) -> None:
    for o in codecs.load_all_yaml(MANIFEST):
        light.apply(o, namespace=namespace)
    web = light.get(Deployment, "web", namespace=namespace)
    assert web.spec is not None and web.spec.replicas == 2
    assert web.metadata is not None and web.metadata.managedFields is not None
    assert web.metadata.managedFields[0].manager == "light"
    light.replace(
        Deployment.Scale(metadata=ObjectMeta(name="web"), spec=ScaleSpec(replicas=4)),
        "web",
        namespace=namespace,
    )
    again = light.patch(
        Deployment,
        "web",
        {"metadata": {"labels": {"x": "y"}}},
        namespace=namespace,
        patch_type=PatchType.MERGE,
    )
    assert again.spec is not None and again.spec.replicas == 4
    listed = list(light.list(ConfigMap, namespace=namespace, labels={"app": "web"}))
    assert [c.metadata.name for c in listed if c.metadata] == ["settings"]
    for kind, o in light.watch(
        ConfigMap, namespace=namespace, fields={"metadata.name": "settings"}
    ):
        assert (kind, o.metadata and o.metadata.name) == ("ADDED", "settings")
        break
    light.delete(Deployment, "web", namespace=namespace, cascade=CascadeType.FOREGROUND)
    held = light.get(Deployment, "web", namespace=namespace)
    assert held.metadata is not None and held.metadata.finalizers == ["foregroundDeletion"]


def test_lightkube_pages_through_long_lists(light: lightkube.Client, namespace: str) -> None:
    for n in range(12):
        light.create(Secret(metadata=ObjectMeta(name=f"s{n:02}", namespace=namespace)))
    names = [s.metadata.name for s in light.list(Secret, namespace=namespace, chunk_size=5)]
    assert names == [f"s{n:02}" for n in range(12)]


def test_lightkube_tells_of_conflicts_and_misses(light: lightkube.Client, namespace: str) -> None:
    made = light.create(ConfigMap(metadata=ObjectMeta(name="a", namespace=namespace)))
    assert made.metadata is not None
    made.data = {"k": "v"}
    light.replace(made)
    made.data = {"k": "w"}
    with pytest.raises(ApiError) as stale:
        light.replace(made)
    assert (stale.value.status.code, stale.value.status.reason) == (409, "Conflict")
    with pytest.raises(ApiError) as missing:
        light.get(ConfigMap, "nix", namespace=namespace)
    assert missing.value.status.details and missing.value.status.details.name == "nix"
    gadgets = create_namespaced_resource("example.com", "v1", "Gadget", "gadgets")
    with pytest.raises(ApiError, match="could not find the requested resource"):
        list(light.list(gadgets, namespace=namespace))
