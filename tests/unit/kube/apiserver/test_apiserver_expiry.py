from __future__ import annotations

import asyncio
from typing import Any

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


async def test_events_go_after_their_time_unless_they_were_told_again(
    store: SQLiteStore, tmp_path: Any
) -> None:
    server = APIServer(config(tmp_path, event_ttl=0.2), store)
    await server.open()
    api = API(server.transport(SELF))
    await api("POST", "events", event("once", now()))
    await api("POST", "events", event("again", now()))
    await asyncio.sleep(0.15)
    await api.merge("events/again", {"count": 2})
    await asyncio.sleep(0.12)
    assert await names(api) == ["again"]
    await asyncio.sleep(0.15)
    assert await names(api) == []
    await server.close()


async def test_a_restart_does_not_make_events_younger(store: SQLiteStore, tmp_path: Any) -> None:
    server = APIServer(config(tmp_path), store)
    await server.open()
    api = API(server.transport(SELF))
    await api("POST", "events", event("new", now()))
    await server.close()
    server = APIServer(config(tmp_path, event_ttl=-10), store)
    await server.open()
    for _ in range(500):
        if not await names(API(server.transport(SELF))):
            break
        await asyncio.sleep(0.01)
    assert await names(API(server.transport(SELF))) == []
    await server.close()
