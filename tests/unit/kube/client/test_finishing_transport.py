from __future__ import annotations

import asyncio
from typing import Any

import pytest

from wherry.kube.api.resources import CONFIG_MAPS
from wherry.kube.client.client import Client
from wherry.kube.client.finishing import FinishingTransport

BODY = {"metadata": {"name": "a", "namespace": "default"}}


class Slow:
    def __init__(self) -> None:
        self.done: list[str] = []

    async def request(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        await asyncio.sleep(0.02)
        self.done.append(method)
        if path.endswith("/broken"):
            raise ConnectionError("broken")
        return {}


async def test_a_write_under_way_is_over_before_its_task_is():
    inner = Slow()
    client = Client(FinishingTransport(inner))  # type: ignore[arg-type]
    task = asyncio.ensure_future(client.create(CONFIG_MAPS, BODY))
    await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert inner.done == ["POST"]


async def test_a_read_is_not_waited_for():
    inner = Slow()
    client = Client(FinishingTransport(inner))  # type: ignore[arg-type]
    task = asyncio.ensure_future(client.get(CONFIG_MAPS, "a", "default"))
    await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert inner.done == []


async def test_answers_and_failures_come_through():
    client = Client(FinishingTransport(Slow()))  # type: ignore[arg-type]
    assert await client.create(CONFIG_MAPS, BODY) == {}
    with pytest.raises(ConnectionError, match="broken"):
        await client.delete(CONFIG_MAPS, "broken", "default")
