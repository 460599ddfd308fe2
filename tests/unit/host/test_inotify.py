"""Paths that are awaited: told once they are there, whatever part of them was missing."""

from __future__ import annotations

import asyncio
from pathlib import Path

from descriptors import descriptors
from wherry.host.inotify import Appearance


async def _told(path: Path, make: list[Path]) -> bool:
    came = asyncio.Event()
    awaited = Appearance(path, came.set)
    try:
        for directory in make:
            directory.mkdir(parents=True)
            await asyncio.sleep(0)
        try:
            async with asyncio.timeout(60 if path in make else 0.1):
                await came.wait()
        except TimeoutError:
            return False
        return True
    finally:
        awaited.close()


async def test_a_path_that_comes_is_told(tmp_path: Path) -> None:
    assert await _told(tmp_path / "a", [tmp_path / "a"])


async def test_any_part_of_the_path_may_be_missing_and_come_at_once_or_one_by_one(
    tmp_path: Path,
) -> None:
    deep = tmp_path / "a" / "b" / "c"
    assert await _told(deep, [deep])
    other = tmp_path / "d" / "e" / "f"
    assert await _told(other, [tmp_path / "d", tmp_path / "d" / "e", other])


async def test_what_comes_beside_it_is_not_told(tmp_path: Path) -> None:
    assert not await _told(tmp_path / "a", [tmp_path / "b", tmp_path / "aa"])


async def test_a_file_that_another_one_replaces_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    came = asyncio.Event()
    awaited = Appearance(path, came.set)
    path.unlink()
    path.mkdir()
    async with asyncio.timeout(60):
        await came.wait()
    awaited.close()


async def test_nothing_stays_open_when_nobody_waits(tmp_path: Path) -> None:
    before = descriptors()
    first, second = (Appearance(tmp_path / name, lambda: None) for name in "ab")
    for awaited in (first, second, second):
        awaited.close()
    assert not descriptors() - before
