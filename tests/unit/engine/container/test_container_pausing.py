"""Pausing a container whose process ends at its own time."""

from types import SimpleNamespace

import pytest
from containers_helper import make

from wherry.engine.container.container import Run
from wherry.engine.container.pausing import Pausing
from wherry.engine.errors import Conflict


class World:
    """A container that runs; ``at_work`` is what happens while the runtime is at it."""

    def __init__(self):
        self.container = make()
        self.container.state.running = True
        self.container.run = Run()
        self.told = []
        self.at_work = lambda: None
        lifecycle = SimpleNamespace(
            runtime=SimpleNamespace(pause=self._work, resume=self._work),
            note=lambda container: None,
            publish=lambda container, action: self.told.append(action),
        )
        health = SimpleNamespace(end=lambda _: None, go_on=lambda _: self.told.append("probes"))
        self.pausing = Pausing(lifecycle, health)

    async def _work(self, id):
        self.at_work()

    def end(self):
        self.container.run.status = object()
        self.container.state.running = self.container.state.paused = False


async def test_what_stands_still_goes_on():
    world = World()
    async with world.pausing.held_still(world.container, pause=True):
        assert world.container.state.paused
    assert not world.container.state.paused
    assert world.told == ["pause", "probes", "unpause"]


async def test_what_ends_while_it_is_paused_is_not_paused_for_ever():
    world = World()
    world.at_work = world.end
    with pytest.raises(Conflict, match="is not running"):
        await world.pausing.pause(world.container)
    assert not world.container.state.paused and world.told == []


async def test_what_ends_while_it_goes_on_is_probed_no_more():
    world = World()
    await world.pausing.pause(world.container)
    world.at_work = world.end
    await world.pausing.unpause(world.container)
    assert world.told == ["pause"]
