"""What a pod's containers live in: its volumes, its sandbox, the walls around it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from wherry.engine.cri.types import CRIError, PodSandboxConfig
from wherry.kube.api.errors import StatusError
from wherry.kube.kubelet import containers, machine, pod_volumes, pods, resolver
from wherry.kube.kubelet.environment import ConfigError
from wherry.kube.kubelet.manifests import is_static
from wherry.kube.kubelet.parts import Parts
from wherry.kube.kubelet.resizer import Resizer
from wherry.kube.kubelet.retries import Retries
from wherry.kube.kubelet.starter import Guard, Starter
from wherry.kube.kubelet.user_namespaces import NoRange
from wherry.kube.kubelet.view import PodRuntime
from wherry.kube.kubelet.volumes.place import Place

Object = dict[str, Any]

SANDBOX_CHANGED = "Pod sandbox changed, it will be killed and re-created."
SANDBOX, VOLUMES = "/sandbox", "/volumes"  # stand among the names of containers
VOLUMES_RETRY_LONGEST = 10.0  # a claim that is bound must not wait for long


class Surroundings:
    """Those of one pod. ``renew`` is called when something of its volumes becomes too old."""

    def __init__(
        self,
        parts: Parts,
        uid: str,
        retries: Retries,
        resizer: Resizer,
        starter: Starter,
        *,
        unless_leaving: Guard,
        renew: Callable[[], None],
    ) -> None:
        self._parts = parts
        self._uid = uid
        self._retries = retries
        self._resizer = resizer
        self._starter = starter
        self._unless_leaving = unless_leaving
        self._renew = renew
        self._renewal: asyncio.TimerHandle | None = None
        self._there = False
        self.volumes_due = True
        self.places: dict[str, Place] = {}

    async def new_sandbox(
        self, pod: Object, runtime: PodRuntime, attempt: int, kills: Sequence[asyncio.Task[None]]
    ) -> tuple[PodRuntime, PodSandboxConfig | None]:
        """Replace or make the sandbox; the volumes must be there before, ``kills`` be over."""
        parts = self._parts
        if parts.network.strands(runtime.ips):
            await self._strike(runtime, kills)
        if self._retries.too_early(SANDBOX) or not await self._network(pod):
            return runtime, None
        if runtime.sandboxes:
            parts.tell(pod, "Normal", "SandboxChanged", SANDBOX_CHANGED)
            if kills:
                await self._unless_leaving(asyncio.wait(kills))
            for old in runtime.sandboxes:
                await parts.runtime.remove_pod_sandbox(old.id)
            runtime = await parts.view.refresh(self._uid)
        if not await self.volumes(pod, runtime):
            return runtime, None
        try:
            config = await self.sandbox_config(pod, attempt)
        except (ConfigError, StatusError, NoRange) as error:
            self._no_sandbox(pod, str(error))
            return runtime, None
        config.log_directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        try:
            id_ = await parts.runtime.run_pod_sandbox(config)
        except CRIError as error:
            self._no_sandbox(pod, error.message)
            return runtime, None
        parts.metrics.started_pods.add()
        await parts.view.refresh_sandbox(id_)
        runtime = parts.view.pod(self._uid)
        # Files made before the pod had its address may tell of it.
        self.volumes_due = parts.volumes.needs_refresh(pod)
        if self.volumes_due:
            await self.volumes(pod, runtime)
        return runtime, config

    async def _strike(self, runtime: PodRuntime, kills: Sequence[asyncio.Task[None]]) -> None:
        """Have the pod give back its addresses, for which the new ones wait."""
        if kills:
            await self._unless_leaving(asyncio.wait(kills))
        for sandbox in runtime.sandboxes:
            await self._parts.runtime.stop_pod_sandbox(sandbox.id)

    async def _network(self, pod: Object) -> bool:
        """Whether there is a network to connect the pod to; it is woken when there is."""
        if pods.is_host_network(pod):
            return True
        network = self._parts.network
        fault = await self._unless_leaving(network.fault())
        if fault:
            network.wait(self._uid)
            self._parts.tell(pod, "Warning", "NetworkNotReady", f"network is not ready: {fault}")
        return not fault

    def _no_sandbox(self, pod: Object, why: str) -> None:
        text = f"Failed to create pod sandbox: {why}"
        self._parts.tell(pod, "Warning", "FailedCreatePodSandBox", text)
        self._retries.hold(SANDBOX, self._retries.next())

    async def sandbox_config(self, pod: Object, attempt: int) -> PodSandboxConfig:
        """What the sandbox is made from.

        Raises:
            ConfigError, StatusError, NoRange: there can be no such sandbox.
        """
        config = self._parts.config
        path = config.settings.resolv_conf
        dns, complaints = resolver.dns_config(
            pod, config.cluster_dns, config.cluster_domain, machine.host_dns(path), path
        )
        for complaint in complaints:
            self._parts.tell(pod, "Warning", "DNSConfigForming", complaint)
        users = None
        if pod["spec"].get("hostUsers") is False:
            users = self._parts.users.allocate(self._uid)
        made = containers.sandbox_config(
            pod,
            attempt,
            node_name=config.node_name,
            logs=config.pod_logs,
            dns=dns,
            cluster_domain=config.cluster_domain,
            runtime_handler=await self._parts.runtime_classes.handler(pod),
            user_range=users,
        )
        return replace(made, resources=self._resizer.pod_resources(pod))

    async def volumes(self, pod: Object, runtime: PodRuntime) -> bool:
        """Make the pod's volumes if they are due; whether they are there."""
        if not self.volumes_due:
            return True
        if self._retries.too_early(VOLUMES):
            return self._there
        parts = self._parts
        self.volumes_due = False
        try:
            facts = self._starter.facts(pod, runtime)
            prepared = await self._unless_leaving(pod_volumes.prepare(parts, pod, facts))
        except BaseException:
            self.volumes_due = True
            raise
        self.places, self._there = prepared.places, prepared.complete(pod)
        for fault in prepared.faults:
            parts.tell(pod, "Warning", "FailedMount", fault)
        if prepared.faults:
            self.volumes_due = True
            self._retries.hold(VOLUMES, min(self._retries.next(), VOLUMES_RETRY_LONGEST))
        renewal = parts.tokens.next_renewal(self._uid)
        if renewal is not None:
            self._renew_at(renewal)
        return self._there

    async def walls(self, pod: Object, runtime: PodRuntime) -> None:
        """Return when what the pod sends and gets is judged; nobody judges the node's network."""
        if not pods.is_host_network(pod):
            cover = self._parts.walls.cover(pod, runtime.ips, alone=is_static(pod))
            await self._unless_leaving(cover)

    def _renew_at(self, moment: float) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
        delay = max(1.0, moment - datetime.now(UTC).timestamp())
        self._renewal = asyncio.get_running_loop().call_later(delay, self._renew)

    def release(self) -> None:
        """The pod has ended: nothing is renewed any more."""
        if self._renewal is not None:
            self._renewal.cancel()
