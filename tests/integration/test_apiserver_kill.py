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
            async with asyncio.timeout(60):
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
            async with asyncio.timeout(60):
                await watch(client, told, start, len(present))
        revisions = [int(revision) for revision, _ in told]
        assert revisions == sorted(set(revisions))
        assert [name for _, name in told] == sorted(present, key=lambda name: int(present[name]))
    server.stop()
