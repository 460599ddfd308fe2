"""From created to running to exited to removed: the transitions, and what each leaves on disk.

A container that starts takes a mount, a place on its networks and a process from the runtime;
``holding`` is on disk before the first of them is taken and until the last is given back. So a
daemon that was killed in between knows what to look for (see ``recovery``), and ``give_back`` may
be repeated at any time.

``container.lock`` is held by who starts, removes, renames or changes a container. A process ends
when it likes, so its end needs no lock: it is noted at once, and ``run.settled`` tells when
everything has been given back. What follows a start or a removal waits for that.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import shutil
import time
from collections.abc import Callable, Coroutine
from typing import Any

from wherry.engine.container import restart, signals
from wherry.engine.container.container import Container, Run
from wherry.engine.container.failure import start_error
from wherry.engine.container.mount_sources import MountSources, release_own
from wherry.engine.container.naming import Naming
from wherry.engine.container.resources import Resources
from wherry.engine.container.store import ContainerStore
from wherry.engine.container.volume_claims import VolumeClaims
from wherry.engine.errors import Conflict, EngineError, NotModified
from wherry.engine.events import EventBus
from wherry.engine.image.store import ImageStore
from wherry.engine.logs import files as log_files
from wherry.engine.network.dns.resolvers import Resolvers
from wherry.engine.network.networks import Networks
from wherry.engine.volume.volumes import Volumes
from wherry.runtime.service import Runtime
from wherry.runtime.types import ExitStatus, RuntimeFailure

log = logging.getLogger(__name__)

DEFAULT_STOP_SIGNAL = "SIGTERM"
DEFAULT_STOP_TIMEOUT = 10
# A process that SIGKILL does not end within this time is stuck in the kernel.
KILL_TIMEOUT = 10.0
EXIT_UNKNOWN = 128
EXIT_LOST = 255  # it ended while nobody looked, and left no exit code


class Lifecycle:
    """Moves containers from state to state."""

    def __init__(
        self,
        store: ContainerStore,
        images: ImageStore,
        networks: Networks,
        events: EventBus,
        runtime: Runtime,
        volumes: Volumes,
    ) -> None:
        self.store = store
        self.images = images
        self.networks = networks
        self.events = events
        self.runtime = runtime
        self.volumes = volumes
        self.claims = VolumeClaims(volumes, images)
        self.sources = MountSources(volumes, images, events)
        self.naming = Naming(store, Resolvers(networks.namespace))
        networks.places.names = self.naming
        self.resources = Resources(store, images, networks, runtime, self.naming, self.sources)
        # Told at once: a run has begun, it has ended; and when all it held was given back.
        self.on_running: Callable[[Container], None] = lambda container: None
        self.on_ended: Callable[[Container], None] = lambda container: None
        self.on_settled: Callable[[Container], None] = lambda container: None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._attendants: set[asyncio.Task[Any]] = set()
        self._closing = False

    # ---- background work

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run ``work`` beside the caller; ``close`` waits for it."""
        return self._keep(asyncio.create_task(work), self._tasks)

    def attend(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run ``work``, which may last as long as a container does; ``close`` cancels it."""
        return self._keep(asyncio.create_task(work), self._attendants)

    def _keep(self, task: asyncio.Task[Any], tasks: set[asyncio.Task[Any]]) -> asyncio.Task[Any]:
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        task.add_done_callback(self._report)
        return task

    @staticmethod
    def _report(task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("in the background: %s", error, exc_info=error)

    async def close(self, timeout: float) -> None:
        """Start nothing more, and let what is under way come to its end.

        What takes longer than ``timeout`` seconds is left as a kill would leave it.
        """
        self._closing = True
        for container in self.store.all():
            if container.restart_timer:
                container.restart_timer.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
        for task in self._tasks | self._attendants:
            task.cancel()
        while tasks := self._tasks | self._attendants:
            await asyncio.wait(tasks)

    def note(self, container: Container, *, durable: bool = False) -> None:
        """Write down what has become of it. A full disk must not keep a container from ending."""
        try:
            self.store.save(container, durable=durable)
        except OSError as error:
            log.error("cannot write down the state of %s: %s", container.id[:12], error)

    def publish(
        self, container: Container, action: str, attributes: dict[str, str] | None = None
    ) -> None:
        """Tell of ``action`` with the container's usual attributes."""
        shown = container.event_attributes() | (attributes or {})
        self.events.publish("container", action, container.id, shown)

    # ---- start

    async def start(self, container: Container) -> None:
        """Start it at a user's request.

        Raises:
            NotModified: it runs already.
            Conflict: it is paused, or being removed.
            EngineError: it could not be started; the container says why as well.
        """
        async with container.lock:
            self._check_startable(container)
            container.manually_stopped = False
            container.ending = False
            container.restart_count = 0
            container.restart_delay = 0.0
            await self.start_locked(container)

    def _check_startable(self, container: Container) -> None:
        state = container.state
        if state.removing or state.dead:
            raise Conflict("container is marked for removal and cannot be started")
        if state.paused:
            raise Conflict("cannot start a paused container, try unpause instead")
        if state.running:
            raise NotModified("Container is already started")

    async def start_locked(self, container: Container) -> None:
        """Start it; the caller holds the lock and has judged the state."""
        if container.run is not None:
            await container.run.settled.wait()
        run = container.run = Run()
        container.holding = True
        state = container.state
        state.error = ""
        try:
            self.store.save(container, durable=False)
            pid = await self._take(container)
            started_at = time.time_ns()
            await self.runtime.start(container.id)
        except Exception as error:
            raise await self._start_failed(container, run, error) from error
        state.running, state.restarting, state.oom_killed = True, False, False
        state.pid, state.exit_code = pid, 0
        state.started_at = started_at  # (its former end is still to be seen)
        self.on_running(container)
        self.note(container)
        self.publish(container, "start")
        if run.status is not None:
            self._note_end(container, run, run.status)

    async def _take(self, container: Container) -> int:
        """Everything short of letting the process run; returns its pid."""
        save = functools.partial(self.store.save, container, durable=False)
        pid = await self.resources.take(container, save)
        for waiting, stdin in tuple(container.attaching):
            if not waiting.done():
                waiting.set_result(await self.runtime.attach(container.id, stdin=stdin))
        return pid

    async def _start_failed(self, container: Container, run: Run, error: Exception) -> EngineError:
        """Undo a start; returns what to tell the client."""
        match error:
            case RuntimeFailure():
                answer, code = start_error(error), error.exit_code
            case EngineError():
                answer, code = error, EXIT_UNKNOWN
            case OSError():
                answer, code = EngineError(str(error)), EXIT_UNKNOWN
            case _:  # a fault of ours, which must not leave it half started either
                log.error("starting %s: %r", container.id[:12], error, exc_info=error)
                answer, code = EngineError(f"internal error: {error!r}"), EXIT_UNKNOWN
        state = container.state
        was_running = state.running  # it is the policy that starts it again
        state.running = state.restarting = False
        state.pid, state.exit_code, state.error = 0, code, answer.message
        for waiting, _ in tuple(container.attaching):
            if not waiting.done():
                waiting.set_result(None)
        await self.give_back(container)
        run.settled.set()
        if was_running:
            wake(container.exit_waiters, code)
        self.publish(container, "die", {"exitCode": str(code)})
        if container.auto_remove:
            self.spawn(self.remove(container, force=True, volumes=True))
        return answer

    # ---- end

    def exited(self, status: ExitStatus) -> None:
        """The runtime tells that a container's process has ended."""
        container = self.store.find(status.id)
        if container is None or container.run is None or self._closing:
            return  # (the next daemon will find it)
        container.run.status = status
        if container.state.running and not container.state.restarting:
            self._note_end(container, container.run, status)

    def ran_out_of_memory(self, id: str) -> None:
        """The runtime tells that a container has no memory left; it may run on all the same."""
        container = self.store.find(id)
        if container is not None and container.run is not None and not self._closing:
            container.run.oom_told = True
            self.publish(container, "oom")

    def _note_end(self, container: Container, run: Run, status: ExitStatus) -> None:
        state = container.state
        again = not container.keep and restart.wanted(
            container.host_config["RestartPolicy"],
            exit_code=status.exit_code,
            stopped_by_user=container.manually_stopped,
            restarts=container.restart_count,
            may_go_on=not container.ending,
        )
        state.running = state.restarting = again
        state.paused, state.pid = False, 0
        state.exit_code, state.oom_killed = status.exit_code, status.oom_killed
        state.finished_at = status.finished_at
        container.restart_count += again
        self.on_ended(container)
        # On disk before the runtime forgets how it ended.
        self.note(container)
        remove = container.auto_remove and not container.keep
        self.spawn(self._settle(container, run, again=again, remove=remove))

    async def _settle(self, container: Container, run: Run, *, again: bool, remove: bool) -> None:
        """After the end: tell everyone, give everything back, and see what comes next."""
        state = container.state
        lasted = max(0, state.finished_at - state.started_at)
        async with run.signalling:  # the signal it died of is told first
            if state.oom_killed and not run.oom_told:
                self.publish(container, "oom")
            seconds = str(lasted // 1_000_000_000)
            self.publish(
                container, "die", {"exitCode": str(state.exit_code), "execDuration": seconds}
            )
        await self.give_back(container)
        run.settled.set()
        self.on_settled(container)
        wake(container.exit_waiters, state.exit_code)
        if again and state.restarting:
            self.schedule_restart(container, lasted / 1e9)
        elif remove and not state.removing:
            await self.remove(container, force=True, volumes=True)

    async def give_back(self, container: Container) -> None:
        """Return what its run took from the kernel; ``holding`` stays set where that failed."""
        container.holding = not await self.resources.give_back(container)
        self.note(container)

    # ---- restart policy

    def schedule_restart(self, container: Container, ran_for: float) -> None:
        """Start it again after the back-off."""
        container.restart_delay = restart.next_delay(container.restart_delay, ran_for)
        loop = asyncio.get_running_loop()
        container.restart_timer = loop.call_later(
            container.restart_delay, lambda: self.spawn(self._restart_now(container))
        )

    async def _restart_now(self, container: Container) -> None:
        async with container.lock:
            container.restart_timer = None
            if not container.state.restarting or container.state.removing or self._closing:
                return
            try:
                await self.start_locked(container)
            except EngineError as error:
                log.warning("restarting %s: %s", container.id[:12], error.message)

    async def _give_up_restart(self, container: Container) -> bool:
        """Stop waiting for the next start; False where there is none to wait for (any more)."""
        if not container.state.restarting:
            return False
        async with container.lock:
            return self._cancel_restart(container)

    def _cancel_restart(self, container: Container) -> bool:
        """As ``_give_up_restart``, for a caller who holds the lock: no start is under way."""
        if not container.state.restarting:
            return False
        if container.restart_timer:
            container.restart_timer.cancel()
            container.restart_timer = None
        container.state.running = container.state.restarting = False
        self.note(container, durable=True)
        return True

    # ---- stop and kill

    async def stop(
        self, container: Container, *, timeout: float | None = None, signal: str = ""
    ) -> None:
        """Its stop signal, then SIGKILL after ``timeout`` seconds (negative: never).

        Raises:
            NotModified: it does not run.
        """
        if not container.state.running:
            raise NotModified("Container is already stopped")
        container.manually_stopped = container.ending = True
        if await self._give_up_restart(container):
            return
        number = signals.parse(signal or container.config.get("StopSignal") or DEFAULT_STOP_SIGNAL)
        if timeout is None:
            given = container.config.get("StopTimeout")
            timeout = DEFAULT_STOP_TIMEOUT if given is None else given
        self.note(container, durable=True)
        await self._signal(container, number)
        if not await self._settled(container, None if timeout < 0 else float(timeout)):
            await self._kill_hard(container)
        self.publish(container, "stop")

    async def kill(self, container: Container, signal: int) -> None:
        """Send ``signal``; after SIGKILL, wait for the end.

        Where it has a stop signal of its own, another one is a message and does not ask it to end:
        it is not woken from a pause for it, and its restart policy still holds.

        Raises:
            Conflict: it does not run.
        """
        if not container.state.running:
            raise Conflict(f"container {container.id} is not running")
        container.manually_stopped = True
        own = container.config.get("StopSignal")
        ends = signal == signals.KILL or not own or signals.parse(own) == signal
        if ends:
            container.ending = True
            if await self._give_up_restart(container):
                return
        self.note(container, durable=True)
        if container.state.restarting:
            return  # there is nobody to send it to
        if signal == signals.KILL:
            await self._kill_hard(container)
        else:
            await self._signal(container, signal, wake_up=ends)

    async def _signal(self, container: Container, signal: int, *, wake_up: bool = True) -> None:
        run = container.run
        if run is None or run.status is not None:
            return  # it has just ended
        async with run.signalling:
            try:
                await self.runtime.kill(container.id, signal)
            except RuntimeFailure as failure:
                if container.state.running and run.status is None:
                    raise EngineError(failure.message) from failure
                return
            self.publish(container, "kill", {"signal": str(signal)})
        if container.state.paused and wake_up:
            # A frozen process receives nothing. (After SIGKILL the runtime has seen to it.)
            container.state.paused = False
            if signal != signals.KILL:
                await self._resume(container)

    async def _resume(self, container: Container) -> None:
        try:
            await self.runtime.resume(container.id)
        except RuntimeFailure as failure:
            if container.state.running:
                raise EngineError(failure.message) from failure

    async def _kill_hard(self, container: Container) -> None:
        await self._signal(container, signals.KILL)
        if not await self._settled(container, KILL_TIMEOUT):
            raise EngineError("tried to kill container, but did not receive an exit event")

    async def _settled(self, container: Container, timeout: float | None) -> bool:
        """Wait until its current run is over; whether it was within ``timeout`` seconds."""
        if container.run is None:
            return True
        try:
            async with asyncio.timeout(timeout):
                await container.run.settled.wait()
        except TimeoutError:
            return False
        return True

    async def restart(
        self, container: Container, *, timeout: float | None = None, signal: str = ""
    ) -> None:
        """Stop it where it runs, and start it."""
        if container.state.running:
            container.keep = True  # its end is none that a policy or --rm should act on
            try:
                await self.stop(container, timeout=timeout, signal=signal)
            except NotModified:
                log.debug("%s ended by itself before its restart", container.id[:12])
            finally:
                container.keep = False
        await self.start(container)
        self.publish(container, "restart")

    # ---- remove

    async def remove(
        self, container: Container, *, force: bool = False, volumes: bool = False
    ) -> None:
        """Remove it and all its files; with ``force``, kill it first.

        With ``volumes``, those of its volumes go too that have no name and that no other has.

        Raises:
            Conflict: it runs and ``force`` is not given, or its removal is under way.
        """
        state = container.state
        if state.removing:
            raise Conflict(f"removal of container {container.id} is already in progress")
        state.removing = True
        try:
            async with container.lock:
                if state.running and force:
                    container.manually_stopped = container.ending = True
                    if not self._cancel_restart(container):
                        await self._kill_hard(container)
                self._check_removable(container)
                await self._settled(container, None)
                if self.store.find(container.id) is container:
                    container.remove_volumes |= volumes
                    await self._destroy(container)
        finally:
            state.removing = False

    def _check_removable(self, container: Container) -> None:
        state = container.state
        if not state.running:
            return
        prefix = f'cannot remove container "{container.display_name}": container is '
        if state.paused:
            raise Conflict(prefix + "paused and must be unpaused first")
        raise Conflict(
            prefix + f"{state.status}: stop the container before removing or force remove"
        )

    async def _destroy(self, container: Container) -> None:
        if container.holding:
            await self.give_back(container)
        container.state.dead = True
        self.note(container)
        if container.remove_volumes:
            await self.claims.remove_anonymous(container)
        await log_files.finish(container.home)
        try:
            await asyncio.to_thread(_remove_home, container)
        except OSError as error:
            raise EngineError(f"unable to remove filesystem for {container.id}: {error}") from error
        self.claims.release(container)
        self.store.discard(container)
        for image in {container.image_id, *(m.image_id for m in container.mounts if m.image_id)}:
            self.spawn(self.images.release(image))
        self.publish(container, "destroy")
        wake(container.exit_waiters, container.state.exit_code)
        wake(container.removal_waiters, container.state.exit_code)


def _remove_home(container: Container) -> None:
    release_own(container)
    shutil.rmtree(container.home)


def wake(waiters: list[asyncio.Future[int]], result: int) -> None:
    """Give every waiter the result."""
    for waiter in tuple(waiters):
        if not waiter.done():
            waiter.set_result(result)
