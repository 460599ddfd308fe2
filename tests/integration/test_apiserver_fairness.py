"""One who floods the API server waits behind the others, and is refused at last; they are not."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from apiserver_clients import PODS, Connection, make_pods, session
from apiserver_process import Server

Pair = tuple[Path, Path]

CONNECTIONS = 200
LEVELS = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations"
SCHEMAS = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path).start()
    yield running
    running.stop()


async def users(server: Server) -> tuple[Pair, Pair]:
    """Two who may read everything, in the level of those of whom nothing is known."""
    subject = {"kind": "Group", "name": "readers", "apiGroup": "rbac.authorization.k8s.io"}
    role = {"kind": "ClusterRole", "name": "cluster-admin", "apiGroup": subject["apiGroup"]}
    binding = {"metadata": {"name": "readers"}, "subjects": [subject], "roleRef": role}
    path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    async with session(server) as admin, admin.post(path, json=binding) as made:
        assert made.status == 201, await made.text()
    authority = server.authority
    return authority.issue("flood", "flood", "readers"), authority.issue("calm", "calm", "readers")


async def test_one_users_flood_of_lists_does_not_go_before_anothers_request(
    server: Server,
) -> None:
    await make_pods(server, 250, weight=1000)
    flooding, calm = await users(server)
    flood = [await Connection.open(server, flooding) for _ in range(CONNECTIONS)]
    other = await Connection.open(server, calm)
    order: list[str] = []

    async def listed(connection: Connection) -> None:
        code, headers, found = await connection.answer()
        assert code == 200 and len(found["items"]) == 250
        assert headers["x-kubernetes-pf-prioritylevel-uid"]
        order.append("flood")

    reading = [asyncio.ensure_future(listed(connection)) for connection in flood]
    for connection in flood:
        connection.ask(PODS)
    other.ask(f"{PODS}/p-00000")
    code, headers, _ = await other.answer()
    order.append("calm")
    assert code == 200 and headers["x-kubernetes-pf-flowschema-uid"]
    await asyncio.gather(*reading)
    assert order.index("calm") < CONNECTIONS / 2
    for connection in (*flood, other):
        await connection.close()


async def test_a_level_with_few_seats_refuses_a_flood_and_nobody_else(server: Server) -> None:
    await make_pods(server, 250, weight=1000)
    async with session(server) as admin:
        queuing = {"queues": 1, "handSize": 1, "queueLengthLimit": 5}
        level = {
            "metadata": {"name": "narrow"},
            "spec": {
                "type": "Limited",
                "limited": {
                    "nominalConcurrencyShares": 1,
                    "limitResponse": {"type": "Queue", "queuing": queuing},
                },
            },
        }
        schema = {
            "metadata": {"name": "narrow"},
            "spec": {
                "matchingPrecedence": 50,
                "priorityLevelConfiguration": {"name": "narrow"},
                "distinguisherMethod": {"type": "ByUser"},
                "rules": [
                    {
                        "subjects": [{"kind": "User", "user": {"name": "flood"}}],
                        "resourceRules": [
                            {
                                "verbs": ["list"],
                                "apiGroups": [""],
                                "resources": ["pods"],
                                "namespaces": ["*"],
                            }
                        ],
                    }
                ],
            },
        }
        uids = []
        for path, o in ((LEVELS, level), (SCHEMAS, schema)):
            async with admin.post(path, json=o) as made:
                assert made.status == 201, await made.text()
                uids.append((await made.json())["metadata"]["uid"])
    flooding, calm = await users(server)
    flood = [await Connection.open(server, flooding) for _ in range(CONNECTIONS)]
    other = await Connection.open(server, calm)
    for connection in flood:
        connection.ask(PODS)
    codes: Counter[int] = Counter()
    for n, answered in enumerate(
        asyncio.as_completed([connection.answer() for connection in flood])
    ):
        code, headers, body = await answered
        codes[code] += 1
        assert headers["x-kubernetes-pf-prioritylevel-uid"] == uids[0]
        assert headers["x-kubernetes-pf-flowschema-uid"] == uids[1]
        if code == 429:
            assert headers["retry-after"] == "1"
            assert body["reason"] == "TooManyRequests"
        if n % 20 == 0:
            other.ask(PODS)
            assert (await other.answer())[0] == 200
    assert codes.keys() == {200, 429}
    assert codes[200] >= 6  # those with seats, and those in the queue
    for connection in (*flood, other):
        await connection.close()
