from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from test_scheduler import Bench

from wherry.kube.api import meta
from wherry.kube.api.resources import EVENTS, PODS
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

    async def preempt(request: web.Request) -> web.Response:
        """Whatever is on n2 stays."""
        body = await request.json()
        asked.append(body)
        if (given := body.get("NodeNameToMetaVictims")) is None:
            given = {
                node: {"Pods": [{"UID": pod["metadata"]["uid"]} for pod in victims["Pods"]]}
                for node, victims in body["NodeNameToVictims"].items()
            }
        left = {node: victims for node, victims in given.items() if node != "n2"}
        return web.json_response({"NodeNameToMetaVictims": left})

    app = web.Application()
    app.add_routes([web.post("/filter", filter), web.post("/prioritize", prioritize)])
    app.add_routes([web.post("/preempt", preempt)])
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
        await bench.pod("after")  # now all of them are known
        await bench.placed("after")
        assert bench.place("after") == "n3"


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


async def test_all_reasons_are_told_those_of_plugins_and_those_of_extenders(service):
    url, _ = service
    async with Bench(configured(url)) as bench:
        await bench.node("n1")
        await bench.node("n2", cpu="1")
        await bench.pod("web", cpu="2")
        assert await bench.refusal("web") == (
            "0/2 nodes are available: 1 Insufficient cpu, 1 ends with 1. preemption: "
            "0/2 nodes are available: 1 No preemption victims found for incoming pod, "
            "1 Preemption is not helpful for scheduling."
        )
        await bench.node("n3")
        await bench.placed("web")


@pytest.mark.parametrize("cached", [True, False])
async def test_an_extender_decides_who_has_to_go(service, cached):
    url, asked = service
    settings = ExtenderSettings(url, preempt_verb="preempt", node_cache_capable=cached)
    async with Bench(Configuration(extenders=(settings,))) as bench:
        for name in ("n2", "n3"):
            await bench.node(name, cpu="1")
        # What is on n2 is worth less, so that it would have to go.
        await bench.pod("cheap", cpu="1", priority=1, nodeName="n2")
        await bench.pod("dear", cpu="1", priority=5, nodeName="n3")
        await bench.until(lambda: len(bench.api.find(PODS)) == 2)
        await bench.pod("web", cpu="1", priority=9)
        await bench.until(lambda: meta.is_deleting(bench.api.get(PODS, "dear", "default")))
        assert not meta.is_deleting(bench.api.get(PODS, "cheap", "default"))
        told = asked[0]["NodeNameToMetaVictims" if cached else "NodeNameToVictims"]
        assert told.keys() == {"n2", "n3"}
        await bench.client.delete(PODS, "dear", "default", grace=0)
        await bench.placed("web")
        assert bench.place("web") == "n3"


async def test_resources_that_an_extender_counts_are_left_to_it(service):
    url, asked = service
    gpu = ("example.com/gpu",)
    async with Bench(configured(url, managed_resources=gpu, ignored_resources=gpu)) as bench:
        await bench.node("n2")  # has none, as far as the scheduler knows
        await bench.pod("gpu", container={"resources": {"requests": {"example.com/gpu": "1"}}})
        await bench.placed("gpu")
        assert len(asked) == 1


async def test_an_extender_that_cannot_be_asked_is_told_of_and_asked_again():
    settings = ExtenderSettings("http://127.0.0.1:9", "filter")
    async with Bench(Configuration(initial_backoff=0.01, extenders=(settings,))) as bench:
        await bench.node("n1")
        await bench.pod("web")
        found = await bench.until(lambda: bench.condition("web"))
        assert found["reason"] == "SchedulerError"
        assert found["message"].startswith("extender http://127.0.0.1:9/filter: Cannot connect")
        events = await bench.until(lambda: bench.api.find(EVENTS))
        assert events[0]["reason"] == "FailedScheduling"
        assert bench.place("web") is None
