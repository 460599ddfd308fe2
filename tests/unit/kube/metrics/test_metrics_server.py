"""The metrics server as API servers speak to it: certificates, names in headers, reviews."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from wherry.kube.api.errors import not_found
from wherry.kube.client.client import Client
from wherry.kube.metrics import manifest
from wherry.kube.metrics.answers import BASE
from wherry.kube.metrics.samples import Point, Sample
from wherry.kube.metrics.scraper import address
from wherry.kube.metrics.server import MetricsConfig, MetricsServer

sys.path.insert(0, str(Path(__file__).parents[1] / "kubelet"))
from certificates import Authority

POD = {"metadata": {"name": "p", "namespace": "ns", "labels": {"app": "x"}}}
NODE = {"metadata": {"name": "n"}}


class API:
    """Holds one pod and one node; allows Ann everything and nobody else anything."""

    def __init__(self) -> None:
        self.reviews: list[dict[str, Any]] = []
        self.queries: list[tuple[str, dict[str, str]]] = []

    async def request(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        if path.endswith("subjectaccessreviews"):
            self.reviews.append(more["body"]["spec"])
            return {"status": {"allowed": more["body"]["spec"]["user"] == "ann"}}
        self.queries.append((path, dict(more.get("query") or ())))
        answers: dict[str, dict[str, Any]] = {
            "/api/v1/pods": {"items": [POD, {"metadata": {"name": "unknown", "namespace": "ns"}}]},
            "/api/v1/namespaces/ns/pods/p": POD,
            "/api/v1/namespaces/ns/pods/unknown": {
                "metadata": {"name": "unknown", "namespace": "ns"}
            },
            "/api/v1/nodes": {"items": [NODE]},
            "/api/v1/nodes/n": NODE,
        }
        if path not in answers:
            raise not_found("pods", path.rpartition("/")[2])
        return answers[path]

    async def close(self) -> None:
        pass


class Asked:
    """A running server, asked with a certificate of the front proxy's authority."""

    def __init__(self, api: API, session: aiohttp.ClientSession, url: str, ca: Authority) -> None:
        self.api, self.session, self.url, self.ca = api, session, url, ca

    async def get(
        self, path: str, *, user: str = "ann", proxy: str | None = "front", **headers: str
    ) -> tuple[int, Any]:
        said = {"X-Remote-User": user, **headers}
        context = self.ca.client(proxy)
        async with self.session.get(self.url + path, headers=said, ssl=context) as response:
            if response.content_type != "application/json":
                return response.status, await response.text()
            return response.status, await response.json()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Asked]:
    ca = Authority(tmp_path)
    api = API()
    cert, key = ca.issue("server")
    config = MetricsConfig(cert, key, ca.certificate, ("front",))
    made = MetricsServer(Client(api), config)  # type: ignore[arg-type]
    for at in (100.0, 115.0):
        point = Point((at - 100) / 10, 4096, at)
        made.usages.put("n", Sample(point, {("ns", "p"): {"c": point}}))
    port = await made.listen("127.0.0.1", 0)
    async with aiohttp.ClientSession() as session:
        yield Asked(api, session, f"https://127.0.0.1:{port}", ca)
    await made.close()


async def test_only_the_front_proxy_may_come_in(server: Asked) -> None:
    for proxy in (None, "somebody"):
        code, told = await server.get(f"{BASE}/nodes", proxy=proxy)
        assert (code, told["reason"]) == (401, "Unauthorized")
    assert not server.api.reviews


async def test_who_is_named_is_reviewed(server: Asked) -> None:
    code, told = await server.get(
        f"{BASE}/namespaces/ns/pods", user="bob", **{"X-Remote-Extra-Example.com%2fteam": "a"}
    )
    assert code == 403
    assert told["message"] == (
        'pods.metrics.k8s.io is forbidden: User "bob" cannot list resource "pods" in API group '
        '"metrics.k8s.io" in the namespace "ns"'
    )
    (review,) = server.api.reviews
    assert review["extra"] == {"example.com/team": ["a"]}
    assert review["resourceAttributes"] == {
        "group": "metrics.k8s.io",
        "version": "v1beta1",
        "resource": "pods",
        "verb": "list",
        "namespace": "ns",
        "name": "",
    }


async def test_running_pods_with_figures_are_listed(server: Asked) -> None:
    code, told = await server.get(f"{BASE}/pods?labelSelector=app%3Dx&fieldSelector=spec.a%3Db")
    assert code == 200
    assert (told["kind"], told["apiVersion"]) == ("PodMetricsList", "metrics.k8s.io/v1beta1")
    (item,) = told["items"]
    assert item["containers"] == [{"name": "c", "usage": {"cpu": "100m", "memory": "4Ki"}}]
    assert item["window"] == "15s"
    query = {"labelSelector": "app=x", "fieldSelector": "spec.a=b,status.phase=Running"}
    assert server.api.queries == [("/api/v1/pods", query)]


async def test_one_is_had_by_name_or_is_not_found(server: Asked) -> None:
    code, told = await server.get(f"{BASE}/nodes/n")
    assert (code, told["kind"], told["usage"]["cpu"]) == (200, "NodeMetrics", "100m")
    code, told = await server.get(f"{BASE}/namespaces/ns/pods/unknown")
    message = 'podmetrics.metrics.k8s.io "ns/unknown" not found'
    assert (code, told["message"]) == (404, message)
    code, told = await server.get(f"{BASE}/namespaces/ns/pods/none")
    assert (code, told["message"]) == (404, 'pods "none" not found')
    assert (await server.get(f"{BASE}/things"))[0] == 404


async def test_tables_are_made_for_kubectl(server: Asked) -> None:
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    _, told = await server.get(f"{BASE}/nodes", Accept=accept)
    assert (told["kind"], told["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert told["rows"][0]["cells"] == ["n", "100m", "4Ki", "15s"]
    assert told["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    _, told = await server.get(f"{BASE}/nodes", Accept="application/json")
    assert told["kind"] == "NodeMetricsList"


async def test_it_tells_what_it_serves(server: Asked) -> None:
    _, told = await server.get(BASE)
    assert {r["name"]: r["kind"] for r in told["resources"]} == {
        "nodes": "NodeMetrics",
        "pods": "PodMetrics",
    }
    _, told = await server.get("/openapi/v2")
    assert any(name.endswith(".PodMetrics") for name in told["definitions"])
    assert (await server.get("/livez"))[1] == "ok"


async def test_what_a_cluster_must_hold_is_made_once() -> None:
    made: list[str] = []

    class Maker(API):
        async def request(self, method: str, path: str, **more: Any) -> dict[str, Any]:
            made.append(f"{method} {path.rpartition('/')[2]} {more['body']['metadata']['name']}")
            return dict(more["body"])

    await manifest.install(Client(Maker()), manifest.objects(b""))  # type: ignore[arg-type]
    assert made[-1] == "POST apiservices v1beta1.metrics.k8s.io"
    assert "POST clusterroles system:aggregated-metrics-reader" in made


def test_a_kubelet_is_where_its_node_says() -> None:
    status = {
        "addresses": [
            {"type": "Hostname", "address": "n"},
            {"type": "InternalIP", "address": "10.0.0.7"},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10251}},
    }
    assert address({"status": status}) == ("10.0.0.7", 10251)
    assert address({"status": {}}) is None
