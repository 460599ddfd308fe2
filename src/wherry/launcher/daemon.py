"""What both daemons have in common: one of each kind, a log, an event loop, an end on SIGTERM."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable

from wherry.host import notify
from wherry.host.pidfile import AlreadyRunning, PidFile
from wherry.launcher.instance import Instance

Serve = Callable[[Instance, asyncio.Event], Awaitable[None]]
"""Runs until the event is set, then puts everything away."""

log = logging.getLogger("wherry")


class BeginAnew(Exception):
    """The daemon has put everything away and is to start once more, with what is new by now."""


def run(instance: Instance, name: str, serve: Serve) -> int:
    """Be the daemon ``name`` of ``instance`` until SIGTERM or SIGINT; returns the exit code."""
    import uvloop

    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    notify.claim()
    instance.run_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
    try:
        held = PidFile(instance.pid_file(name))
    except AlreadyRunning as error:
        log.error("%s on %s", error, instance.data_dir)
        return 1
    # What was made while starting lives for ever; the collector need not walk it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    again = False
    try:
        uvloop.run(_until_told(instance, serve))
    except BeginAnew as reason:
        log.info("starting anew: %s", reason)
        again = True
    except OSError as error:
        log.error("%s", error.strerror or error, exc_info=error)
        return 1
    finally:
        held.release()
    if again:
        notify.give_back()
        words = ["-m", "wherry", name, "--data-dir", str(instance.data_dir)]
        os.execv(sys.executable, [sys.executable, *words])  # noqa: S606
    return 0


async def _until_told(instance: Instance, serve: Serve) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(instance, stop)
