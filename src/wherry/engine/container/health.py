"""Probing containers with a health check: one task for each that runs and is not frozen.

A probe is an exec like any other, with its events; ``healthcheck`` judges what comes of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time

from wherry.engine.container.container import Container
from wherry.engine.container.execs import Exec, Execs
from wherry.engine.container.healthcheck import (
    OUTPUT_LIMIT,
    UNHEALTHY,
    Check,
    Health,
    Result,
    check_of,
)
from wherry.engine.container.lifecycle import Lifecycle
from wherry.engine.container.units import go_duration
from wherry.engine.errors import EngineError
from wherry.runtime.streams import ExecProcess


class HealthMonitors:
    """The probing of all containers of one engine."""

    def __init__(self, lifecycle: Lifecycle, execs: Execs) -> None:
        self._lifecycle = lifecycle
        self._execs = execs
        self._tasks: dict[str, asyncio.Task[None]] = {}
        lifecycle.on_running = self.begin
        lifecycle.on_ended = self.end

    def begin(self, container: Container) -> None:
        """A run has begun, or is found at the daemon's start."""
        if check_of(container.config) is None:
            return
        self._cancel(container)
        if container.state.health is None:
            container.state.health = Health()
        container.state.health.restart()
        self.go_on(container)

    def go_on(self, container: Container) -> None:
        """Probe it from now on: it runs, or runs again after a pause."""
        check = check_of(container.config)
        if check is not None and container.state.health is not None:
            self._cancel(container)
            work = self._probe_always(container, check, container.state.health)
            self._tasks[container.id] = self._lifecycle.attend(work)

    def end(self, container: Container) -> None:
        """Probe it no more: it has ended, or is frozen. Nobody knows that it is healthy then."""
        if self._cancel(container) and container.state.health is not None:
            container.state.health.status = UNHEALTHY

    def _cancel(self, container: Container) -> bool:
        task = self._tasks.pop(container.id, None)
        return task is not None and (task.cancel() or True)

    async def _probe_always(self, container: Container, check: Check, health: Health) -> None:
        state = container.state
        while True:
            since_start = (time.time_ns() - state.started_at) / 1e9
            await asyncio.sleep(check.next_probe(health.status, since_start))
            result = await self._probe(container, check)
            changed = health.note(result, check, state.started_at)
            self._lifecycle.note(container)
            if changed:
                self._lifecycle.publish(container, f"health_status: {health.status}")

    async def _probe(self, container: Container, check: Check) -> Result:
        """One probe. Whatever stands against it is its result."""
        begun = time.time_ns()
        output = bytearray()
        try:
            async with asyncio.timeout(check.timeout):
                code = await self._execute(container, check, output)
        except TimeoutError:
            said = f": {text}" if (text := _kept(output)) else ""
            limit = go_duration(round(check.timeout * 1e9))
            complaint = f"Health check exceeded timeout ({limit}){said}"
            return Result(begun, time.time_ns(), -1, complaint)
        except (EngineError, OSError) as error:
            return Result(begun, time.time_ns(), -1, str(error))
        return Result(begun, time.time_ns(), code, _kept(output))

    async def _execute(self, container: Container, check: Check, output: bytearray) -> int:
        """Run the command, killed when this is cancelled; returns its exit code."""
        exec_ = self._execs.add(Exec(container, list(check.command)))
        started = await self._execs.launch(exec_)
        reading = asyncio.ensure_future(self._collect(exec_, started, output))
        with _Handle(started.pid) as process:
            try:
                return await asyncio.shield(reading)
            except asyncio.CancelledError:
                process.kill()
                await asyncio.shield(reading)
                raise

    async def _collect(self, exec_: Exec, started: ExecProcess, output: bytearray) -> int:
        while data := (await started.read())[1]:
            # One more than is kept shows that there was more.
            output += data[: OUTPUT_LIMIT + 1 - len(output)]
        await self._execs.finish(exec_, started)
        return exec_.exit_code or 0


def _kept(output: bytearray) -> str:
    text = output[:OUTPUT_LIMIT].decode("utf-8", "replace")
    return text + "..." if len(output) > OUTPUT_LIMIT else text


class _Handle:
    """A process that may be killed later, and is still the same one then."""

    def __init__(self, pid: int) -> None:
        self._pidfd = -1
        with contextlib.suppress(ProcessLookupError):
            self._pidfd = os.pidfd_open(pid)

    def kill(self) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def __enter__(self) -> _Handle:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
