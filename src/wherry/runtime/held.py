"""A container this daemon watches: its first process, its streams, and how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal as signals
from collections.abc import Callable
from pathlib import Path

from wherry.runtime import cgroups
from wherry.runtime.cgroups import Layout
from wherry.runtime.hub import ContainerStream, Hub, Mark
from wherry.runtime.monitor.client import Holding
from wherry.runtime.oom import OOMWatch
from wherry.runtime.record import Record
from wherry.runtime.types import ExitStatus, LogSink, User
from wherry.runtime.usage import oom_kills

log = logging.getLogger(__name__)


class Held:
    """One container from its creation, or its recovery, to its end.

    The monitor tells of the end (``process_ended``); when the log has the last byte, ``on_exit`` is
    called and ``ended`` has the status. ``on_oom`` is called when memory runs out before the end.
    ``claim_stdin`` is as for ``Hub``.
    """

    def __init__(
        self,
        id: str,
        bundle: Path,
        record: Record,
        holding: Holding,
        layout: Layout,
        *,
        sink: LogSink | None,
        claim_stdin: Callable[[], None],
        on_exit: Callable[[ExitStatus], None],
        on_oom: Callable[[str], None],
    ) -> None:
        self.id = id
        self.bundle = bundle
        self.record = record
        self.pid = record.pid
        self.paused = cgroups.frozen(layout, record.cgroup)
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[ExitStatus] = loop.create_future()
        self.hub = Hub(holding.ends, sink, once=record.stdin_once, claim_stdin=claim_stdin)
        self._pidfd = holding.pidfd
        self._exit_code: asyncio.Future[int] = loop.create_future()
        self._layout = layout
        self._on_exit = on_exit
        self._finishing: asyncio.Task[None] | None = None
        self._oom = self._watch_memory(on_oom)

    def _watch_memory(self, on_oom: Callable[[str], None]) -> OOMWatch | None:
        try:
            return OOMWatch(self._layout, self.record.cgroup, lambda: on_oom(self.id))
        except OSError as error:
            # It may have ended; or it runs, and only its end will tell.
            log.info("want of memory in %s will be seen at its end: %s", self.id[:12], error)
            return None

    @property
    def runs(self) -> bool:
        """Whether its end has not been heard of."""
        return self._finishing is None

    @property
    def lives(self) -> bool:
        """Whether its first process has not ended, heard of or not."""
        if self._pidfd < 0:
            return False
        end = select.poll()
        end.register(self._pidfd, select.POLLIN)
        return not end.poll(0)

    def outside(self, user: User) -> tuple[int, int]:
        """The ids on the host of a user and group in its user namespace, -1 for none there."""

        def mapped(name: str, number: int) -> int:
            for line in Path(f"/proc/{self.pid}/{name}").read_text().splitlines():
                inside, outside, size = map(int, line.split())
                if inside <= number < inside + size:
                    return outside + number - inside
            return -1

        return mapped("uid_map", user.uid), mapped("gid_map", user.gid)

    @property
    def handover(self) -> dict[str, int]:
        """What a new monitor needs; the descriptors stay ours."""
        return {"pidfd": self._pidfd, **self.hub.ends}

    def process_ended(self, code: int, finished_at: int) -> None:
        """The first process has ended; may be told more than once."""
        if self._finishing is None:
            self._forget_memory()
            status = ExitStatus(self.id, code, self._oom_killed(), finished_at)
            self._finishing = asyncio.create_task(self._finish(status))

    async def _finish(self, status: ExitStatus) -> None:
        if self.record.shares_pids:
            # The kernel ended no others with it; Docker does.
            cgroups.kill(self._layout, self.record.cgroup)
        await self.hub.finish()
        self._close()
        self.ended.set_result(status)
        self._exit_code.set_result(status.exit_code)
        self._on_exit(status)

    def _oom_killed(self) -> bool:
        return oom_kills(self._layout, self.record.cgroup) > 0

    def signal(self, number: int) -> None:
        """Send a signal to the container's process; nothing where it has ended."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signals.pidfd_send_signal(self._pidfd, number)

    def attach(self, *, stdin: bool, at: Mark | None = None) -> ContainerStream:
        """A new client of its streams."""
        return self.hub.attach(self._exit_code, stdin=stdin, at=at)

    async def release(self) -> None:
        """Stop watching; the container lives on under the monitor."""
        if self._finishing is not None:
            await self._finishing
            return
        await self.hub.release()
        self._close()
        self._exit_code.cancel()
        self.ended.cancel()

    def _forget_memory(self) -> None:
        if self._oom is not None:
            self._oom.close()
            self._oom = None

    def _close(self) -> None:
        self._forget_memory()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
