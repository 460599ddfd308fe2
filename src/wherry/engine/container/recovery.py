"""What a daemon does first: find out what became of the containers while none was there.

Processes have gone on under their monitors, or have ended; creations, starts and removals may have
been cut short at any point. Afterwards every container is in a state that a user can explain, and
holds what that state needs and nothing else.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import shutil
import time
from pathlib import Path

from wherry.engine.container import restart
from wherry.engine.container.container import Container, Run
from wherry.engine.container.lifecycle import EXIT_LOST, Lifecycle
from wherry.engine.container.mount_sources import release_own
from wherry.engine.container.store import ContainerStore
from wherry.engine.errors import EngineError
from wherry.engine.logs import resume_sink
from wherry.runtime.rootfs import mounts_below, unmount
from wherry.runtime.types import ExitStatus, LogSink

log = logging.getLogger(__name__)


async def recover(lifecycle: Lifecycle) -> None:
    """Take up every container of the store; those whose policy says so are started again."""
    store = lifecycle.store
    leftovers = store.load()
    await asyncio.to_thread(_clear, leftovers)
    lifecycle.volumes.open(
        {c.id: [m.name for m in c.mounts if m.type == "volume"] for c in store.all()}
    )
    await asyncio.to_thread(_remove_stray_namespaces, lifecycle)
    holding = [container for container in store.all() if container.holding]
    found = await lifecycle.runtime.recover(
        [container.id for container in holding], log=lambda id: resume_log(store, id)
    )
    for container in holding:
        await _take_up(lifecycle, container, found[container.id])
    await asyncio.to_thread(_settle_mounts, lifecycle)
    for container in store.all():
        await _next_step(lifecycle, container)


def resume_log(store: ContainerStore, id: str) -> LogSink | None:
    """Where a container that runs already is logged from now on.

    A log that cannot be opened is no reason to end it.
    """
    container = store.find(id)
    try:
        return resume_sink(container) if container is not None else None
    except (OSError, ValueError) as error:
        log.error("the log of %s: %s", id[:12], error)
        return None


def _clear(leftovers: list[Path]) -> None:
    """Remove directories of containers that were half created or half removed."""
    for home in leftovers:
        for point in mounts_below(home):
            unmount(point)
        shutil.rmtree(home, ignore_errors=True)
        log.info("removed what was left of container %s", home.name[:12])


def _settle_mounts(lifecycle: Lifecycle) -> None:
    """Unmount what was mounted to look at containers that do not run, and what no other holds."""
    for container in lifecycle.store.all():
        if not container.holding:
            release_own(container)
    lifecycle.volumes.settle()


def _remove_stray_namespaces(lifecycle: Lifecycle) -> None:
    known = set(lifecycle.store.ids())
    for path in lifecycle.networks.all_namespaces():
        if path.name not in known:
            lifecycle.networks.remove_namespace(path)


async def _take_up(
    lifecycle: Lifecycle, container: Container, found: int | ExitStatus | None
) -> None:
    state = container.state
    if isinstance(found, int):
        run = container.run = Run()
        state.pid = found
        if not state.running or state.restarting:
            # The daemon died between the start and writing it down.
            state.running, state.restarting = True, False
            state.started_at = _started_at(found)
        lifecycle.sources.hold(container)
        save = functools.partial(lifecycle.store.save, container, durable=False)
        await lifecycle.networks.reclaim(container, save)
        if not state.paused:
            lifecycle.on_running(container)
        save()
        # It may have ended before there was a run to note that in.
        if status := run.status or lifecycle.runtime.exit_status(container.id):
            lifecycle.exited(status)
        return
    ended = state.running and not state.restarting
    if isinstance(found, ExitStatus):
        state.exit_code, state.oom_killed = found.exit_code, found.oom_killed
        state.finished_at = found.finished_at
        if not state.started_at:
            state.started_at = found.finished_at
    elif ended:
        state.exit_code, state.finished_at = EXIT_LOST, time.time_ns()
    if ended:
        log.info("container %s ended meanwhile (%d)", container.id[:12], state.exit_code)
    state.running = state.paused = state.restarting = False
    state.pid = 0
    await lifecycle.give_back(container)
    if ended:
        lifecycle.publish(container, "die", {"exitCode": str(state.exit_code)})


def _started_at(pid: int) -> int:
    """When a process began, closely enough; nanoseconds since the epoch."""
    try:
        return Path(f"/proc/{pid}").stat().st_ctime_ns
    except FileNotFoundError:
        return time.time_ns()


async def _next_step(lifecycle: Lifecycle, container: Container) -> None:
    """Finish a removal, remove what was to be removed at its end, restart by policy."""
    state = container.state
    if state.running and not state.restarting:
        return
    state.running = state.restarting = state.removing = False
    if state.dead or (container.auto_remove and state.started_at):
        try:
            await lifecycle.remove(container, force=True, volumes=container.auto_remove)
        except EngineError as error:
            log.error("removing %s: %s", container.id[:12], error.message)
        return
    if state.started_at and restart.wanted_at_boot(
        container.host_config["RestartPolicy"],
        exit_code=state.exit_code,
        stopped_by_user=container.manually_stopped,
        restarts=container.restart_count,
    ):
        lifecycle.spawn(_restart(lifecycle, container))


async def _restart(lifecycle: Lifecycle, container: Container) -> None:
    try:
        await lifecycle.start(container)
    except EngineError as error:
        log.warning("restarting %s: %s", container.id[:12], error.message)
