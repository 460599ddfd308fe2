"""Looks at what is left every ten seconds, and puts pods off the node when it is too little.

Disks are relieved first of what nobody needs (ended containers, unused images); one pod goes at a
time, and the next look comes as soon as it has gone. Follows pkg/kubelet/eviction/eviction_manager.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

from wherry.engine.cri.types import ContainerRuntime, ContainerStats, CRIError
from wherry.kube.api import meta
from wherry.kube.kubelet import pods as names
from wherry.kube.kubelet.config import Settings
from wherry.kube.kubelet.eviction import ranking
from wherry.kube.kubelet.eviction.ranking import NOTHING, Use
from wherry.kube.kubelet.eviction.storage import Storage
from wherry.kube.kubelet.eviction.thresholds import (
    CONDITIONS,
    PIDS,
    RESOURCES,
    Observation,
    Pressure,
    Threshold,
    crossed,
    look,
)
from wherry.kube.kubelet.view import RuntimeView

log = logging.getLogger(__name__)

Object = dict[str, Any]
PERIOD = 10.0
SOONER = 1.0  # while something is short
PATIENCE = 30.0  # seconds that an evicted pod gets to give back what it has


class Host(Protocol):
    """What the manager has done by others."""

    def active_pods(self) -> list[Object]:
        """The pods that have not ended."""

    def evict(self, pod: Object, reason: str, message: str, grace: int) -> None:
        """End a pod as Failed, ``grace`` seconds before SIGKILL."""

    async def cleared(self, pods: Iterable[Object]) -> None:
        """Wait until nothing of these pods runs or takes room any more."""

    def tell(self, pod: Object, type_: str, reason: str, message: str) -> None:
        """Record an event of a pod."""

    def pressure_changed(self) -> None:
        """The node's conditions are others than before."""

    def tell_node(self, type_: str, reason: str, message: str) -> None:
        """Record an event of the node."""


class EvictionManager:
    """One node's.

    Args:
        observe: reads what is left, by signal.
        relieve: frees what it can of the node's disk.
        count: hears the signal for which a pod goes.
        process_limit: how many processes a pod may have.
    """

    def __init__(
        self,
        settings: Settings,
        runtime: ContainerRuntime,
        view: RuntimeView,
        storage: Storage,
        host: Host,
        *,
        observe: Callable[[], Mapping[str, Observation]],
        relieve: Callable[[], Awaitable[None]],
        process_limit: int = 0,
        count: Callable[[str], None] = lambda _signal: None,
    ) -> None:
        self._count = count
        self._settings = settings
        self._runtime = runtime
        self._view = view
        self._storage = storage
        self._host = host
        self._observe = observe
        self._relieve = relieve
        self._process_limit = process_limit
        self._crowded: set[str] = set()
        self._pressure = Pressure.none()
        self._evicted: set[str] = set()
        self._going: list[Object] = []  # of the last look

    @property
    def conditions(self) -> frozenset[str]:
        """The conditions of pressure that the node has."""
        return self._pressure.conditions

    async def run(self) -> None:
        """Look and act until cancelled."""
        while True:
            try:
                acted = await self.round()
            except (CRIError, OSError) as error:
                log.warning("what the node has left cannot be seen: %s", error)
                acted = False
            await self._wait_for_room()
            await asyncio.sleep(SOONER if acted else PERIOD)

    async def _wait_for_room(self) -> None:
        """Whom it took what is short must give it back before anybody else has to go."""
        going, self._going = self._going, []
        if going:
            try:
                await asyncio.wait_for(self._host.cleared(going), PATIENCE)
            except TimeoutError:
                log.warning("evicted pods are not cleared away after %g s", PATIENCE)

    def look(self) -> Mapping[str, Observation]:
        """See what is left, and say so of the node."""
        seen = self._observe()
        before = self._pressure.conditions
        self._pressure = look(
            self._pressure,
            self._settings.thresholds,
            seen,
            time.monotonic(),
            self._settings.eviction_transition,
        )
        if self._pressure.conditions != before:
            self._host.pressure_changed()
        return seen

    async def round(self) -> bool:
        """One look; whether something had to be done."""
        pods = [p for p in self._host.active_pods() if meta.uid(p) not in self._evicted]
        self._evicted &= {meta.uid(p) for p in self._host.active_pods()}
        if await self._over_limits(pods):
            return True
        seen = self.look()
        await self._tell_crowded(pods, seen)
        if not self._pressure.active:
            return False
        threshold = min(self._pressure.active, key=_urgency)
        resource = RESOURCES[threshold.signal]
        text = f"Attempting to reclaim {resource}"
        self._host.tell_node("Warning", "EvictionThresholdMet", text)
        if CONDITIONS[threshold.signal] == "DiskPressure":
            try:
                await self._relieve()
            except (CRIError, OSError) as error:
                # On a disk without a byte left even removing may need one: a pod must go.
                log.warning("the node's disk is not relieved: %s", error)
            seen = self.look()
            if not crossed(self._pressure.active, seen, resolved=True):
                return True
        return await self._evict_one(pods, threshold, seen)

    async def _evict_one(
        self, pods: list[Object], threshold: Threshold, seen: Mapping[str, Observation]
    ) -> bool:
        going = [p for p in pods if not names.is_critical(p)]
        uses = await self._uses(going, threshold)
        for pod in ranking.ranked(going, uses, threshold.signal):
            use = uses.get(meta.uid(pod), NOTHING)
            text = ranking.message(pod, use, threshold, seen.get(threshold.signal))
            grace = self._settings.eviction_max_grace if threshold.soft else 1
            self._evict(pod, text, grace)
            self._count(threshold.signal)
            return True
        log.warning("the node is short of %s and no pod may go", RESOURCES[threshold.signal])
        return False

    def _evict(self, pod: Object, text: str, grace: int) -> None:
        self._evicted.add(meta.uid(pod))
        self._going.append(pod)
        self._host.evict(pod, "Evicted", text, grace)

    async def _uses(self, pods: list[Object], threshold: Threshold) -> dict[str, Use]:
        if CONDITIONS[threshold.signal] == "DiskPressure":
            found = {}
            for pod in pods:
                runtime = self._view.pod(meta.uid(pod))
                found[meta.uid(pod)] = (await self._storage.count(pod, runtime))[0]
            return found
        return by_pod(await self._runtime.container_stats())

    async def _tell_crowded(self, pods: list[Object], seen: Mapping[str, Observation]) -> None:
        """Tell of pods that have as many processes as they may, once each time it comes to that.

        They themselves see forks that fail, and nothing says why. Where the whole node has fewer
        processes than one pod may have, nobody need be counted.
        """
        left = seen.get(PIDS)
        limit = self._process_limit
        if left is None or not limit or left.capacity - left.available < limit:
            self._crowded.clear()
            return
        uses = by_pod(await self._runtime.container_stats())
        crowded = set()
        for pod in pods:
            uid = meta.uid(pod)
            # (What is at its limit loses and gains some all the time.)
            if uses.get(uid, NOTHING).pids >= limit * 0.95:
                crowded.add(uid)
                if uid not in self._crowded:
                    text = f"The pod has {limit} processes and threads, as many as it may: "
                    self._host.tell(pod, "Warning", "PodPidsLimit", text + "it can start no more")
        self._crowded = crowded

    async def _over_limits(self, pods: list[Object]) -> bool:
        """Pods that have written more than they may go at once, however much is left."""
        self._storage.forget({meta.uid(p) for p in pods})
        acted = False
        for pod in pods:
            uid = meta.uid(pod)
            if not ranking.has_limits(pod) or not self._storage.is_due(uid):
                continue
            use, volumes = await self._storage.count(pod, self._view.pod(uid))
            text = ranking.over_limit(pod, use, volumes)
            if text:
                self._evict(pod, text, 1)
                self._count("ephemeralpodfs.limit")
                acted = True
        return acted


def _urgency(threshold: Threshold) -> tuple[bool, bool]:
    """Memory before all else, what is hard before what is soft."""
    return threshold.signal != "memory.available", threshold.soft


def by_pod(stats: list[ContainerStats] | Any) -> dict[str, Use]:
    """Memory and processes by the pods' uids."""
    parts: dict[str, dict[str, Use]] = {}
    for one in stats:
        uid = one.labels.get(names.POD_UID, "")
        use = Use(memory=one.memory_working_set, pids=one.processes)
        parts.setdefault(uid, {})[one.labels.get(names.CONTAINER_NAME, "")] = use
    return {
        uid: Use(
            memory=sum(u.memory for u in own.values()),
            pids=sum(u.pids for u in own.values()),
            containers=own,
        )
        for uid, own in parts.items()
    }
