"""End a pod: hooks, polite signal, grace, final signal; then its network, volumes, records.

https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination. It may begin
anew at any step after a kill of the kubelet: every step bears that it was done before.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from wherry.engine.cri.types import ContainerStatus, CRIError
from wherry.kube.api import meta
from wherry.kube.client.backoff import Backoff
from wherry.kube.kubelet import pods
from wherry.kube.kubelet.actions import Kill
from wherry.kube.kubelet.hooks import Target
from wherry.kube.kubelet.parts import Parts
from wherry.kube.kubelet.view import PodRuntime

log = logging.getLogger(__name__)

Object = dict[str, Any]
MINIMUM_GRACE = 2.0  # seconds that are left for the polite signal after a long preStop hook
# Seconds that Services have to turn to others when a pod is deleted, and that connections to it
# have to end; and the most that is of its grace.
WITHDRAWAL, MOST_WITHDRAWAL = 2.0, 0.5
LEAST_GRACE = 1  # seconds; for pods removed by force, or that the API no longer knows


async def kill_container(
    parts: Parts,
    pod: Object | None,
    runtime: PodRuntime,
    kill: Kill,
    grace: float,
    turn: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """Run the preStop hook, then stop the container, ``grace`` seconds in all.

    Where the pod is deleted, Services of this node lead nobody to it before it hears the signal,
    and for a short time it may finish what it was asked: a server that obeys at once loses none of
    its clients. (Those of other nodes learn of it at the same time as we, and are not waited for:
    there a preStop hook helps, as everywhere.)

    ``turn`` returns when those that must end before it have ended; it is waited for no longer than
    the grace lasts, between the hook and the signal.

    Raises:
        CRIError: the runtime could not stop it.
    """
    status = parts.view.container(kill.id)
    if status is None:
        return
    if pod is not None:
        container = pods.find_container(pod, kill.name) or {"name": kill.name}
        parts.tell_of(pod, container, "Normal", "Killing", kill.message)
    begun = time.monotonic()
    hook = _pre_stop(pod, status)
    if hook is not None and grace > 0:
        await _run_hook(parts, pod, runtime, status, hook, grace)
        grace = max(grace - (time.monotonic() - begun), MINIMUM_GRACE)
    if turn is not None:
        begun = time.monotonic()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(turn(), grace)
        grace = max(grace - (time.monotonic() - begun), min(grace, MINIMUM_GRACE))
    if pod is not None and meta.is_deleting(pod) and grace > LEAST_GRACE:
        begun = time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(WITHDRAWAL, MOST_WITHDRAWAL * grace)):
                for address in runtime.ips:
                    await parts.withdrawn(meta.namespace(pod), address)
        grace -= round(time.monotonic() - begun, 1)
    await parts.runtime.stop_container(kill.id, grace)
    await parts.view.refresh_container(kill.id)


async def stop_in_order(
    parts: Parts,
    uid: str,
    pod: Object | None,
    grace: float,
    kills: Mapping[str, asyncio.Task[None]],
) -> None:
    """Stop all that runs of a pod: app containers at once, then its sidecars in reverse order.

    ``kills`` are under way already.

    Raises:
        CRIError: one of them could not be stopped.
    """
    runtime = parts.view.pod(uid)
    names = [c["name"] for c in pods.init_containers(pod)] if pod is not None else []
    ranks = {name: len(names) - number for number, name in enumerate(names)}  # 0: the others
    rank = {c.id: ranks.get(c.metadata.name, 0) for c in runtime.running()}

    async def stop(container: ContainerStatus) -> None:
        async def turn() -> None:
            before = [id_ for id_, other in rank.items() if other < rank[container.id]]
            await asyncio.gather(*(parts.view.end_of(id_).wait() for id_ in before))

        name = container.metadata.name
        kill = Kill(container.id, name, f"Stopping container {name}")
        waits = turn if rank[container.id] else None
        await kill_container(parts, pod, runtime, kill, grace, waits)

    others = [c for c in runtime.running() if c.id not in kills]
    await asyncio.gather(*kills.values(), *(stop(c) for c in others))


def _pre_stop(pod: Object | None, status: ContainerStatus) -> Object | None:
    """The hook from the pod's spec, or from the container's record where the pod has gone."""
    container = pods.find_container(pod, status.metadata.name) if pod is not None else None
    if container is not None:
        hook: Object | None = (container.get("lifecycle") or {}).get("preStop")
        return hook
    text = status.annotations.get(pods.PRE_STOP)
    recorded: Object | None = json.loads(text) if text else None
    return recorded


async def _run_hook(
    parts: Parts,
    pod: Object | None,
    runtime: PodRuntime,
    status: ContainerStatus,
    hook: Object,
    grace: float,
) -> None:
    ports = json.loads(status.annotations.get(pods.PORTS) or "[]")
    target = Target(status.id, (runtime.ips or (parts.config.node_ip,))[0], ports)
    try:
        async with asyncio.timeout(grace):
            answer = await parts.asker.ask(hook, target, grace)
    except TimeoutError:
        log.info("preStop hook of %s did not complete in %g seconds", status.metadata.name, grace)
        return
    if not answer.ok and pod is not None:
        container = {"name": status.metadata.name}
        parts.tell_of(pod, container, "Warning", "FailedPreStopHook", "PreStopHook failed")


def _grace(pod: Object) -> int:
    return max(pods.grace_period(pod), LEAST_GRACE)


class Ending:
    """The end of one pod; ``pod`` gives it as the API has it (None: not any more).

    ``publish`` tells the last status and returns it.
    """

    def __init__(
        self,
        parts: Parts,
        uid: str,
        pod: Callable[[], Object | None],
        publish: Callable[[], Object | None],
    ) -> None:
        self._parts = parts
        self._uid = uid
        self._pod = pod
        self._publish = publish
        first = pod()
        self._grace: float = LEAST_GRACE if first is None else _grace(first)
        self._hurrying: set[asyncio.Task[None]] = set()

    def shorten(self, pod: Object, *, known: bool) -> None:
        """Less time may be given now: ``kubectl delete --now`` on a pod that already ends.

        One that the API does not know any more was removed by force, and gets the least.
        """
        grace = _grace(pod) if known else LEAST_GRACE
        if grace >= self._grace:
            return
        self._grace = grace
        for container in self._parts.view.pod(self._uid).running():
            task = asyncio.create_task(self._hurry(container.id, grace))
            self._hurrying.add(task)
            task.add_done_callback(self._hurrying.discard)

    async def _hurry(self, id_: str, grace: float) -> None:
        try:
            await self._parts.runtime.stop_container(id_, grace)
        except CRIError as error:
            log.warning("cannot stop container %s sooner: %s", id_, error)

    async def run(self, kills: Mapping[str, asyncio.Task[None]]) -> None:
        """Do it all; ``kills`` are under way already. Goes on trying where something resists."""
        await self._until_done(lambda: self._stop_all(kills))
        pod, status = self._pod(), self._publish()
        await self._until_done(lambda: self._parts.volumes.remove(self._uid))
        if pod is not None and meta.is_deleting(pod) and status is not None:
            # The records go while the API is told: they hold nothing that others wait for.
            telling = self._parts.statuses.finish(pod, status)
            await asyncio.gather(telling, self._until_done(self._remove_records))
        else:
            self._parts.statuses.forget(self._uid)
            await self._until_done(self._remove_records)

    async def _until_done(self, step: Callable[[], Any]) -> None:
        backoff = Backoff(0.5, 30)
        while True:
            try:
                await step()
                return
            except (CRIError, OSError) as error:
                log.warning("pod %s cannot be ended yet: %s", self._uid, error)
                await asyncio.sleep(backoff.next())

    async def _stop_all(self, kills: Mapping[str, asyncio.Task[None]]) -> None:
        parts = self._parts
        runtime = parts.view.pod(self._uid)
        pod = self._pod()
        await stop_in_order(parts, self._uid, pod, self._grace, kills)
        for sandbox in runtime.sandboxes:
            await parts.runtime.stop_pod_sandbox(sandbox.id)
            await parts.view.refresh_sandbox(sandbox.id)
        await parts.view.refresh(self._uid)

    async def _remove_records(self) -> None:
        parts = self._parts
        # Before the records: while there are any, a next kubelet knows that there is more to do.
        await asyncio.to_thread(parts.logs.remove_pod, self._uid, self._pod())
        for sandbox in parts.view.pod(self._uid).sandboxes:
            await parts.runtime.remove_pod_sandbox(sandbox.id)
        for container in (await parts.view.refresh(self._uid)).containers:
            await parts.runtime.remove_container(container.id)
        await parts.view.refresh(self._uid)
