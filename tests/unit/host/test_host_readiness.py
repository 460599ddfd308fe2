"""Waiting for descriptors and directories without polling."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from wherry.host.inotify import Directory
from wherry.host.readiness import readable, writable


async def test_readable_returns_when_any_has_data_or_ended() -> None:
    first, first_end = os.pipe()
    second, second_end = os.pipe()
    waiting = asyncio.create_task(readable(first, second))
    await asyncio.sleep(0)
    assert not waiting.done()
    os.write(second_end, b"x")
    await asyncio.wait_for(waiting, 60)
    os.read(second, 1)
    os.close(first_end)
    await asyncio.wait_for(readable(first, second), 60)
    for descriptor in (first, second, second_end):
        os.close(descriptor)


async def test_writable_returns_when_there_is_room() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writing, bytes(65536))
    waiting = asyncio.create_task(writable(writing))
    await asyncio.sleep(0)
    os.read(reading, 1 << 20)
    await asyncio.wait_for(waiting, 60)
    os.close(reading)
    os.close(writing)


async def test_a_cancelled_wait_leaves_the_descriptor_free() -> None:
    reading, writing = os.pipe()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await readable(reading)
    os.write(writing, b"x")
    await asyncio.wait_for(readable(reading), 60)
    os.close(reading)
    os.close(writing)


async def test_a_new_name_in_a_directory_is_noticed(tmp_path: Path) -> None:
    never: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    with Directory(tmp_path) as watch:
        (tmp_path / "early").touch()
        await asyncio.wait_for(watch.changed_or(never), 60)
        waiting = asyncio.create_task(watch.changed_or(never))
        await asyncio.sleep(0)
        (tmp_path / "late.new").touch()
        (tmp_path / "late.new").rename(tmp_path / "late")
        await asyncio.wait_for(waiting, 60)
        never.set_result(0)
        await asyncio.wait_for(watch.changed_or(never), 60)


async def test_a_directory_that_is_not_there_cannot_be_watched(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), Directory(tmp_path / "none"):
        pass
