"""Run several endless coroutines together, until told to stop or until one of them ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def run_until(stop: asyncio.Event, *work: Coroutine[Any, Any, Any]) -> None:
    """Run all of ``work`` until ``stop`` is set, or one of it ends; then cancel the others and wait
    for their end.

    Raises:
        Exception: what ended one of them; the others have been cancelled by then.
    """
    tasks = [asyncio.create_task(coroutine) for coroutine in work]
    stopped = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in [*tasks, stopped]:
            task.cancel()
        await asyncio.gather(*tasks, stopped, return_exceptions=True)
