from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from apiserver_harness import API, Object, config

from wherry.kube.api.meta import now
from wherry.kube.apiserver.server import SELF, APIServer
from wherry.kube.store.sqlite import SQLiteStore


def event(name: str, last: str) -> Object:
    return {
        "metadata": {"name": name},
        "involvedObject": {"kind": "Pod", "name": "web", "namespace": "default"},
        "reason": "Started",
        "lastTimestamp": last,
        "count": 1,
    }


async def names(api: API) -> list[str]:
    return [o["metadata"]["name"] for o in (await api("GET", "events"))["items"]]


async def until(names: Callable[[], Awaitable[list[str]]], wanted: list[str]) -> None:
    async with asyncio.timeout(60):
        while await names() != wanted:  # noqa: ASYNC110 - nobody is told of it
            await asyncio.sleep(0.01)


async def test_events_go_after_their_time_unless_they_were_told_again(
    store: SQLiteStore, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = time.time()
    clock = SimpleNamespace(time=lambda: moment)
    monkeypatch.setattr("wherry.kube.apiserver.expiry.time", clock)
    server = APIServer(config(tmp_path, event_ttl=0.2), store)
    await server.open()
    api = API(server.transport(SELF))
    await api("POST", "events", event("once", now()))
    await api("POST", "events", event("again", now()))
    moment += 0.15
    await api.merge("events/again", {"count": 2})
    moment += 0.12
    await until(lambda: names(api), ["again"])
    await asyncio.sleep(0.1)
    assert await names(api) == ["again"]
    moment += 0.15
    await until(lambda: names(api), [])
    await server.close()


async def test_a_restart_does_not_make_events_younger(store: SQLiteStore, tmp_path: Any) -> None:
    server = APIServer(config(tmp_path), store)
    await server.open()
    api = API(server.transport(SELF))
    await api("POST", "events", event("new", now()))
    await server.close()
    server = APIServer(config(tmp_path, event_ttl=-10), store)
    await server.open()
    await until(lambda: names(API(server.transport(SELF))), [])
    await server.close()
