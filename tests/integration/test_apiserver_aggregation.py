"""Aggregated API servers: APIServices, the way there, and what clients are told of all together."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from aggregated import BASE, GROUP, VERSION, Flunders
from apiserver_process import Finished, Server
from backend import address, serving

from wherry.kube.client.client import Client
from wherry.kube.client.https import HTTPSTransport
from wherry.kube.controllers import Options, run_controllers

NAME = f"{VERSION}.{GROUP}"


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with address() as found:
        yield found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("apiserver")).start()
    running.kubectl("create", "serviceaccount", "default")
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log


async def kubectl(server: Server, *arguments: str, **options: Any) -> Finished:
    return await asyncio.to_thread(server.kubectl, *arguments, **options)


@pytest.fixture
async def client(server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    context = ssl.create_default_context(cafile=str(server.authority.certificate))
    context.load_cert_chain(*map(str, server.admin))
    async with aiohttp.ClientSession(
        f"https://127.0.0.1:{server.port}", connector=aiohttp.TCPConnector(ssl=context)
    ) as session:
        yield session


def manifests(server: Server, host: str, port: int, **spec: Any) -> list[dict[str, Any]]:
    ca = base64.b64encode(server.authority.certificate.read_bytes()).decode()
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "api", "namespace": "default"},
            "spec": {"ports": [{"port": 443, "targetPort": port}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "api-1",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": "api"},
            },
            "addressType": "IPv4",
            "ports": [{"name": "", "port": port}],
            "endpoints": [{"addresses": [host], "conditions": {"ready": True}}],
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": NAME},
            "spec": {
                "group": GROUP,
                "version": VERSION,
                "service": {"name": "api", "namespace": "default"},
                "caBundle": ca,
                "groupPriorityMinimum": 2000,
                "versionPriority": 10,
                **spec,
            },
        },
    ]


async def apply(server: Server, objects: list[dict[str, Any]]) -> None:
    items = {"apiVersion": "v1", "kind": "List", "items": objects}
    await kubectl(server, "apply", "-f", "-", stdin=json.dumps(items))


async def condition(server: Server, reason: str) -> dict[str, Any]:
    """The condition Available, once it has that reason."""
    path = '{.status.conditions[?(@.type=="Available")].reason}'
    wait = f"--for=jsonpath={path}={reason}"
    await kubectl(server, "wait", f"apiservice/{NAME}", wait)
    found = await asyncio.to_thread(server.get, "apiservice", NAME)
    (one,) = (c for c in found["status"]["conditions"] if c["type"] == "Available")
    assert isinstance(one, dict)
    return one


@pytest.fixture
async def flunders(server: Server, host: str) -> AsyncIterator[Flunders]:
    """The aggregated server, registered and available."""
    behind = Flunders()
    pair = server.authority.issue("flunders", "flunders", hosts=("api.default.svc",))
    context = behind.context(server.authority.certificate, pair)
    async with serving(behind.app, host, context) as port:
        behind.place = host, port  # type: ignore[attr-defined]
        await apply(server, manifests(server, host, port))
        await condition(server, "Passed")
        yield behind
        await kubectl(server, "delete", "apiservice", NAME)
        await kubectl(server, "delete", "service/api", "endpointslice/api-1", "--ignore-not-found")


async def test_what_is_served_here_has_its_apiservices(server: Server) -> None:
    for name in ("v1.", "v1.apps", "v2.autoscaling"):
        for what in ("create", "condition=Available"):
            await kubectl(server, "wait", f"apiservice/{name}", f"--for={what}")
    found = (await kubectl(server, "get", "apiservices")).out.splitlines()
    assert found[0].split() == ["NAME", "SERVICE", "AVAILABLE", "AGE"]
    assert {tuple(line.split()[:3]) for line in found[1:]} >= {
        ("v1.", "Local", "True"),
        ("v1.apps", "Local", "True"),
        ("v2.autoscaling", "Local", "True"),
    }
    apps = await asyncio.to_thread(server.get, "apiservice", "v1.apps")
    assert apps["spec"] == {
        "group": "apps",
        "version": "v1",
        "groupPriorityMinimum": 17800,
        "versionPriority": 15,
    }
    assert apps["metadata"]["labels"] == {"kube-aggregator.kubernetes.io/automanaged": "onstart"}
    assert apps["status"]["conditions"][0]["reason"] == "Local"


async def test_a_custom_resources_group_gets_and_loses_its_apiservice(server: Server) -> None:
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.org"},
        "spec": {
            "group": "example.org",
            "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object"}},
                }
            ],
        },
    }
    await apply(server, [crd])
    await kubectl(server, "wait", "--for=create", "apiservice/v1.example.org")
    found = await asyncio.to_thread(server.get, "apiservice", "v1.example.org")
    spec = found["spec"]
    assert (spec["groupPriorityMinimum"], spec["versionPriority"]) == (1000, 100)
    assert found["metadata"]["labels"] == {"kube-aggregator.kubernetes.io/automanaged": "true"}
    await kubectl(server, "delete", "crd", "things.example.org")
    await kubectl(server, "wait", "--for=delete", "apiservice/v1.example.org")


async def test_kubectl_uses_what_another_server_serves(server: Server, flunders: Flunders) -> None:
    manifest = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "Flunder",
        "metadata": {"name": "one"},
        "spec": {"size": 3},
    }
    done = await kubectl(server, "create", "-f", "-", stdin=json.dumps(manifest))
    assert done.out == f"flunder.{GROUP}/one created\n"
    assert (await kubectl(server, "get", "fl", "-o", "name")).out == f"flunder.{GROUP}/one\n"
    await kubectl(server, "patch", "fl", "one", "--type=merge", "-p", '{"spec": {"size": 4}}')
    assert (await asyncio.to_thread(server.get, "flunders", "one"))["spec"]["size"] == 4
    absent = await kubectl(server, "get", "flunder", "two", ok=False)
    assert absent.err == f'Error from server (NotFound): flunders.{GROUP} "two" not found\n'
    explained = await kubectl(server, "explain", "flunder.spec.size")
    assert "How large." in explained.out
    line = (await kubectl(server, "get", "apiservice", NAME)).out.splitlines()[1]
    assert line.split()[:3] == [NAME, "default/api", "True"]
    listed = (await kubectl(server, "api-resources", f"--api-group={GROUP}")).out
    assert listed.split()[5:10] == ["flunders", "fl", f"{GROUP}/{VERSION}", "true", "Flunder"]
    await kubectl(server, "delete", "flunder", "one")
    assert flunders.peers == {"front-proxy-client"}


async def test_the_other_server_is_told_who_asks_and_never_by_the_client(
    server: Server, client: aiohttp.ClientSession, flunders: Flunders
) -> None:
    lying = {"X-Remote-User": "root", "X-Remote-Group": "system:masters", "Authorization": "x y"}
    async with client.get(f"{BASE}/flunders", headers=lying) as response:
        assert response.status == 200
    said = flunders.asked("GET", f"{BASE}/flunders")
    assert said["x-remote-user"] == ["kubernetes-admin"]
    assert said["x-remote-group"] == ["system:masters", "system:authenticated"]
    as_jane = {
        "Impersonate-User": "jane",
        "Impersonate-Group": "devs",
        "Impersonate-Extra-Acme.com%2Fproject": "p1",
    }
    async with client.get(f"{BASE}/flunders", headers=as_jane) as response:
        assert response.status == 403  # judged here first
    async with client.get(f"{BASE}", headers=as_jane) as response:
        assert response.status == 200
    said = flunders.asked("GET", BASE)
    assert said["x-remote-user"] == ["jane"]


async def test_a_watch_and_large_bodies_and_a_websocket_go_through(
    client: aiohttp.ClientSession, flunders: Flunders
) -> None:
    collection = f"{BASE}/namespaces/default/flunders"
    async with client.get(f"{collection}?watch=true&resourceVersion=1") as watching:
        await client.post(collection, json={"metadata": {"name": "w"}})
        event = json.loads(await watching.content.readline())
        assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "w")
        await client.delete(f"{collection}/w")
        assert json.loads(await watching.content.readline())["type"] == "DELETED"

    async def upload() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"y" * 100_000

    async with client.post(f"{collection}/w/sum", data=upload()) as response:
        assert len(await response.read()) == 10_000_000
    async with client.ws_connect(f"{collection}/w/talk") as socket:
        await socket.send_str("hello")
        assert (await socket.receive()).data == "heard hello"


async def test_discovery_and_openapi_are_one_document(
    client: aiohttp.ClientSession, flunders: Flunders
) -> None:
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    async with client.get("/apis", headers={"Accept": accept}) as response:
        items = (await response.json())["items"]
    names = [item["metadata"]["name"] for item in items]
    assert names.index("apps") < names.index(GROUP)
    (version,) = items[names.index(GROUP)]["versions"]
    assert (version["version"], version["freshness"]) == (VERSION, "Current")
    assert version["resources"][0]["shortNames"] == ["fl"]
    async with client.get("/apis") as response:
        groups = {group["name"]: group for group in (await response.json())["groups"]}
    assert groups[GROUP]["preferredVersion"]["groupVersion"] == f"{GROUP}/{VERSION}"
    async with client.get(f"/apis/{GROUP}") as response:
        assert (await response.json())["kind"] == "APIGroup"
    async with client.get("/openapi/v3") as response:
        path = (await response.json())["paths"][f"apis/{GROUP}/{VERSION}"]["serverRelativeURL"]
    async with client.get(path) as response:
        document = await response.json()
    assert "com.example.wardle.v1.Flunder" in document["components"]["schemas"]
    async with client.get("/openapi/v2") as response:
        document = await response.json()
    assert f"{BASE}/namespaces/{{namespace}}/flunders/{{name}}" in document["paths"]
    assert "/other" not in document["paths"] and "unused" not in document["definitions"]
    assert "io.k8s.api.core.v1.Pod" in document["definitions"]


async def test_why_a_server_cannot_be_used_is_said_and_asking_it_is_refused(
    server: Server, client: aiohttp.ClientSession, flunders: Flunders
) -> None:
    await kubectl(server, "delete", "endpointslice", "api-1")
    found = await condition(server, "EndpointsNotFound")
    assert found["message"] == 'cannot find endpointslices for service/api in "default"'
    async with client.get(f"{BASE}/flunders") as response:
        assert (response.status, await response.text()) == (503, "service unavailable\n")
    line = (await kubectl(server, "get", "apiservice", NAME)).out.splitlines()[1]
    assert line.split()[2:4] == ["False", "(EndpointsNotFound)"]
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    async with client.get("/apis", headers={"Accept": accept}) as response:
        items = (await response.json())["items"]
    (entry,) = (item for item in items if item["metadata"]["name"] == GROUP)
    assert entry["versions"][0]["freshness"] == "Stale"
    assert entry["versions"][0]["resources"]

    host, port = flunders.place  # type: ignore[attr-defined]
    service, piece, _ = manifests(server, host, port)
    piece["endpoints"][0]["conditions"]["ready"] = False
    await apply(server, [piece])
    found = await condition(server, "MissingEndpoints")
    assert found["message"] == (
        'endpointslices for service/api in "default" have no addresses with port name ""'
    )
    piece["endpoints"][0]["conditions"]["ready"] = True
    flunders.healthy = False
    await apply(server, [piece])
    found = await condition(server, "FailedDiscoveryCheck")
    assert found["message"] == (
        f"failing or missing response from https://{host}:{port}{BASE}: "
        f"bad status from https://{host}:{port}{BASE}: 500"
    )
    flunders.healthy = True
    await condition(server, "Passed")
    await kubectl(server, "delete", "service", "api")
    found = await condition(server, "ServiceNotFound")
    assert found["message"] == 'service/api in "default" is not present'
    service["spec"]["ports"][0]["port"] = 8443
    await apply(server, [service, piece])
    found = await condition(server, "ServicePortError")
    assert found["message"] == 'service/api in "default" is not listening on port 443'


async def test_a_server_whom_we_must_not_believe_gets_nothing(
    server: Server, client: aiohttp.ClientSession, flunders: Flunders
) -> None:
    patch = {"spec": {"caBundle": base64.b64encode(b"nothing of value").decode()}}
    merge = ("patch", "apiservice", NAME, "--type=merge", "-p")
    refused = await kubectl(server, *merge, json.dumps(patch), ok=False)
    if refused.code == 0:
        async with client.get(f"{BASE}/flunders") as response:
            assert (response.status, await response.text()) == (
                *(500,),
                "unable to load root certificates\n",
            )
    other = server.authority.directory.parent / "other"
    from apiserver_process import Authority

    stranger = Authority(other).certificate.read_bytes()
    patch = {"spec": {"caBundle": base64.b64encode(stranger).decode()}}
    await kubectl(server, *merge, json.dumps(patch))
    async with client.get(f"{BASE}/flunders") as response:
        text = await response.text()
    assert response.status == 503
    assert text.startswith("error trying to reach service: tls: failed to verify certificate: x509")
    patch = {"spec": {"caBundle": None, "insecureSkipTLSVerify": True}}  # type: ignore[dict-item]
    await kubectl(server, *merge, json.dumps(patch))
    async with client.get(f"{BASE}/flunders") as response:
        assert response.status == 200


async def test_a_namespace_is_emptied_of_what_others_serve_and_dependents_are_collected(
    server: Server, client: aiohttp.ClientSession, flunders: Flunders
) -> None:
    transport = HTTPSTransport(
        f"https://127.0.0.1:{server.port}",
        ca=server.authority.certificate,
        cert=server.admin[0],
        key=server.admin[1],
    )
    enabled = Options(enabled=("namespace-controller", "garbage-collector-controller"))
    running = asyncio.ensure_future(run_controllers(Client(transport), enabled))
    try:
        async with client.post("/api/v1/namespaces", json={"metadata": {"name": "x"}}) as response:
            assert response.status == 201
        core = "/api/v1/namespaces/x/configmaps"
        async with client.post(core, json={"metadata": {"name": "owner"}}) as response:
            owner = await response.json()
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner"}
        reference["uid"] = owner["metadata"]["uid"]
        collection = f"{BASE}/namespaces/x/flunders"
        kind = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Flunder"}
        for name, owners in (("kept", []), ("owned", [reference])):
            metadata = {"name": name, "ownerReferences": owners}
            async with client.post(collection, json={**kind, "metadata": metadata}) as response:
                assert response.status == 201
        async with client.delete(f"{core}/owner") as response:
            assert response.status == 200
        await gone(flunders, ("x", "owned"))
        assert ("x", "kept") in flunders.objects
        async with client.delete("/api/v1/namespaces/x") as response:
            assert response.status == 200
        await gone(flunders, ("x", "kept"))
        await kubectl(server, "wait", "--for=delete", "namespace/x")
    finally:
        running.cancel()
        await asyncio.wait([running])
        await transport.close()


async def gone(flunders: Flunders, key: tuple[str, str]) -> None:
    async with asyncio.timeout(60):
        while key in flunders.objects:  # noqa: ASYNC110 - the server's handlers change it
            await asyncio.sleep(0.05)
