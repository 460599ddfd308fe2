"""What has become of the containers that an earlier daemon left."""

from __future__ import annotations

import signal as signals
import time
from dataclasses import dataclass

from wherry.runtime import cgroups, usage
from wherry.runtime.monitor import exits
from wherry.runtime.monitor.client import Holding, MonitorLost
from wherry.runtime.monitors import Monitors
from wherry.runtime.record import Record
from wherry.runtime.types import ExitStatus
from wherry.runtime.workspace import Workspace

# Docker's word for a container whose shim was killed.
_KILLED = 128 + signals.SIGKILL


@dataclass(frozen=True, slots=True)
class Left:
    """A container whose streams the monitor has kept; it may have ended."""

    record: Record
    holding: Holding


async def look(id: str, space: Workspace, monitors: Monitors) -> Left | ExitStatus | None:
    """What is left of container ``id``: itself, or how it ended; None where it was never started.

    Of one that does not run nothing stays but its exit status. One whose streams nobody holds is
    ended.
    """
    record = Record.load(space.bundle(id))
    if record is None or space.oci.waits_for_start(id):
        ended = exits.read(space.exit_file(id))
        await space.remove(id, monitors.forget, keep_exit=ended is not None)
        return ended and ExitStatus(id, ended[0], False, ended[1])
    monitor = monitors.existing
    try:
        holding = await monitor.take(id) if monitor is not None else None
    except MonitorLost:
        holding = None
    return Left(record, holding) if holding is not None else _end(id, record, space)


def _end(id: str, record: Record, space: Workspace) -> ExitStatus:
    """The daemon and the monitor were both killed: nobody holds the container's streams.

    It is ended, as Docker ends a container whose shim was killed.
    """
    cgroups.kill(space.layout, record.cgroup)
    ended = exits.read(space.exit_file(id))
    if ended is None:
        ended = _KILLED, time.time_ns()
        exits.write(str(space.exits), id, *ended)
    oom_killed = usage.oom_kills(space.layout, record.cgroup) > 0
    return ExitStatus(id, ended[0], oom_killed, ended[1])
