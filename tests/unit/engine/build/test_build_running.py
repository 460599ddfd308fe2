"""A build that is given up while it changes a container."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from wherry.engine.build.options import Options
from wherry.engine.build.output import Output
from wherry.engine.build.running import Runner
from wherry.engine.build.settings import Settings


class Containers:
    """Each call takes until ``go_on`` is set, and notes how far it came."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.done: list[str] = []

    async def create(self, request: object) -> tuple[object, list[str]]:
        await self._take("create")
        return SimpleNamespace(id="c" * 64), []

    async def remove(self, reference: str, *, force: bool, volumes: bool) -> None:
        await self._take("remove")

    async def _take(self, name: str) -> None:
        self.begun.set()
        await self.go_on.wait()
        self.done.append(name)


async def deaf(message: object) -> None:
    raise ConnectionResetError


async def test_a_container_made_for_a_build_given_up_goes_again() -> None:
    containers = Containers()
    runner = Runner(containers, Options(), "b")  # type: ignore[arg-type]
    image = SimpleNamespace(id="sha256:1")
    step = asyncio.create_task(
        runner.run(image, Settings(), ["true"], (), Output(deaf))  # type: ignore[arg-type]
    )
    await containers.begun.wait()
    step.cancel()
    containers.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert containers.done == ["create", "remove"]


async def test_a_removal_comes_to_its_end_without_the_build() -> None:
    containers = Containers()
    runner = Runner(containers, Options(), "b")  # type: ignore[arg-type]
    box = SimpleNamespace(id="c" * 64)
    removal = asyncio.create_task(runner.remove(box, None))  # type: ignore[arg-type]
    await containers.begun.wait()
    removal.cancel()
    containers.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await removal
    assert containers.done == ["remove"]


async def test_a_container_goes_when_nobody_listens_any_more() -> None:
    containers = Containers()
    containers.go_on.set()
    runner = Runner(containers, Options(), "b")  # type: ignore[arg-type]
    output = Output(deaf)
    await output.go_live()
    with pytest.raises(ConnectionResetError):
        await runner.remove(SimpleNamespace(id="c" * 64), output)  # type: ignore[arg-type]
    assert containers.done == ["remove"]
