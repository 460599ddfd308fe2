"""A clock for tests of what takes seconds: how fast the machine is counts nowhere."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes only while nobody has anything to do; for the running loop and for elections."""
    loop = asyncio.get_running_loop()
    selector, now = loop._selector, loop.time()  # type: ignore[attr-defined]
    select = selector.select

    def skip(timeout: float | None = None):
        nonlocal now
        if timeout is None:
            return select()
        events = select(0)
        if not events:
            now += timeout
        return events

    monkeypatch.setattr(selector, "select", skip)
    monkeypatch.setattr(loop, "time", lambda: now)
    monkeypatch.setattr("wherry.kube.client.election.time", SimpleNamespace(monotonic=lambda: now))
