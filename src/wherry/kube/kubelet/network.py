"""Whether the runtime connects pods: what the node says of itself, and what pods wait for.

Pods on the node's own network need not wait: what makes the others' network may be such a pod.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from wherry.engine.cri.types import ContainerRuntime, CRIError
from wherry.kube.client.backoff import Backoff

log = logging.getLogger(__name__)

PLUGIN_NOT_READY = "reason:NetworkPluginNotReady"


class PodNetwork:
    """Gives the runtime its ranges of addresses, and keeps asking whether all is well.

    ``tell`` hears why the node is not ready, or nothing; ``wake`` the uid of a pod that may go on.
    """

    def __init__(
        self, runtime: ContainerRuntime, tell: Callable[[str], None], wake: Callable[[str], None]
    ) -> None:
        self._runtime = runtime
        self._tell = tell
        self._wake = wake
        self._fault = ""
        self._known = asyncio.Event()
        self.awaits_plugins = asyncio.Event()  # it is others who must do something
        self._waiting: set[str] = set()
        self._cidr = ""
        self._task: asyncio.Task[None] | None = None

    def use(self, cidr: str) -> None:
        """The node's ranges are these, with commas in between; may be repeated."""
        if cidr != self._cidr:
            self._cidr = cidr
            self.close()
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

    async def _keep(self, cidr: str) -> None:
        backoff = Backoff(0.1, 10)
        while True:
            patience = None
            try:
                await self._runtime.update_runtime_config(cidr)
            except CRIError as error:
                self._found(f"container runtime network not ready: {error.message}")
                patience = backoff.next()
            else:
                self._found("")
                backoff.reset()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._runtime.network_changed()

    def _found(self, fault: str) -> None:
        if fault and fault != self._fault:
            log.error("pods of %s cannot be connected: %s", self._cidr, fault)
        self._fault = fault
        self._known.set()
        self._tell(fault)
        if PLUGIN_NOT_READY in fault:
            self.awaits_plugins.set()
        if not fault:
            waiting, self._waiting = self._waiting, set()
            for uid in waiting:
                self._wake(uid)
