"""Kill -9 in the middle of writing connections: what was acknowledged is there, watches resume."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from pathlib import Path

import aiohttp
from apiserver_clients import session
from apiserver_process import Server

MAPS = "/api/v1/namespaces/default/configmaps"
ROUNDS = int(os.environ.get("WHERRY_KILL_ROUNDS", "4"))
"""How often the server is killed; fifty times is what was promised."""
WRITERS = 32


async def write(client: aiohttp.ClientSession, writer: str, acknowledged: dict[str, str]) -> None:
    """Make one object after another until the server is gone."""
    for n in range(1_000_000):
        name = f"{writer}-{n}"
        async with client.post(MAPS, json={"metadata": {"name": name}}) as response:
            body = await response.json()
            assert response.status == 201, body
            acknowledged[name] = body["metadata"]["resourceVersion"]


async def watch(
    client: aiohttp.ClientSession, told: list[tuple[str, str]], after: str, count: int = -1
) -> None:
    """Collect (revision, name) of what is added behind ``after``, until the server is gone or so
    many were told."""
    query = {"watch": "1", "resourceVersion": told[-1][0] if told else after}
    async with client.get(MAPS, params=query) as response:
        async for line in response.content:
            event = json.loads(line)
            assert event["type"] == "ADDED", event
            metadata = event["object"]["metadata"]
            told.append((metadata["resourceVersion"], metadata["name"]))
            if len(told) == count:
                return


async def test_nothing_acknowledged_is_lost_and_watches_have_no_gap(tmp_path: Path) -> None:
    server = Server(tmp_path)
    acknowledged: dict[str, str] = {}
    told: list[tuple[str, str]] = []
    start = ""
    for attempt in range(ROUNDS):
        server.start()
        async with session(server) as client:
            if not start:
                async with client.get(MAPS) as response:
                    start = (await response.json())["metadata"]["resourceVersion"]
            watching = asyncio.ensure_future(watch(client, told, start))
            writers = [
                asyncio.ensure_future(write(client, f"w{attempt}-{n}", acknowledged))
                for n in range(WRITERS)
            ]
            enough = len(acknowledged) + random.randint(WRITERS + 1, 8 * WRITERS)
            async with asyncio.timeout(120):
                while len(acknowledged) < enough:  # noqa: ASYNC110 - the count is what is waited for
                    await asyncio.sleep(0.01)
            server.kill()
            for task in (watching, *writers):
                with contextlib.suppress(aiohttp.ClientError, ConnectionError, ValueError):
                    await task
    server.start()
    async with session(server) as client:
        async with client.get(MAPS) as response:
            items = (await response.json())["items"]
        present = {o["metadata"]["name"]: o["metadata"]["resourceVersion"] for o in items}
        assert len(acknowledged) > ROUNDS * WRITERS
        assert acknowledged.items() <= present.items()
        if len(told) < len(present):
            async with asyncio.timeout(120):
                await watch(client, told, start, len(present))
        revisions = [int(revision) for revision, _ in told]
        assert revisions == sorted(set(revisions))
        assert [name for _, name in told] == sorted(present, key=lambda name: int(present[name]))
    server.stop()


async def churn(client: aiohttp.ClientSession, writer: str, done: list[str]) -> None:
    """Make Services, and delete every other one, until the server is gone."""
    services = "/api/v1/namespaces/default/services"
    for n in range(1_000_000):
        name = f"{writer}-{n}"
        body = {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}}
        async with client.post(services, json=body) as response:
            assert response.status == 201, await response.text()
        if n % 2:
            async with client.delete(f"{services}/{name}") as response:
                assert response.status == 200, await response.text()
        done.append(name)


async def test_every_service_has_its_address_and_no_other_is_taken(tmp_path: Path) -> None:
    server = Server(tmp_path)
    done: list[str] = []
    for attempt in range(2):
        server.start()
        async with session(server) as client:
            writers = [
                asyncio.ensure_future(churn(client, f"w{attempt}-{n}", done))
                for n in range(WRITERS)
            ]
            enough = len(done) + random.randint(WRITERS + 1, 4 * WRITERS)
            async with asyncio.timeout(120):
                while len(done) < enough:  # noqa: ASYNC110 - the count is what is waited for
                    await asyncio.sleep(0.01)
            server.kill()
            for task in writers:
                with contextlib.suppress(aiohttp.ClientError, ConnectionError, ValueError):
                    await task
    server.start()
    async with session(server) as client:
        found = []
        for path in (
            "/api/v1/services",
            "/apis/networking.k8s.io/v1/ipaddresses",
            "/api/v1/events",
        ):
            async with client.get(path) as response:
                found.append((await response.json())["items"])
        services, addresses, events = found
        assert {o["spec"]["clusterIP"] for o in services} == {
            o["metadata"]["name"] for o in addresses
        }
        assert len(services) == len(addresses)
        assert not [o for o in events if "IP" in o["reason"]]  # nothing had to be repaired
    server.stop()
