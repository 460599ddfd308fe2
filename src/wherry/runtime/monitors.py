"""The instance's monitor as the runtime sees it: always there, whichever process it is just now."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterable

from wherry.runtime import cgroups
from wherry.runtime.held import Held
from wherry.runtime.monitor import exits
from wherry.runtime.monitor.client import MonitorClient, MonitorLost
from wherry.runtime.types import RuntimeFailure
from wherry.runtime.workspace import Workspace, end

log = logging.getLogger(__name__)


# So often a monitor that is killed while it takes over is followed by another at once.
_ATTEMPTS = 5


class Monitors:
    """Connects to the monitor, or starts one; when it is killed, starts the next.

    ``on_exit`` is called with a container's id, exit code and time when it has ended. ``held``
    gives the containers that a new monitor is to take over.
    """

    def __init__(
        self,
        space: Workspace,
        on_exit: Callable[[str, int, int], None],
        held: Callable[[], Iterable[Held]],
    ) -> None:
        self._space = space
        self._on_exit = on_exit
        self._held = held
        self._client: MonitorClient | None = None
        self._starting: asyncio.Task[MonitorClient] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, *, start: bool) -> None:
        """Connect to the one that an earlier daemon left; else ``start`` says whether to have one
        at once or when it is needed.

        Raises:
            RuntimeFailure: it cannot be started.
        """
        self._client = await MonitorClient.connect(self._space.run_dir, self._on_exit, self._lost)
        if self._client is None:
            await self._clear()
            if start:
                await self.get()

    @property
    def existing(self) -> MonitorClient | None:
        """The monitor, where there is one."""
        return self._client

    async def get(self) -> MonitorClient:
        """The monitor.

        Raises:
            RuntimeFailure: there is none, and none can be started.
        """
        if self._client is not None:
            return self._client
        return await asyncio.shield(self._starting or self._begin())

    def _begin(self) -> asyncio.Task[MonitorClient]:
        self._starting = asyncio.create_task(self._start())
        self._starting.add_done_callback(self._started)
        return self._starting

    def _started(self, task: asyncio.Task[MonitorClient]) -> None:
        if task is self._starting:
            self._starting = None
        if not task.cancelled() and (error := task.exception()):
            log.error("the containers' monitor: %s", error)

    async def _start(self) -> MonitorClient:
        for _ in range(_ATTEMPTS - 1):
            try:
                return await self._start_one()
            except MonitorLost:
                continue  # killed as well, before it had taken over
        return await self._start_one()

    async def _start_one(self) -> MonitorClient:
        space = self._space
        await self._clear()
        client = await MonitorClient.start(
            space.run_dir,
            space.exits,
            self._on_exit,
            self._lost,
            lambda pid: cgroups.add(space.layout, space.monitors, pid),
        )
        for held in tuple(self._held()):
            if not held.runs:
                continue
            # It may have written this down, and been killed before it could tell.
            if left_code := exits.read(space.exit_file(held.id)):
                held.process_ended(*left_code)
            else:
                await client.adopt(held.id, held.handover)
        self._client = client
        return client

    def _lost(self, served: bool) -> None:
        self._client = None
        if not served:  # nor would another
            log.error("no monitor: see %s", self._space.run_dir / "monitor.log")
        elif self._starting is None or self._starting.done():
            log.error("the containers' monitor was killed; another takes over")
            self._begin()

    async def _clear(self) -> None:
        """What a killed monitor was at has nobody to report to."""
        while left := cgroups.processes(self._space.layout, self._space.monitors):
            await end(left, signal.SIGKILL)

    async def forget(self, id: str) -> None:
        """Have the monitor let go of a container; nothing where there is no monitor."""
        if self._client is not None:
            try:
                await self._client.forget(id)
            except MonitorLost:
                log.debug("the monitor forgot %s by its own end", id)

    def drop_stdin(self, id: str) -> None:
        """Have the monitor close its end of a container's standard input, soon."""
        if self._client is not None:
            task = asyncio.create_task(self._drop_stdin(self._client, id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _drop_stdin(self, client: MonitorClient, id: str) -> None:
        try:
            await client.drop_stdin(id)
        except RuntimeFailure as failure:  # the next one is not given it
            log.debug("standard input of %s: %s", id, failure)

    async def close(self) -> None:
        """Leave the monitor to itself: with its containers, or to end when it has none."""
        if pending := [*self._tasks, *((self._starting,) if self._starting else ())]:
            await asyncio.wait(pending)
        if self._client is not None:
            self._client.close()
            self._client = None

    async def wait_ended(self) -> None:
        """Wait until a monitor that holds nothing has ended."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.ended()
