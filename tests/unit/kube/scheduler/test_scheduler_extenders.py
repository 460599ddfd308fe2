from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from test_scheduler import Bench

from wherry.kube.scheduler import Configuration
from wherry.kube.scheduler.config import ExtenderSettings


@pytest.fixture
async def service() -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """An extender that takes no node whose name ends with 1, and likes 3 best."""
    asked: list[dict[str, Any]] = []

    async def filter(request: web.Request) -> web.Response:
        body = await request.json()
        asked.append(body)
        names = body["NodeNames"]
        failed = {name: "ends with 1" for name in names if name.endswith("1")}
        kept = [name for name in names if name not in failed]
        return web.json_response({"NodeNames": kept, "FailedNodes": failed})

    async def prioritize(request: web.Request) -> web.Response:
        names = (await request.json())["NodeNames"]
        return web.json_response([{"Host": n, "Score": 10 * n.endswith("3")} for n in names])

    app = web.Application()
    app.add_routes([web.post("/filter", filter), web.post("/prioritize", prioritize)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}", asked
    await runner.cleanup()


def configured(url: str, **more: Any) -> Configuration:
    settings = ExtenderSettings(
        url, "filter", "prioritize", weight=5, node_cache_capable=True, **more
    )
    return Configuration(initial_backoff=0.01, extenders=(settings,))


async def test_an_extender_rejects_and_prefers(service):
    url, _ = service
    async with Bench(configured(url)) as bench:
        await bench.node("n1")
        await bench.pod("web")
        assert "0/1 nodes are available: 1 ends with 1." in await bench.refusal("web")
        for name in ("n2", "n3", "n4"):
            await bench.node(name)
        await bench.placed("web")
        assert bench.place("web") == "n3"


async def test_an_extender_hears_only_of_pods_that_ask_for_its_resources(service):
    url, asked = service
    managed = ("example.com/gpu",)
    async with Bench(configured(url, managed_resources=managed)) as bench:
        await bench.node("n2", allocatable={"example.com/gpu": "1"})
        await bench.pod("plain")
        await bench.placed("plain")
        assert asked == []
        requests = {"requests": {"example.com/gpu": "1"}}
        await bench.pod("gpu", container={"resources": requests})
        await bench.placed("gpu")
        assert len(asked) == 1


async def test_one_that_cannot_be_asked_holds_pods_up_unless_it_may_be_ignored():
    gone = "http://127.0.0.1:9"
    async with Bench(configured(gone, ignorable=True)) as bench:
        await bench.node("n1")
        await bench.pod("web")
        await bench.placed("web")
