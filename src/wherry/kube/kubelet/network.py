"""Whether the runtime connects pods: what the node says of itself, and what pods wait for.

Pods on the node's own network need not wait: what makes the others' network may be such a pod.

Which ranges of addresses the node has is for the API to say. Until it does, static pods are
connected by those that the runtime still has from its last run; they make no node Ready. Where the
API then says others (the Node was made anew), pods with addresses of the former ones get new
sandboxes: nobody would be led to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Callable, Sequence

from wherry.engine.cri.types import POD_CIDR_IN_USE, ContainerRuntime, CRIError
from wherry.kube.client.backoff import Backoff

log = logging.getLogger(__name__)

PLUGIN_NOT_READY = "reason:NetworkPluginNotReady"


class PodNetwork:
    """Gives the runtime its ranges of addresses, and keeps asking whether all is well.

    ``tell`` hears why the node is not ready, or nothing; ``wake`` the uid of a pod that may go on;
    ``wake_all`` is called when there may be pods that it ``strands``.
    """

    def __init__(
        self,
        runtime: ContainerRuntime,
        tell: Callable[[str], None],
        wake: Callable[[str], None],
        wake_all: Callable[[], None],
    ) -> None:
        self._runtime = runtime
        self._tell = tell
        self._wake = wake
        self._wake_all = wake_all
        self._fault = ""
        self._known = asyncio.Event()
        self.awaits_plugins = asyncio.Event()  # it is others who must do something
        self._waiting: set[str] = set()
        self._cidr = ""
        self._said = False  # by the API, what ``_cidr`` is
        self._in_use = False  # other ranges are
        self._task: asyncio.Task[None] | None = None

    async def recall(self) -> None:
        """Use the ranges that the runtime still has until the API says which there are."""
        cidr = await self._runtime.pod_cidr()
        if cidr and not self._said:
            self._begin(cidr)

    def use(self, cidr: str) -> None:
        """The API says that the node's ranges are these, with commas in between, or, if empty, that
        it has none yet; may be repeated."""
        if cidr != self._cidr or not self._said:
            self._said = True
            self._begin(cidr)

    def _begin(self, cidr: str) -> None:
        self._cidr = cidr
        self.close()
        self._known.clear()
        self._in_use = False
        if cidr:
            self._task = asyncio.create_task(self._keep(cidr), name="pod network")

    def close(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()

    async def fault(self) -> str:
        """Why a pod cannot be connected now, empty where it can; waits until that is known."""
        await self._known.wait()
        return self._fault

    def wait(self, uid: str) -> None:
        """Pod ``uid`` is to be woken when there is no fault any more."""
        self._waiting.add(uid)

    def strands(self, ips: Sequence[str]) -> bool:
        """Whether a pod with these addresses must leave them before the node's ranges can be
        used; it is to be asked again when ``wake_all`` is called."""
        if not self._in_use or not ips:
            return False
        ranges = [ipaddress.ip_network(cidr) for cidr in self._cidr.split(",")]
        addresses = [ipaddress.ip_address(ip) for ip in ips]
        fits = len(addresses) == len(ranges)
        return not fits or any(all(a not in range for a in addresses) for range in ranges)

    async def _keep(self, cidr: str) -> None:
        backoff = Backoff(0.1, 10)
        while True:
            patience = None
            try:
                await self._runtime.update_runtime_config(cidr)
            except CRIError as error:
                self._found(f"container runtime network not ready: {error.message}")
                self._find_in_use(error.reason == POD_CIDR_IN_USE)
                patience = backoff.next()
            else:
                self._in_use = False
                self._found("")
                backoff.reset()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._runtime.network_changed()

    def _find_in_use(self, in_use: bool) -> None:
        before, self._in_use = self._in_use, in_use
        if in_use and not before:
            self._wake_all()

    def _found(self, fault: str) -> None:
        if fault and fault != self._fault:
            log.error("pods of %s cannot be connected: %s", self._cidr, fault)
        self._fault = fault
        self._known.set()
        if self._said:
            self._tell(fault)
        if PLUGIN_NOT_READY in fault:
            self.awaits_plugins.set()
        if not fault:
            waiting, self._waiting = self._waiting, set()
            for uid in waiting:
                self._wake(uid)
