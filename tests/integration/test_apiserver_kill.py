"""Kill -9 in the middle of writing connections: what was acknowledged is there, watches resume."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import ssl
from pathlib import Path

import aiohttp
from apiserver_process import Server

MAPS = "/api/v1/namespaces/default/configmaps"
ROUNDS = 10
WRITERS = 32


def session(server: Server) -> aiohttp.ClientSession:
    context = ssl.create_default_context(cafile=str(server.authority.certificate))
    context.load_cert_chain(*map(str, server.admin))
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    return aiohttp.ClientSession(f"https://127.0.0.1:{server.port}", connector=connector)


async def write(client: aiohttp.ClientSession, writer: str, acknowledged: dict[str, str]) -> None:
    """Make one object after another until the server is gone."""
    for n in range(1_000_000):
        name = f"{writer}-{n}"
        async with client.post(MAPS, json={"metadata": {"name": name}}) as response:
            body = await response.json()
            assert response.status == 201, body
            acknowledged[name] = body["metadata"]["resourceVersion"]


async def watch(client: aiohttp.ClientSession, told: list[tuple[str, str]], after: str) -> None:
    """Collect (revision, name) of what is added behind ``after``, until the server is gone."""
    query = {"watch": "1", "resourceVersion": told[-1][0] if told else after}
    async with client.get(MAPS, params=query) as response:
        async for line in response.content:
            event = json.loads(line)
            assert event["type"] == "ADDED", event
            metadata = event["object"]["metadata"]
            told.append((metadata["resourceVersion"], metadata["name"]))


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
            await asyncio.sleep(random.uniform(0.2, 0.5))
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
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await watch(client, told, start)
        told_names = [name for _, name in told]
        assert len(told_names) == len(set(told_names))
        assert set(told_names) == present.keys()
    server.stop()
