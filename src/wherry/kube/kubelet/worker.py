"""The life of one pod on this node: one task, woken by changes of the pod or of what runs.

Each round looks at the pod and at its containers, tells the status, and carries out what
``actions`` decides. A pod that is being deleted, or that is no longer in the API, is ended
(``ending``), and the worker with it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from wherry.engine.cri.types import ContainerState, CRIError, PodSandboxConfig, PodSandboxState
from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.kubelet import pods
from wherry.kube.kubelet.actions import Actions, Health, Kill, compute_pod_actions
from wherry.kube.kubelet.ending import Ending, kill_container, stop_in_order
from wherry.kube.kubelet.parts import Parts
from wherry.kube.kubelet.resizer import Resizer
from wherry.kube.kubelet.retries import Retries
from wherry.kube.kubelet.starter import Starter, StartFailed
from wherry.kube.kubelet.status import Findings, pod_status
from wherry.kube.kubelet.surroundings import Surroundings
from wherry.kube.kubelet.view import PodRuntime
from wherry.kube.kubelet.volumes import sources
from wherry.kube.kubelet.volumes.place import Place

log = logging.getLogger(__name__)

Object = dict[str, Any]
Result = TypeVar("Result")

DEADLINE = "Pod was active on the node longer than the specified deadline"


class _Interrupted(Exception):
    """What was waited for no longer matters: the pod is to end."""


class PodWorker:
    """Keeps one pod as it should be until it is gone.

    ``on_gone`` is called with the uid when nothing is left of it.
    """

    def __init__(self, uid: str, parts: Parts, on_gone: Callable[[str], None]) -> None:
        self.uid = uid
        self.pod: Object | None = None
        self._first_seen: float | None = time.monotonic()  # until it runs
        self._parts = parts
        self._on_gone = on_gone
        self._starter = Starter(parts, self._unless_leaving)
        self._ending: Ending | None = None
        self._wake = asyncio.Event()
        self._leave = asyncio.Event()
        self._give_up = asyncio.Event()  # nothing more is to be made
        self._waiting: dict[str, tuple[str, str]] = {}
        self._kills: dict[str, asyncio.Task[None]] = {}
        self._stopping: asyncio.Task[None] | None = None
        self._restarting: set[str] = set()
        self._failure: tuple[str, str] | None = None  # of the pod as a whole
        self._finished = False
        self._unknown = False
        self.settled = asyncio.Event()  # nothing of it runs any more, or takes room
        self._refused = False
        self._hurry: int | None = None  # seconds at the most that are left to containers
        self._disruption = ""  # why the node puts it off
        self._before: Sequence[PodWorker] = ()  # whose pods make room for this one
        self._resizer = Resizer(parts)
        self._retry = Retries(self.wake)
        self._house = Surroundings(
            *(parts, uid, self._retry, self._resizer, self._starter),
            unless_leaving=self._unless_leaving,
            renew=self.objects_changed,
        )
        self._task = asyncio.create_task(self._run(), name=f"pod {uid}")

    # what others tell it

    def update(self, pod: Object) -> None:
        """The pod as the API has it now; what is only an echo of its status wakes nobody."""
        old, self.pod = self.pod, pod
        if meta.is_deleting(pod):
            self.leave()
        elif old is None or _desired(old) != _desired(pod):
            self.objects_changed()
        elif pod["spec"].get("readinessGates") or (pods.is_ready(old) and not pods.is_ready(pod)):
            self.wake()  # who thought the node lost called its pods unready: they may not be

    def leave(self, *, unknown: bool = False) -> None:
        """End the pod: it is being deleted, or (``unknown``) the API has it no longer."""
        self._unknown = self._unknown or unknown
        self._leave.set()
        self._give_up.set()
        if self._ending is not None and self.pod is not None:
            self._ending.shorten(self.pod, known=not self._unknown)
        self.wake()

    def wait_for(self, others: Sequence[PodWorker]) -> None:
        """Start nothing before nothing of these pods runs any more."""
        self._before = others

    def fail(
        self,
        reason: str,
        message: str,
        *,
        grace: int | None = None,
        refused: bool = False,
        disruption: str = "",
    ) -> None:
        """The pod is to end as Failed: it is put off the node, or was ``refused`` by it.

        ``grace`` is the most seconds its containers get; ``disruption`` is what the condition
        DisruptionTarget says.
        """
        if self._failure is None and not self._finished:
            self._failure, self._hurry, self._refused = (reason, message), grace, refused
            self._disruption = disruption
            self._give_up.set()
            self.wake()

    def tell(self, type_: str, reason: str, message: str) -> None:
        """Record an event of the pod."""
        if self.pod is not None:
            self._parts.tell(self.pod, type_, reason, message)

    async def ended(self) -> None:
        """Wait until nothing of it runs any more and the API knows."""
        await self.settled.wait()
        await self._parts.statuses.flush(self.uid)

    @property
    def places(self) -> Mapping[str, Place]:
        """Where its volumes are."""
        return self._house.places

    @property
    def resize_is_deferred(self) -> bool:
        """Whether the pod waits for room to grow."""
        return self._resizer.is_deferred

    @property
    def unknown(self) -> bool:
        """Whether the API has the pod no longer: what it holds is promised to others already."""
        return self._unknown

    @property
    def holds(self) -> Object | None:
        """The pod with the resources that it holds, None once it has ended."""
        if self.pod is None or self._finished or self._failure is not None:
            return None
        if pods.is_finished(self._parts.statuses.newest(self.pod)):
            return None
        return self._resizer.holding(self.pod)

    def wake(self) -> None:
        """Something may have changed: look again."""
        self._wake.set()

    def objects_changed(self) -> None:
        """A ConfigMap or Secret that the pod uses has changed, or its spec: try all anew."""
        self._house.volumes_due = True
        self._retry.clear()
        self.wake()

    async def stop(self) -> None:
        """Let go of the pod; what runs goes on running."""
        tasks = [self._task, *self._kills.values()]
        if self._stopping is not None:
            tasks.append(self._stopping)
        for task in tasks:
            task.cancel()
        self._retry.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # the task

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                if self._leave.is_set():
                    await self._end()
                    return
                begun = time.perf_counter()
                await self._sync()
                self._parts.metrics.worker.observe(("sync",), time.perf_counter() - begun)
            except _Interrupted:
                self._wake.set()
            except (CRIError, StatusError, ConnectionError, OSError) as error:
                log.warning("pod %s: %s", self._described(), error)
                self._retry.soon()
            except Exception:
                # A fault of ours in one pod's round must not end its life, nor the others'.
                log.exception("pod %s", self._described())
                self._retry.soon()

    def _described(self) -> str:
        return self.uid if self.pod is None else pods.describe(self.pod)

    async def _unless_leaving(self, work: Awaitable[Result]) -> Result:
        """Wait for ``work``, but give it up when the pod is to end."""
        task = asyncio.ensure_future(work)
        leaving = asyncio.create_task(self._give_up.wait())
        try:
            await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise _Interrupted
        finally:
            leaving.cancel()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _sync(self) -> None:
        pod = self.pod
        if pod is None:
            return
        if self._before and not self._give_up.is_set():
            await self._unless_leaving(asyncio.gather(*(w.settled.wait() for w in self._before)))
            self._before = ()
        runtime = self._parts.view.pod(self.uid)
        pod = self._resizer.look(pod)
        self._track(pod, runtime)
        if self._failure is not None and not self._finished:
            await self._finish(pod, runtime)
            return
        if self._finished or pods.is_finished(pod):
            await self._settle(pod, runtime)
            return
        status = self._status(pod, runtime)
        if self._deadline_passed(pod, status["startTime"]):
            self._failure = ("DeadlineExceeded", DEADLINE)
            self._parts.tell(pod, "Normal", "DeadlineExceeded", DEADLINE)
            await self._finish(pod, runtime)
            return
        if status["phase"] in ("Succeeded", "Failed"):
            await self._finish(pod, runtime)
            return
        if runtime.ready_sandbox is not None and self._uses_objects(pod):
            await self._house.volumes(pod, runtime)
        health = Health(self._parts.probes.started, self._parts.probes.unhealthy)
        for kill in await self._resizer.carry_out(pod, runtime):
            self._begin_kill(pod, runtime, kill)
        stranded = self._parts.network.strands(runtime.ips)
        actions = compute_pod_actions(
            pod, runtime, health, restarting=self._restarting, stranded=stranded
        )
        # What is about to be started is worth a moment's wait: one write may tell of both.
        self._tell_status(pod, status, urgent=not actions.start)
        await self._carry_out(pod, runtime, actions)

    def _uses_objects(self, pod: Object) -> bool:
        """Whether something of the pod follows ConfigMaps, Secrets or its own metadata."""
        return self._parts.volumes.needs_refresh(pod) or bool(sources.references(pod))

    def _track(self, pod: Object, runtime: PodRuntime) -> None:
        """Begin or end probing, as containers run or not."""
        ip = self._parts.config.node_ip if pods.is_host_network(pod) else (runtime.ips or ("",))[0]
        for status in runtime.containers:
            if status.state is ContainerState.RUNNING:
                container = pods.find_container(pod, status.metadata.name)
                if container is not None:
                    self._parts.probes.track(pod, container, status, ip)
            else:
                self._parts.probes.forget(status.id)

    def _status(self, pod: Object, runtime: PodRuntime, *, ended: bool = False) -> Object:
        reason, message = self._failure or ("", "")
        findings = Findings(
            host_ips=self._parts.config.node_ips,
            ready=self._parts.probes.ready,
            started=self._parts.probes.started,
            waiting=self._waiting,
            ended=ended,
            reason=reason,
            message=message,
            refused=self._refused,
            disruption=self._disruption,
            resize=self._resizer.conditions,
        )
        newest = self._parts.statuses.newest(pod)
        return pod_status({**pod, "status": newest.get("status")}, runtime, findings, meta.now())

    def _tell_status(self, pod: Object, status: Object, *, urgent: bool) -> None:
        news = status["phase"] != "Pending" or bool(self._waiting)
        if status["phase"] == "Running" and self._first_seen is not None:
            if not pods.has_begun(pod):
                self._parts.metrics.pod_start.observe((), time.monotonic() - self._first_seen)
            self._first_seen = None
        self._parts.statuses.set(pod, status, urgent=urgent and news)

    def _publish(self, pod: Object, *, ended: bool = False) -> Object:
        """Have the status written as it is now; returns it."""
        status = self._status(pod, self._parts.view.pod(self.uid), ended=ended)
        self._tell_status(pod, status, urgent=True)
        return status

    # doing

    async def _carry_out(self, pod: Object, runtime: PodRuntime, actions: Actions) -> None:
        for kill in actions.kill:
            self._begin_kill(pod, runtime, kill)
        if actions.finish:
            await self._finish(pod, runtime)
            return
        sandbox = None
        if actions.create_sandbox:
            runtime, sandbox = await self._house.new_sandbox(
                pod, runtime, actions.attempt, list(self._kills.values())
            )
            if sandbox is None:
                return
        elif actions.start and not await self._house.volumes(pod, runtime):
            return
        if runtime.ready_sandbox is None:
            return
        if actions.start:
            await self._house.walls(pod, runtime)
            attempt = runtime.ready_sandbox.metadata.attempt
            config = sandbox or await self._house.sandbox_config(pod, attempt)
            for name in actions.start:
                container = pods.find_container(pod, name)
                if container is not None:
                    await self._start(pod, container, config)
            self._retry.reset()
            begun = self._parts.view.pod(self.uid)
            self._track(pod, begun)
            status = self._status(pod, begun)
            if status["phase"] not in ("Succeeded", "Failed"):
                self._tell_status(pod, status, urgent=True)
            # else it has ended already: that is told when its sidecars have, too

    async def _start(self, pod: Object, container: Object, config: PodSandboxConfig) -> None:
        name = container["name"]
        runtime = self._parts.view.pod(self.uid)
        sandbox = runtime.ready_sandbox
        if sandbox is None:
            return
        if self._retry.too_early(name):
            return
        newest = self._parts.statuses.newest(pod)
        remembered = {**pod, "status": newest.get("status")}
        try:
            await self._starter.start(
                remembered, container, sandbox.id, config, self._house.places, runtime
            )
        except StartFailed as failure:
            self._waiting[name] = (failure.reason, failure.message)
            if failure.retry_after is not None:
                self._retry.hold(name, failure.retry_after)
            return
        self._waiting.pop(name, None)
        # What this start leads to (the next init container, say) is decided in a new round.
        self.wake()
        self._restarting -= {c.id for c in runtime.named(name)}

    def _begin_kill(self, pod: Object, runtime: PodRuntime, kill: Kill) -> None:
        """Stop a container beside everything else; its end wakes the worker."""
        if kill.id in self._kills:
            return
        probe = self._parts.probes.unhealthy.get(kill.id, "")
        container = pods.find_container(pod, kill.name) or {}
        grace = self._parts.probes.grace_period(container, probe, pods.grace_period(pod))
        if self._hurry is not None:
            grace = min(grace, self._hurry)
        if kill.at_once:
            grace = 0
        if kill.restart:
            self._restarting.add(kill.id)

        async def stop() -> None:
            try:
                await kill_container(self._parts, pod, runtime, kill, grace)
            except CRIError as error:
                log.warning("%s: cannot stop container %s: %s", self._described(), kill.name, error)
                self._retry.soon()
            finally:
                self._kills.pop(kill.id, None)
                self.wake()

        self._kills[kill.id] = asyncio.create_task(stop(), name=f"kill {kill.name}")

    # the ends

    def _deadline_passed(self, pod: Object, started: str) -> bool:
        seconds = pod["spec"].get("activeDeadlineSeconds")
        if seconds is None:
            return False
        left = meta.parse_time(started) + timedelta(seconds=int(seconds)) - datetime.now(UTC)
        if left.total_seconds() > 0:
            self._retry.wake_after(left.total_seconds())
            return False
        return True

    async def _finish(self, pod: Object, runtime: PodRuntime) -> None:
        """Nothing of the pod runs any more, or shall: stop what is left, keep the records."""
        self._finished = True
        await self._settle(pod, runtime)

    async def _settle(self, pod: Object, runtime: PodRuntime) -> None:
        """Stop what a finished pod still has running, and tell how it ended."""
        if runtime.running() or self._kills:
            self._begin_stop(pod)
            return
        for sandbox in runtime.sandboxes:
            if sandbox.state is PodSandboxState.READY:
                await self._parts.runtime.stop_pod_sandbox(sandbox.id)
                await self._parts.view.refresh_sandbox(sandbox.id)
        self._publish(pod, ended=True)
        self._release()
        await self._parts.volumes.remove(self.uid)
        self.settled.set()

    def _begin_stop(self, pod: Object) -> None:
        """Stop all that runs, beside everything else; its end wakes the worker."""
        if self._stopping is not None:
            return

        async def stop() -> None:
            try:
                grace = pods.grace_period(pod)
                if self._hurry is not None:
                    grace = min(grace, self._hurry)
                await stop_in_order(self._parts, self.uid, pod, grace, dict(self._kills))
            except CRIError as error:
                log.warning("%s: cannot be stopped: %s", self._described(), error)
                self._retry.soon()
            finally:
                self._stopping = None
                self.wake()

        self._stopping = asyncio.create_task(stop(), name=f"stop {self.uid}")

    def _release(self) -> None:
        self._house.release()
        self._parts.claims.release(self.uid)
        self._parts.probes.forget_pod(self.uid)
        self._parts.objects.release(self.uid)
        self._parts.awaited.release(self.uid)
        self._parts.tokens.release(self.uid)

    async def _end(self) -> None:
        """The pod leaves this node."""
        self._retry.cancel()
        self._parts.probes.stop_restarts(self.uid)
        if self._stopping is not None:
            self._stopping.cancel()  # the deletion's own grace counts now
            await asyncio.gather(self._stopping, return_exceptions=True)
        if self._ending is None:
            self._ending = Ending(self._parts, self.uid, lambda: self.pod, self._publish_last)
            if self._unknown and self.pod is not None:
                self._ending.shorten(self.pod, known=False)
        ending = asyncio.create_task(self._ending.run(self._kills))
        try:
            await self._tell_until(ending)
        finally:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)
        self.settled.set()
        self._release()
        self.settled.set()
        if self.pod is not None:
            self._parts.images.release(self.pod)
            self._parts.walls.uncover(self.pod)
        self._on_gone(self.uid)

    async def _tell_until(self, ending: asyncio.Task[None]) -> None:
        """While the pod ends, which of its containers have done so is told as it happens.

        Raises:
            whatever ``ending`` ended with.
        """
        while True:
            waking = asyncio.create_task(self._wake.wait())
            await asyncio.wait((ending, waking), return_when=asyncio.FIRST_COMPLETED)
            waking.cancel()
            if ending.done():
                return ending.result()
            self._wake.clear()
            runtime = self._parts.view.pod(self.uid)
            if self.pod is not None and meta.is_deleting(self.pod) and runtime.running():
                self._track(self.pod, runtime)
                status = self._status(self.pod, runtime)
                self._parts.statuses.set(self.pod, status, urgent=False)

    def _publish_last(self) -> Object | None:
        """The last status of a pod that is still in the API."""
        if self.pod is None:
            return None
        return self._publish(self.pod, ended=True)


def _desired(pod: Object) -> tuple[Any, ...]:
    """What of a pod the kubelet acts upon."""
    return meta.generation(pod), pod["spec"], meta.labels(pod), meta.annotations(pod)
