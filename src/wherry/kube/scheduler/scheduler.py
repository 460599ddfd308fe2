"""The loop: takes one pod after the other, decides, binds.

Deciding waits for nothing; what it decides is *assumed* at once, so that the next pod is decided
while this one is being bound. Binding may fail: then the assumption is taken back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import NODES, PODS
from wherry.kube.client.client import Client
from wherry.kube.client.informer import SharedInformers
from wherry.kube.client.transport import Object
from wherry.kube.scheduler.algorithm import Algorithm, Candidates, Unfit, message
from wherry.kube.scheduler.config import DEFAULT_NAME, Configuration, ConfigurationError
from wherry.kube.scheduler.extenders import ExtenderError, Extenders
from wherry.kube.scheduler.following import Following
from wherry.kube.scheduler.framework import Change, Cycle, Hint, Rejection
from wherry.kube.scheduler.nominations import Nominations
from wherry.kube.scheduler.queue import Entry, SchedulingQueue
from wherry.kube.scheduler.room import Room, least_harm
from wherry.kube.scheduler.snapshot import PodInfo, Snapshot
from wherry.kube.scheduler.telling import Telling

log = logging.getLogger(__name__)

_BINDINGS_AT_ONCE = 256
_LONGEST_TURN = 0.002
"""Seconds for which pods are decided before others on this loop have their turn."""


class Rejected(Exception):
    """A plugin objected behind the decision (Reserve, Permit, PreBind)."""

    def __init__(self, plugin: str, verdict: Rejection) -> None:
        super().__init__(", ".join(verdict.reasons))
        self.plugin = plugin


class Scheduler:
    """Gives nodes to pods of the configured scheduler names."""

    def __init__(
        self, client: Client, configuration: Configuration, informers: SharedInformers
    ) -> None:
        self.client = client
        self.informers = informers
        self.snapshot = Snapshot()
        self.nominations = Nominations()
        self.extenders = Extenders(configuration.extenders)
        self.algorithms: dict[str, Algorithm] = {}
        self._ready = False
        for profile in configuration.profiles:
            if profile.scheduler_name in self.algorithms:
                raise ConfigurationError(f'profile "{profile.scheduler_name}" is there twice')
            self.algorithms[profile.scheduler_name] = Algorithm(
                configuration.complete(profile),
                client,
                self.snapshot,
                informers,
                percentage_of_nodes=configuration.percentage_of_nodes,
                nominations=self.nominations,
                wake=self._wake,
            )
        first = next(iter(self.algorithms.values()))
        self.telling = {name: Telling(client, name, self._spawn) for name in self.algorithms}
        self.queue = SchedulingQueue(configuration, first.sort.key, self._gate, self._hint)
        self._hints = {
            (name, plugin.name): plugin.helped_by()
            for name, algorithm in self.algorithms.items()
            for plugin in algorithm.plugins
        }
        self._tasks: set[asyncio.Task[None]] = set()
        self._binding = asyncio.Semaphore(_BINDINGS_AT_ONCE)
        self.pods = informers.informer(PODS)
        self.following = Following(
            self.snapshot,
            self.queue,
            self.nominations,
            lambda pod: self._algorithm(pod) is not None,
        )
        self.following.follow(informers.informer(NODES), self.pods)

    async def run(self) -> None:
        """Work until cancelled."""
        for telling in self.telling.values():
            telling.recorder.start()
        await self.informers.wait_synced()
        self._ready = True
        try:
            while True:
                await self._try(await self.queue.pop())
                turn = time.monotonic() + _LONGEST_TURN
                while time.monotonic() < turn and (entry := self.queue.pop_now()) is not None:
                    await self._try(entry)
                await asyncio.sleep(0)  # others on this loop have their turn
        finally:
            self.queue.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.gather(*(t.recorder.stop() for t in self.telling.values()))
            await self.extenders.close()

    # -- what plugins say to the queue

    def _algorithm(self, pod: Object) -> Algorithm | None:
        return self.algorithms.get(pod["spec"].get("schedulerName") or DEFAULT_NAME)

    def _wake(self, change: Change, old: Object | None, new: Object | None) -> None:
        if self._ready:  # until then nothing waits
            self.queue.wake(change, old, new)

    def _gate(self, pod: PodInfo) -> str | None:
        algorithm = self._algorithm(pod.object)
        for plugin in algorithm.pre_enqueue if algorithm is not None else ():
            verdict = plugin.pre_enqueue(pod.object)
            if verdict is not None:
                assert algorithm is not None
                self._tell(algorithm).gated(pod, ", ".join(verdict.reasons))
                return plugin.name
        return None

    def _hint(self, pod: PodInfo, plugin: str, change: Change) -> Hint | None:
        algorithm = self._algorithm(pod.object)
        if algorithm is None:
            return None
        hints = self._hints.get((algorithm.profile.scheduler_name, plugin))
        return hints.get(change) if hints is not None else None

    # -- one pod

    async def _try(self, entry: Entry) -> None:
        pod = entry.pod
        algorithm = self._algorithm(pod.object)
        assert algorithm is not None
        try:
            if self.extenders.concern(pod):
                node, cycle = await self._choose_with_extenders(entry, algorithm)
            else:
                found, cycle = algorithm.choose(pod)
                node = found.name
        except Unfit as unfit:
            await self._unfit(entry, algorithm, unfit)
            return
        except ExtenderError as error:
            self.queue.retry(entry, None)
            self._tell(algorithm).failed(pod, "SchedulerError", str(error))
            return
        except Exception as error:
            # A fault in a plugin: this pod may be the only one it concerns.
            log.exception("deciding for pod %s", pod.key)
            self.queue.retry(entry, None)
            self._tell(algorithm).failed(pod, "SchedulerError", f"running plugins: {error}")
            return
        self.snapshot.put(pod, node)
        try:
            # In one piece with the decision, so that the next pod finds it taken.
            for reserve in algorithm.reserves:
                _heed(reserve.name, reserve.reserve(cycle, pod, node))
        except Exception as error:
            self._not_placed(entry, algorithm, cycle, node, error)
            return
        self.nominations.remove(pod.uid)
        self._spawn(self._place(entry, algorithm, cycle, node))

    async def _choose_with_extenders(self, entry: Entry, algorithm: Algorithm) -> tuple[str, Cycle]:
        """Services of the user's own have a say, too; meanwhile the cluster may change, so that
        what they chose is asked about once more."""
        pod = entry.pod
        candidates = algorithm.find(pod, all_of_them=True)
        assert isinstance(candidates, Candidates)
        await self.extenders.narrow(pod, candidates)
        if not candidates.nodes:
            diagnosis = candidates.diagnosis
            text = message(len(self.snapshot.nodes), diagnosis)
            raise Unfit(text, replace(diagnosis, rejected_by=set()), candidates.cycle)
        chosen = candidates.best()
        again = algorithm.find(pod, all_of_them=True)
        assert isinstance(again, Candidates)
        if all(node.name != chosen.name for node in again.nodes):
            raise ExtenderError(f'node "{chosen.name}" does not fit any more')
        return chosen.name, again.cycle

    def _tell(self, algorithm: Algorithm) -> Telling:
        return self.telling[algorithm.profile.scheduler_name]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _place(self, entry: Entry, algorithm: Algorithm, cycle: Cycle, node: str) -> None:
        """Bind the pod to the node it is assumed on; take the assumption back if that fails."""
        pod = entry.pod
        try:
            for permit in algorithm.permits:
                _heed(permit.name, await permit.permit(cycle, pod, node))
            for pre_bind in algorithm.pre_binds:
                _heed(pre_bind.name, await pre_bind.pre_bind(cycle, pod, node))
            async with self._binding:
                if not await self.extenders.bind(pod, node):
                    for bind in algorithm.binds:
                        if await bind.bind(cycle, pod, node):
                            break
        except Exception as error:
            self._not_placed(entry, algorithm, cycle, node, error)
            return
        self._tell(algorithm).placed(pod, node)
        for post_bind in algorithm.post_binds:
            post_bind.post_bind(cycle, pod, node)

    def _not_placed(
        self, entry: Entry, algorithm: Algorithm, cycle: Cycle, node: str, error: Exception
    ) -> None:
        pod = entry.pod
        for reserve in reversed(algorithm.reserves):
            reserve.unreserve(cycle, pod, node)
        live = self.pods.get(meta.namespace(pod.object), meta.name(pod.object))
        if live is None or meta.uid(live) != pod.uid or live["spec"].get("nodeName"):
            return  # it went, or somebody else was quicker; the informer has told us already
        self.snapshot.remove(pod.uid)
        self.queue.wake(Change.POD_REMOVED, pod.object, None)
        if isinstance(error, StatusError) and error.code == 404:
            self.queue.remove(pod.uid)
            return
        if isinstance(error, Rejected):
            self.queue.retry(entry, {error.plugin}, must_wait=True)
        else:
            if not isinstance(error, StatusError | ConnectionError | TimeoutError | ExtenderError):
                log.error("binding pod %s", pod.key, exc_info=error)
            self.queue.retry(entry, None)
        reason = "Unschedulable" if isinstance(error, Rejected) else "SchedulerError"
        self._tell(algorithm).failed(pod, reason, str(error))

    async def _unfit(self, entry: Entry, algorithm: Algorithm, unfit: Unfit) -> None:
        """Find out how room could be made, say why not now, wait."""
        pod, diagnosis = entry.pod, unfit.diagnosis
        telling = self._tell(algorithm)
        room = Room()
        for plugin in algorithm.post_filters if diagnosis.verdicts else ():
            room = plugin.post_filter(unfit.cycle, pod, diagnosis)
            if room.node:
                break
        if room.candidates and self.extenders.concern(pod):
            room = await self._considered(pod, room)
        nominated: str | None = None
        if room.node:
            nominated = room.node
            for other in self.nominations.behind(pod, room.node):
                self.nominations.remove(other.uid)
                telling.renounced(other)
            self.nominations.put(pod, room.node)
        elif room.hopeless and self.nominations.node_of(pod.uid):
            nominated = ""
            self.nominations.remove(pod.uid)
        for victim in room.victims:
            self._spawn(telling.evict(victim, pod, room.node))
        # Without a plugin to blame it was an extender, who is not to be asked all the time.
        blamed = set(diagnosis.rejected_by)
        self.queue.retry(entry, blamed, must_wait=not blamed)
        telling.failed(pod, "Unschedulable", f"{unfit} {room.message}".rstrip(), nominated)

    async def _considered(self, pod: PodInfo, room: Room) -> Room:
        """What extenders leave of the room that could be made."""
        try:
            left = await self.extenders.consider(pod, room.candidates)
        except ExtenderError as error:
            return Room(f"preemption: {error}")
        if not left:
            return Room("preemption: extenders leave no node where room can be made.")
        best = least_harm(left)
        return Room(node=best.node, victims=best.victims)


def _heed(plugin: str, verdict: Rejection | None) -> None:
    if verdict is not None:
        raise Rejected(plugin, verdict)
