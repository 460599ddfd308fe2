"""The tasks that tell the API of this machine as a Node: registration, status, Lease.

Follows pkg/kubelet/kubelet_node_status.go; what is told is made in ``node_status``. The Lease is
the heartbeat (every 10 s); the Node itself is written when something changed, at the least every 5
minutes. https://kubernetes.io/docs/reference/node/node-status/
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from wherry.engine.cri.types import ContainerRuntime, CRIError, RuntimeHandler
from wherry.kube.api import meta
from wherry.kube.api.conditions import holds
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import LEASES, NODES
from wherry.kube.client.backoff import Backoff
from wherry.kube.client.client import STRATEGIC_MERGE_PATCH, Client
from wherry.kube.client.recorder import EventRecorder
from wherry.kube.kubelet.machine import Machine
from wherry.kube.kubelet.node_status import (
    LEASE_NAMESPACE,
    conditions,
    extended,
    is_news,
    is_unknown,
    lease_object,
    node_object,
    node_status,
    status_patch,
)
from wherry.kube.kubelet.parts import KubeletConfig

log = logging.getLogger(__name__)

Object = dict[str, Any]

_PATIENCE = 10.0  # seconds: on a connection that died without a word one would wait for long


def silence(error: Exception) -> str:
    """Why nobody answered, empty where somebody did: it is for him to say what is wrong."""
    if isinstance(error, CRIError):
        return ""
    if isinstance(error, StatusError):
        return error.message if error.code >= 500 else ""
    cause = error if isinstance(error, TimeoutError) else error.__cause__ or error
    if isinstance(cause, ssl.SSLError):
        return ""  # he is not who he should be
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno)
    return "timed out" if isinstance(cause, TimeoutError) else str(error)


class NodeAgent:
    """Registers the node and keeps its status and its Lease alive."""

    def __init__(
        self,
        config: KubeletConfig,
        client: Client,
        runtime: ContainerRuntime,
        recorder: EventRecorder,
        machine: Machine,
        *,
        kubelet_version: str,
        on_pod_cidr: Callable[[str], None],
        pressure: Callable[[], Collection[str]],
    ) -> None:
        self._config = config
        self._client = client
        self._runtime = runtime
        self._recorder = recorder
        self._machine = machine
        self._kubelet_version = kubelet_version
        self._on_pod_cidr = on_pod_cidr
        self._pressure = pressure
        self._runtime_version = ""
        self._handlers: Sequence[RuntimeHandler] = ()
        self._not_ready = "container runtime network not ready: NetworkReady=false"
        self._changed = asyncio.Event()
        self.registered = asyncio.Event()
        self.told_ready = asyncio.Event()  # the API has been told that the node is Ready
        self._node: Object = {}
        self.observed = node_object(config, machine)  # as last seen: its labels, its taints
        self._silent = asyncio.Event()  # the API does not answer
        self._why_silent = ""
        self._lease: Object | None = None
        self._told = datetime.min.replace(tzinfo=UTC)

    @property
    def node(self) -> Object:
        """The Node as the API last answered it."""
        return self._node

    def set_ready(self, not_ready: str = "") -> None:
        """The node is Ready from now on, or not, with the reason."""
        if self._not_ready != not_ready:
            self._not_ready = not_ready
            self._changed.set()

    def something_changed(self) -> None:
        """Images, for one: look whether the status must be written."""
        self._changed.set()

    async def register(self) -> None:
        """Create the Node, or adjust the one that is there; tries until the API answers."""
        version = await self._runtime.version()
        self._runtime_version = f"{version['runtime_name']}://{version['runtime_version']}"
        self._handlers = await self._runtime.handlers()
        backoff = Backoff(0.05, 5)
        while True:
            try:
                await self._register()
            except (StatusError, ConnectionError, TimeoutError) as error:
                log.info("the node is not registered yet: %s", error)
                self._heard(error)
                await asyncio.sleep(backoff.next())
            else:
                self._heard()
                self.registered.set()
                return

    async def unheard(self, seconds: float) -> str:
        """Return when the API does not answer ``seconds`` from now, or later: why."""
        await asyncio.sleep(seconds)
        await self._silent.wait()
        return (
            f"the API server cannot be reached ({self._why_silent}); what runs goes on, and so "
            "will the rest when it can"
        )

    def _heard(self, error: Exception | None = None) -> None:
        """Note whether the API answers."""
        if error is not None and (why := silence(error)):
            self._why_silent = why
            self._silent.set()
        else:
            self._silent.clear()

    async def _register(self) -> None:
        wanted = node_object(self._config, self._machine)
        wanted["status"] = await self._status({})
        try:
            self._node = await self._client.create(NODES, wanted)
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise
            self._node = await self._client.get(NODES, self._config.node_name)
            labels = wanted["metadata"]["labels"]
            if any(meta.labels(self._node).get(k) != v for k, v in labels.items()):
                self._node = await self._client.patch(
                    NODES,
                    self._config.node_name,
                    {"metadata": {"labels": labels}},
                    content_type=STRATEGIC_MERGE_PATCH,
                )
        self.observed = self._node
        # One that was made anew has no range yet, whatever the one before it had.
        self._on_pod_cidr(_pod_cidrs(self._node))

    def observe(self, node: Object) -> None:
        """The Node as a watch shows it. Who says that he knows nothing of us is put right."""
        if is_unknown(node.get("status") or {}):
            self._node = node
            self._changed.set()
        if extended(node.get("status") or {}) != extended(self.observed.get("status") or {}):
            self._changed.set()
        self.observed = node
        self._take_pod_cidr(node)

    def _take_pod_cidr(self, node: Object) -> None:
        if cidrs := _pod_cidrs(node):
            self._on_pod_cidr(cidrs)

    async def keep_status(self) -> None:
        """Write the Node's status when it has news, until cancelled."""
        backoff = Backoff(0.1, 10)
        while True:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self.write_status()
                self._heard()
                backoff.reset()
                wait = self._config.settings.status_period
            except (StatusError, ConnectionError, TimeoutError, CRIError) as error:
                log.warning("the node's status was not written: %s", error)
                self._heard(error)
                wait = backoff.next()
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def write_status(self) -> None:
        """Write the Node's status if it has news, or the last one is five minutes old."""
        self._changed.clear()
        old = self._node.get("status") or {}
        status = await self._status(old)
        now = datetime.now(UTC)
        due = now - self._told >= timedelta(seconds=self._config.settings.report_period)
        if not due and not is_news(old, status):
            if _is_ready(status):
                self.told_ready.set()
            return
        was_ready = _is_ready(old)
        # Conditions are merged by their types.
        self._node = await self._client.patch(
            NODES,
            self._config.node_name,
            {"status": status_patch(old, status)},
            content_type=STRATEGIC_MERGE_PATCH,
            subresource="status",
        )
        self._told = now
        self._take_pod_cidr(self._node)
        if _is_ready(status):
            self.told_ready.set()
        if _is_ready(status) != was_ready:
            reason = "NodeReady" if _is_ready(status) else "NodeNotReady"
            self.tell(reason, f"Node {self._config.node_name} status is now: {reason}")

    def tell(self, reason: str, message: str, type_: str = "Normal") -> None:
        """Record an event of the node."""
        involved = {"kind": "Node", "name": self._config.node_name, "uid": self._config.node_name}
        self._recorder.event_on(involved, type_, reason, message)

    async def _status(self, old: Mapping[str, Any]) -> Object:
        return node_status(
            self._config,
            self._machine,
            runtime_version=self._runtime_version,
            kubelet_version=self._kubelet_version,
            images=await self._runtime.list_images(),
            handlers=self._handlers,
            conditions=conditions(
                self._pressure(), self._not_ready, old.get("conditions") or (), meta.now()
            ),
            extended=extended(self.observed.get("status") or {}),
        )

    async def keep_lease(self) -> None:
        """Renew the Lease every ten seconds, until cancelled."""
        backoff = Backoff(0.2, 7)
        while True:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._renew()
                backoff.reset()
                wait = self._config.settings.lease_seconds / 4
            except (StatusError, ConnectionError, TimeoutError) as error:
                log.warning("the node's lease was not renewed: %s", error)
                self._lease = None
                wait = backoff.next()
            await asyncio.sleep(wait)

    async def _renew(self) -> None:
        now = meta.now_micro()
        if self._lease is None:
            try:
                found = await self._client.get(LEASES, self._config.node_name, LEASE_NAMESPACE)
            except StatusError as error:
                if error.code != 404:
                    raise
                wanted = lease_object(self._config, meta.uid(self._node), now)
                self._lease = await self._client.create(LEASES, wanted)
                return
            self._lease = found
        spec = {
            **(self._lease.get("spec") or {}),
            "holderIdentity": self._config.node_name,
            "leaseDurationSeconds": self._config.settings.lease_seconds,
            "renewTime": now,
        }
        self._lease = await self._client.update(LEASES, {**self._lease, "spec": spec})


def _pod_cidrs(node: Object) -> str:
    """The ranges of its pods, with commas in between; empty where it has none yet."""
    spec = node.get("spec") or {}
    return ",".join(spec.get("podCIDRs") or filter(None, [spec.get("podCIDR")]))


def _is_ready(status: Object) -> bool:
    return holds(status.get("conditions") or (), "Ready")
