"""Standing still and going on: the processes of a container, frozen for a while."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

from wherry.engine.container.container import Container
from wherry.engine.container.health import HealthMonitors
from wherry.engine.container.lifecycle import Lifecycle
from wherry.engine.errors import Conflict, EngineError
from wherry.runtime.types import RuntimeFailure

log = logging.getLogger(__name__)


class Pausing:
    """Freezes containers and lets them go on; what is frozen is not probed for its health."""

    def __init__(self, lifecycle: Lifecycle, health: HealthMonitors) -> None:
        self._lifecycle = lifecycle
        self._health = health

    async def pause(self, container: Container) -> None:
        """Freeze its processes.

        Raises:
            Conflict: it does not run, or is frozen already.
        """
        async with container.lock:
            await self._pause(container)

    async def _pause(self, container: Container) -> None:
        state = container.state
        if not state.running:
            raise Conflict(f"container {container.id} is not running")
        if state.paused:
            raise Conflict(f"Container {container.id} is already paused")
        if state.restarting:
            raise restarting(container)
        run = container.run
        await _done(self._lifecycle.runtime.pause(container.id), "pause", container)
        if run is None or container.run is not run or run.status is not None:
            raise Conflict(f"container {container.id} is not running")  # it ended meanwhile
        state.paused = True
        self._health.end(container)
        self._lifecycle.note(container)
        self._lifecycle.publish(container, "pause")

    async def unpause(self, container: Container) -> None:
        """Let its processes go on.

        Raises:
            Conflict: it is not frozen.
        """
        async with container.lock:
            await self._unpause(container)

    async def _unpause(self, container: Container) -> None:
        if not container.state.paused:
            raise Conflict(f"Container {container.id} is not paused")
        await _done(self._lifecycle.runtime.resume(container.id), "unpause", container)
        if not container.state.paused:
            return  # it ended meanwhile
        container.state.paused = False
        self._health.go_on(container)
        self._lifecycle.note(container)
        self._lifecycle.publish(container, "unpause")

    @asynccontextmanager
    async def held_still(self, container: Container, *, pause: bool) -> AsyncIterator[None]:
        """Nobody starts, removes or changes it meanwhile; with ``pause`` its processes stand still.

        One that has ended just now stands still by itself.
        """
        async with container.lock:
            state = container.state
            paused = pause and state.running and not (state.paused or state.restarting)
            if paused:
                try:
                    await self._pause(container)
                except EngineError as error:
                    log.info("not paused: %s", error.message)
                    paused = False
            try:
                yield
            finally:
                if paused and state.paused:
                    await self._unpause(container)


async def _done(work: Awaitable[None], verb: str, container: Container) -> None:
    try:
        await work
    except RuntimeFailure as failure:
        raise EngineError(f"cannot {verb} container {container.id}: {failure.message}") from failure


def restarting(container: Container) -> Conflict:
    """What one is told who wants something of a container that waits for its next start."""
    return Conflict(f"Container {container.id} is restarting, wait until the container is running")
