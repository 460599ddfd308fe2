"""What the kubelet does for the node as a whole: whom it takes, whom it puts off, what it tidies.

The pods' workers do the work; here it is decided, for all of them together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from wherry.engine.cri.types import ContainerRuntime, ContainerState, CRIError, LinuxResources
from wherry.kube.api import amounts, meta, quantity
from wherry.kube.kubelet import admission, pods, preemption, processes, resources
from wherry.kube.kubelet.config import ShutdownPriority
from wherry.kube.kubelet.eviction.manager import EvictionManager
from wherry.kube.kubelet.eviction.signals import observe
from wherry.kube.kubelet.eviction.storage import Storage
from wherry.kube.kubelet.image_gc import ImageCollector
from wherry.kube.kubelet.machine import Machine
from wherry.kube.kubelet.metrics import Metrics
from wherry.kube.kubelet.node import NodeAgent
from wherry.kube.kubelet.parts import KubeletConfig
from wherry.kube.kubelet.view import RuntimeView
from wherry.kube.kubelet.worker import PodWorker

log = logging.getLogger(__name__)

Object = dict[str, Any]
REPORT = 3.0  # seconds in which the API must have been told of pods that had all their time
SHUTDOWN = "Pod was terminated in response to imminent node shutdown."


class Housekeeping:
    """One node's; ``workers`` are the pods' by uid."""

    def __init__(
        self,
        config: KubeletConfig,
        runtime: ContainerRuntime,
        view: RuntimeView,
        workers: Mapping[str, PodWorker],
        machine: Machine,
        node: Callable[[], NodeAgent],
        allocatable: Mapping[str, str],
        metrics: Metrics,
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._runtime = runtime
        self._view = view
        self._workers = workers
        self._machine = machine
        self._node = node
        self._allocatable = allocatable
        self._tiers = asyncio.Event()
        self._shutting_down = False
        self.process_limit = processes.of_a_pod(config.settings.pod_pids_limit, machine.processes)
        self._images = ImageCollector(
            config.settings,
            runtime,
            config.root_dir,
            lambda type_, reason, text: self._node().tell(reason, text, type_),
        )
        self._eviction = EvictionManager(
            config.settings,
            runtime,
            view,
            Storage(runtime, config.root_dir, config.pod_logs),
            self,
            observe=lambda: observe(config.root_dir),
            relieve=self._relieve,
            count=lambda signal: metrics.evictions.add((signal,)),
            process_limit=self.process_limit,
        )

    @property
    def pressure(self) -> Collection[str]:
        """The node's conditions of pressure."""
        return self._eviction.conditions

    def look(self) -> None:
        """See how the node is, before it is told for the first time."""
        self._eviction.look()

    async def run(self) -> None:
        """Keep house until cancelled; the runtime's containers are known by now."""
        await self._view.loaded.wait()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._eviction.run())
            tasks.create_task(self._images.run())
            tasks.create_task(self._keep_tiers())

    # whom the node takes

    def admit(self, pod: Object) -> admission.Verdict:
        """Whether the node takes a pod that is new to it.

        What runs already was taken by an earlier kubelet, and stays.
        """
        uid = meta.uid(pod)
        if not self._view.pod(uid).is_empty() or meta.is_deleting(pod):
            return admission.Verdict()
        if pods.is_finished(pod):
            return admission.Verdict()
        known = (w.holds for key, w in self._workers.items() if key != uid and not w.unknown)
        return admission.judge(
            pod,
            [other for other in known if other is not None],
            self._node().observed,
            self._allocatable,
            pressure=self.pressure,
            unsafe_sysctls=self._config.settings.allowed_unsafe_sysctls,
            shutting_down=self._shutting_down,
        )

    def make_room(self, verdict: admission.Verdict) -> list[PodWorker]:
        """Put the pods off that go for a critical one; returns their workers."""
        going = []
        for pod in verdict.preempted:
            worker = self._workers.get(meta.uid(pod))
            if worker is not None:
                log.info("pod %s goes for a critical one", pods.describe(pod))
                worker.tell("Warning", preemption.REASON, preemption.MESSAGE)
                worker.fail(preemption.REASON, preemption.MESSAGE, disruption=preemption.CONDITION)
                self._metrics.preemptions.add((verdict.scarce,))
                going.append(worker)
        return going

    def active_pods(self) -> list[Object]:
        """The pods that have not ended, as they hold."""
        held = (worker.holds for worker in self._workers.values())
        return [pod for pod in held if pod is not None]

    def pods_changed(self) -> None:
        """Pods have come or gone: what groups of them may use is another."""
        self._tiers.set()

    # cgroups above the pods'

    async def _keep_tiers(self) -> None:
        uids = {f"pod{uid}" for uid in self._view.uids()}
        for tier in ("kubepods", "kubepods/besteffort", "kubepods/burstable"):
            await self._runtime.remove_groups(tier, uids | {"besteffort", "burstable"})
        self._tiers.set()
        while True:
            await self._tiers.wait()
            self._tiers.clear()
            active = self.active_pods()
            if not active:
                continue
            try:
                await self._runtime.update_group("kubepods", self._all_pods())
                for group, limits in resources.tier_resources(active).items():
                    await self._runtime.update_group(group, limits)
            except CRIError as error:
                log.warning("the groups of pods are not limited: %s", error)

    def _all_pods(self) -> LinuxResources:
        """What pods may use together: all but what is reserved."""
        settings = self._config.settings
        if not settings.enforce_allocatable:
            return LinuxResources()
        cpu, memory, pids = self._machine.cpus * 1000, self._machine.memory, 0
        for reserved in (settings.system_reserved, settings.kube_reserved):
            known = amounts.read(reserved)
            cpu -= known.get("cpu", quantity.ZERO).to_milli()
            memory -= known.get("memory", quantity.ZERO).to_int()
            pids += known.get("pid", quantity.ZERO).to_int()
        return LinuxResources(
            cpu_shares=resources.cpu_shares(max(0, cpu)),
            memory_limit=max(1 << 20, memory),
            pids_limit=processes.of_all_pods(self._machine.processes, pids),
        )

    # whom it puts off

    def evict(self, pod: Object, reason: str, message: str, grace: int) -> None:
        """End a pod as Failed."""
        worker = self._workers.get(meta.uid(pod))
        if worker is not None:
            log.info("evicting pod %s/%s: %s", meta.namespace(pod), meta.name(pod), message)
            worker.tell("Warning", reason, message)
            worker.fail(reason, message, grace=grace, disruption=message)

    async def cleared(self, pods: Iterable[Object]) -> None:
        """Wait until nothing of these pods runs or takes room any more."""
        workers = (self._workers.get(meta.uid(pod)) for pod in pods)
        await asyncio.gather(*(worker.settled.wait() for worker in workers if worker))

    def tell(self, pod: Object, type_: str, reason: str, message: str) -> None:
        """Record an event of a pod."""
        worker = self._workers.get(meta.uid(pod))
        if worker is not None:
            worker.tell(type_, reason, message)

    def pressure_changed(self) -> None:
        """The node's status has news."""
        self._node().something_changed()

    def tell_node(self, type_: str, reason: str, message: str) -> None:
        """Record an event of the node."""
        self._node().tell(reason, message, type_)

    async def _relieve(self) -> None:
        """Free the disk of containers that have ended and of images that nobody uses."""
        for container in self._view.containers():
            worker = self._workers.get(container.labels.get("io.kubernetes.pod.uid", ""))
            gone = worker is None or worker.holds is None
            if container.state is ContainerState.EXITED and gone:
                try:
                    await self._runtime.remove_container(container.id)
                except (CRIError, OSError) as error:
                    log.warning("container %s stays: %s", container.id[:12], error)
                await self._view.refresh_container(container.id)
        await self._images.free(at_once=True)

    # the end of the node

    async def shut_down(self) -> None:
        """End the pods as ``shutdownGracePeriod…`` says, those of least priority first.

        Nothing happens where no period is configured. New pods are refused from now on, and the
        node is told NotReady.
        """
        classes = self._config.settings.shutdown
        if not classes:
            return
        self._shutting_down = True
        self._node().set_ready("node is shutting down")
        for group, seconds in in_order(self.active_pods(), classes):
            ending = []
            for pod in group:
                worker = self._workers.get(meta.uid(pod))
                if worker is not None:
                    grace = pod["spec"].get("terminationGracePeriodSeconds")
                    most = int(seconds) if grace is None else min(int(grace), int(seconds))
                    worker.fail("Terminated", SHUTDOWN, grace=most, disruption=SHUTDOWN)
                    ending.append(worker.ended())
            if ending:
                try:
                    async with asyncio.timeout(seconds + REPORT):
                        await asyncio.gather(*ending)
                except TimeoutError:
                    log.warning("pods of one priority did not end in %g s", seconds)


def in_order(
    pods: Collection[Object], classes: Collection[ShutdownPriority]
) -> list[tuple[list[Object], float]]:
    """The pods class by class, ascending, with the seconds of each.

    A pod is of the highest class that is not above its priority, or of the lowest.
    """
    ascending = sorted(classes, key=lambda c: c.priority)
    groups: list[list[Object]] = [[] for _ in ascending]
    for pod in pods:
        priority = int(pod["spec"].get("priority") or 0)
        index = max((i for i, c in enumerate(ascending) if c.priority <= priority), default=0)
        groups[index].append(pod)
    return [(group, c.seconds) for group, c in zip(groups, ascending, strict=True)]
