"""A full disk: writes are refused clearly, reads and watches go on, and all of it comes back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from apiserver_clients import session
from apiserver_process import Server

from wherry.kube.store.opening import open_store
from wherry.kube.store.types import StoreUnavailable

MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Its data lies on a disk of 16 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], check=True)
    running = Server(disk)
    try:
        running.start()
        yield running
        running.stop()
    finally:
        if running.process is not None:
            running.kill()
        subprocess.run(["umount", "-l", disk], check=True)


def fill(disk: Path) -> None:
    """Leave not a byte."""
    with (disk / "ballast").open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


async def make(client: aiohttp.ClientSession, name: str, size: int = 1000) -> tuple[int, dict]:
    body = {"metadata": {"name": name}, "data": {"x": "x" * size}}
    async with client.post(MAPS, json=body) as answer:
        return answer.status, await answer.json()


async def until_refused(client: aiohttp.ClientSession, stem: str) -> tuple[list[str], dict]:
    """Make objects until one is refused: those that were made, and the refusal."""
    made: list[str] = []
    while True:
        code, body = await make(client, f"{stem}-{len(made)}", 20_000)
        if code != 201:
            return made, body
        made.append(body["metadata"]["name"])


async def test_writes_are_refused_reads_and_watches_go_on(server: Server) -> None:
    async with session(server) as client:
        assert (await make(client, "early"))[0] == 201
        fill(server.directory)
        made, status = await until_refused(client, "full")
        assert status["kind"] == "Status"
        assert (status["code"], status["reason"]) == (500, "InternalError")
        assert "database or disk is full" in status["message"]

        async with client.get(MAPS) as answer:  # reads, and a new watch
            listed = await answer.json()
        names = {o["metadata"]["name"] for o in listed["items"]}
        assert {"early", *made} <= names
        revision = listed["metadata"]["resourceVersion"]
        query = {"watch": "1", "resourceVersion": revision}
        async with client.get(MAPS, params=query) as watch:
            for _ in range(5):  # refused again and again, and nothing of it is seen
                assert (await make(client, "refused", 20_000))[0] == 500
            async with client.get(f"{MAPS}/refused") as answer:
                assert answer.status == 404

            (server.directory / "ballast").unlink()
            code, late = await make(client, "late")
            assert code == 201
            event = json.loads(await watch.content.readline())
            assert event["type"] == "ADDED"
            assert event["object"]["metadata"]["name"] == "late"
            assert (
                event["object"]["metadata"]["resourceVersion"]
                == (late["metadata"]["resourceVersion"])
            )
    server.kill()
    server.start()
    async with session(server) as client, client.get(MAPS) as answer:
        after = {o["metadata"]["name"] for o in (await answer.json())["items"]}
    assert after == {*names, "late"}


async def test_a_store_on_a_full_disk_says_why_it_cannot_be_opened(server: Server) -> None:
    server.stop()
    fill(server.directory)
    with pytest.raises(StoreUnavailable, match="there is no space left on its disk"):
        await open_store("sqlite", server.directory)
    (server.directory / "ballast").unlink()
    await (await open_store("sqlite", server.directory)).close()
    server.start()
