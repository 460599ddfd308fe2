"""Evictions and the budgets they are asked of: the API server with the disruption controller."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from apiserver_process import Server

from wherry.kube.client.client import Client
from wherry.kube.client.https import HTTPSTransport
from wherry.kube.controllers import Options, run_controllers

CORE = "/api/v1/namespaces/default"
BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("apiserver")).start()
    running.kubectl("create", "serviceaccount", "default")
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log


@pytest.fixture
async def client(server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    context = ssl.create_default_context(cafile=str(server.authority.certificate))
    context.load_cert_chain(*map(str, server.admin))
    base = f"https://127.0.0.1:{server.port}"
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(base, connector=connector) as session:
        transport = HTTPSTransport(
            base, ca=server.authority.certificate, cert=server.admin[0], key=server.admin[1]
        )
        enabled = Options(enabled=("disruption-controller",))
        running = asyncio.ensure_future(run_controllers(Client(transport), enabled))
        yield session
        running.cancel()
        await asyncio.wait([running])
        await transport.close()
        for path in (f"{CORE}/pods", BUDGETS, f"{CORE}/replicationcontrollers"):
            async with session.delete(f"{path}?gracePeriodSeconds=0") as response:
                assert response.status == 200


async def pod(
    client: aiohttp.ClientSession, name: str, *, ready: bool = True, owner: Any = None
) -> None:
    metadata = {"name": name, "labels": {"app": "web"}}
    if owner:
        metadata["ownerReferences"] = [owner]
    spec = {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}
    async with client.post(f"{CORE}/pods", json={"metadata": metadata, "spec": spec}) as response:
        assert response.status == 201, await response.text()
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    status = {"phase": "Running", "conditions": [condition]}
    merge = {"Content-Type": "application/merge-patch+json"}
    path = f"{CORE}/pods/{name}/status"
    async with client.patch(path, json={"status": status}, headers=merge) as response:
        assert response.status == 200, await response.text()


async def budget(client: aiohttp.ClientSession, **spec: Any) -> None:
    o = {"metadata": {"name": "b"}, "spec": {"selector": {"matchLabels": {"app": "web"}}, **spec}}
    async with client.post(BUDGETS, json=o) as response:
        assert response.status == 201, await response.text()


async def status(client: aiohttp.ClientSession, **wanted: int) -> dict[str, Any]:
    """The budget's status, once it says so."""
    async with asyncio.timeout(60):
        path = f"{BUDGETS}?watch=true&sendInitialEvents=true&allowWatchBookmarks=true"
        async with client.get(f"{path}&resourceVersionMatch=NotOlderThan") as response:
            async for line in response.content:
                event = json.loads(line)
                found = event["object"].get("status") or {}
                fresh = found.get("observedGeneration") == event["object"]["metadata"].get(
                    "generation"
                )
                if event["type"] != "BOOKMARK" and fresh and wanted.items() <= found.items():
                    assert isinstance(found, dict)
                    return found
    raise AssertionError("unreachable")


async def evict(
    client: aiohttp.ClientSession, name: str, version: str = "policy/v1", **rest: Any
) -> tuple[int, dict[str, Any]]:
    o = {"apiVersion": version, "kind": "Eviction", "metadata": {"name": name}, **rest}
    async with client.post(f"{CORE}/pods/{name}/eviction", json=o) as response:
        return response.status, await response.json()


async def test_no_more_pods_go_than_the_budget_allows(client: aiohttp.ClientSession) -> None:
    for name in ("a", "b", "c"):
        await pod(client, name)
    await budget(client, minAvailable=2)
    found = await status(client, disruptionsAllowed=1)
    assert (found["currentHealthy"], found["desiredHealthy"], found["expectedPods"]) == (3, 2, 3)
    (said,) = found["conditions"]
    assert (said["type"], said["status"], said["reason"]) == (
        *("DisruptionAllowed", "True"),
        "SufficientPods",
    )
    answers = await asyncio.gather(*(evict(client, name) for name in ("a", "b", "c")))
    assert sorted(code for code, _ in answers) == [201, 429, 429]
    refused = next(body for code, body in answers if code == 429)
    assert refused["reason"] == "TooManyRequests"
    assert refused["message"] == (
        "Cannot evict pod as it would violate the pod's disruption budget."
    )
    (cause,) = refused["details"]["causes"]
    assert cause["reason"] == "DisruptionBudget"
    assert cause["message"] in (
        "The disruption budget b needs 2 healthy pods and has 2 currently",
        "The disruption budget b does not allow evicting pods currently",
        "The disruption budget b is still being processed by the server.",
    )
    found = await status(client, currentHealthy=2)
    assert found["disruptionsAllowed"] == 0


async def test_a_pod_that_is_evicted_says_so_and_old_clients_may_ask(
    client: aiohttp.ClientSession,
) -> None:
    await pod(client, "a")
    code, body = await evict(client, "a", "policy/v1beta1", deleteOptions={"dryRun": ["All"]})
    assert (code, body["status"]) == (201, "Success")
    async with client.get(f"{CORE}/pods/a") as response:
        assert "deletionTimestamp" not in (await response.json())["metadata"]
    code, body = await evict(client, "a", deleteOptions={"preconditions": {"resourceVersion": "1"}})
    assert (code, body["reason"]) == (409, "Conflict")
    code, body = await evict(client, "a", "policy/v1beta1")
    assert code == 201
    async with client.get(f"{CORE}/pods/a") as response:
        found = await response.json()
    assert found["metadata"]["deletionTimestamp"]
    (said,) = (c for c in found["status"]["conditions"] if c["type"] == "DisruptionTarget")
    assert (said["reason"], said["message"]) == (
        *("EvictionByEvictionAPI",),
        "Eviction API: evicting",
    )


async def test_pods_that_are_not_ready_go_by_the_budgets_policy(
    client: aiohttp.ClientSession,
) -> None:
    await pod(client, "good")
    await pod(client, "bad", ready=False)
    await budget(client, minAvailable=2)
    await status(client, currentHealthy=1, desiredHealthy=2)
    assert (await evict(client, "bad"))[0] == 429
    merge = {"Content-Type": "application/merge-patch+json"}
    spec = {"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}}
    async with client.patch(f"{BUDGETS}/b", json=spec, headers=merge) as response:
        assert response.status == 200
    assert (await evict(client, "bad"))[0] == 201
    assert (await evict(client, "good"))[0] == 429


async def test_of_two_budgets_for_a_pod_neither_is_believed(client: aiohttp.ClientSession) -> None:
    await pod(client, "a")
    await budget(client, minAvailable=0)
    o = {"metadata": {"name": "b2"}, "spec": {"selector": {}, "maxUnavailable": 1}}
    async with client.post(BUDGETS, json=o) as response:
        assert response.status == 201
    code, body = await evict(client, "a")
    assert (code, body["message"]) == (
        500,
        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not "
        "support.",
    )


async def test_a_percentage_is_of_what_the_owners_want(client: aiohttp.ClientSession) -> None:
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    o = {
        "metadata": {"name": "rc"},
        "spec": {"replicas": 4, "selector": {"app": "web"}, "template": template},
    }
    async with client.post(f"{CORE}/replicationcontrollers", json=o) as response:
        made = await response.json()
    owner = {
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "name": "rc",
        "uid": made["metadata"]["uid"],
        "controller": True,
    }
    await pod(client, "a", owner=owner)
    await pod(client, "b", owner=owner)
    await budget(client, maxUnavailable="50%")
    found = await status(client, expectedPods=4)
    assert (found["desiredHealthy"], found["disruptionsAllowed"]) == (2, 0)
    merge = {"Content-Type": "application/merge-patch+json"}
    path = f"{CORE}/replicationcontrollers/rc/scale"
    async with client.patch(path, json={"spec": {"replicas": 2}}, headers=merge) as response:
        assert response.status == 200
    await status(client, expectedPods=2, desiredHealthy=1, disruptionsAllowed=1)


async def test_kubectl_drain_waits_for_the_budget(
    client: aiohttp.ClientSession, server: Server
) -> None:
    async with client.post("/api/v1/nodes", json={"metadata": {"name": "n"}}) as response:
        assert response.status in (201, 409)
    await pod(client, "a")
    await budget(client, minAvailable=1)
    await status(client, currentHealthy=1)
    done = await asyncio.to_thread(
        server.kubectl, "drain", "n", "--force", "--timeout=5s", ok=False
    )
    assert "Cannot evict pod as it would violate the pod's disruption budget." in done.err
