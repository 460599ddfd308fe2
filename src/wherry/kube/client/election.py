"""Which of several replicas acts: the one that holds a Lease.

Follows client-go's leaderelection: the holder renews every ``retry_period``; the others take over
once the lease has not changed for ``lease_duration`` by their own clock, so clocks need not agree.
A holder that could not renew for ``renew_deadline`` stops acting before another may begin.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import LEASES
from wherry.kube.client.client import Client
from wherry.kube.client.informer import Informer
from wherry.kube.client.transport import Object

log = logging.getLogger(__name__)

LEASE_DURATION = 15.0
RENEW_DEADLINE = 10.0
RETRY_PERIOD = 2.0


class LeadershipLost(Exception):
    """The lease could not be renewed in time; whoever led has been stopped."""


class LeaderElector:
    """One candidate for the Lease ``namespace/name``; ``identity`` must be unique among them.

    Times are in seconds.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        identity: str,
        *,
        namespace: str = "kube-system",
        lease_duration: float = LEASE_DURATION,
        renew_deadline: float = RENEW_DEADLINE,
        retry_period: float = RETRY_PERIOD,
    ) -> None:
        if not lease_duration > renew_deadline > retry_period > 0:
            raise ValueError("it must hold that lease_duration > renew_deadline > retry_period > 0")
        self._client = client
        self._name = name
        self._namespace = namespace
        self._identity = identity
        self._lease_duration = lease_duration
        self._renew_deadline = renew_deadline
        self._retry_period = retry_period
        self._observed: dict[str, Any] | None = None
        self._observed_at = 0.0
        self._denied = False  # said once, as it stays so until somebody does something
        self._latest = 0  # version seen since the attempt that is under way began

    @property
    def leading(self) -> bool:
        """Whether the lease, as last seen, is ours."""
        return self._observed is not None and self._observed["holderIdentity"] == self._identity

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Wait for the lease, then run ``lead`` for as long as it is held.

        Returns when ``lead`` does; the lease is given back then, and when this is cancelled.

        Raises:
            LeadershipLost: after ``lead`` was cancelled because the lease was lost.
        """
        await self._acquire()
        log.info("%s/%s: %s leads", self._namespace, self._name, self._identity)
        acting = asyncio.ensure_future(lead())
        renewing = asyncio.ensure_future(self._renew())
        try:
            await asyncio.wait((acting, renewing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (acting, renewing):
                task.cancel()
            await asyncio.gather(acting, renewing, return_exceptions=True)
            await self._release()
        if not acting.cancelled():
            acting.result()
            return
        raise LeadershipLost(f"lost the lease {self._namespace}/{self._name}")

    async def _acquire(self) -> None:
        """Return when the lease is ours; until then follow it, and ask only when it may be had."""
        informer = Informer(
            self._client,
            LEASES,
            namespace=self._namespace,
            field_selector=f"metadata.name={self._name}",
        )
        changed = asyncio.Event()

        def note(lease: Object, now: Object | None = None) -> None:
            self._observe(now or lease)
            changed.set()

        def forget(lease: Object) -> None:
            self._observed = None
            changed.set()

        informer.add_handlers(on_add=note, on_update=note, on_delete=forget)
        informer.start()
        try:
            while not await self._attempt():
                wait = self._retry_period
                if self._observed is not None and self._observed["holderIdentity"]:
                    expires = self._observed_at + self._lease_duration
                    wait = max(wait, expires - time.monotonic())
                changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._free(changed)
        finally:
            await informer.stop()

    async def _free(self, changed: asyncio.Event) -> None:
        """Return once the lease has no holder, or another term began (its time runs anew)."""
        holder = self._observed and self._observed["holderIdentity"]
        while True:
            await changed.wait()
            changed.clear()
            if self._observed is None or self._observed["holderIdentity"] != holder:
                return

    async def _renew(self) -> None:
        """Return when the lease was lost."""
        renewed = time.monotonic()
        while time.monotonic() - renewed < self._renew_deadline:
            await asyncio.sleep(self._retry_period)
            if await self._attempt():
                renewed = time.monotonic()
            elif self._observed is not None and not self.leading:
                return

    async def _attempt(self) -> bool:
        """Take or renew the lease; whether it is ours now."""
        try:
            async with asyncio.timeout(self._renew_deadline / 2):
                return await self._take()
        except (StatusError, ConnectionError, TimeoutError) as error:
            denied = isinstance(error, StatusError) and error.code == 403
            level = logging.WARNING if denied and not self._denied else logging.DEBUG
            self._denied = denied
            log.log(level, "%s/%s: %s", self._namespace, self._name, error)
            return False

    async def _take(self) -> bool:
        now = meta.now_micro()
        self._latest = 0  # a store may have been put back to what it was before
        try:
            lease = await self._client.get(LEASES, self._name, self._namespace)
        except StatusError as error:
            if error.code != 404:
                raise
            created = await self._client.create(
                LEASES,
                {
                    "apiVersion": LEASES.api_version,
                    "kind": LEASES.kind,
                    "metadata": {"name": self._name, "namespace": self._namespace},
                    "spec": self._spec(now, now, 0),
                },
            )
            self._observe(created)
            return True
        self._observe(lease)
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        expired = time.monotonic() - self._observed_at >= self._lease_duration
        if holder and holder != self._identity and not expired:
            return False
        transitions = int(spec.get("leaseTransitions") or 0)
        acquired = spec.get("acquireTime") or now
        if holder != self._identity:
            transitions, acquired = transitions + 1, now
        updated = await self._client.update(
            LEASES, {**lease, "spec": self._spec(acquired, now, transitions)}
        )
        self._observe(updated)
        return True

    async def _release(self) -> None:
        """Give the lease back, so that the next need not wait for it to run out.

        A renewal that was cancelled on its way may be written all the same, before this or after:
        so the lease is read anew, and once more if it changed in between.
        """
        if not self.leading:
            return
        try:
            async with asyncio.timeout(self._renew_deadline / 2):
                while not await self._hand_back():
                    pass
        except (StatusError, ConnectionError, TimeoutError) as error:
            log.info("the lease %s was not given back: %s", self._name, error)

    async def _hand_back(self) -> bool:
        """Write the lease without a holder; false if it changed since it was read."""
        lease = await self._client.get(LEASES, self._name, self._namespace)
        self._observe(lease)
        if not self.leading:
            return True
        now = meta.now_micro()
        spec = self._spec(now, now, lease["spec"].get("leaseTransitions", 0))
        spec |= {"holderIdentity": "", "leaseDurationSeconds": 1}
        try:
            self._observe(await self._client.update(LEASES, {**lease, "spec": spec}))
        except StatusError as error:
            if error.code != 409:
                raise
            return False
        return True

    def _spec(self, acquired: str, renewed: str, transitions: int) -> dict[str, Any]:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, int(self._lease_duration)),
            "acquireTime": acquired,
            "renewTime": renewed,
            "leaseTransitions": transitions,
        }

    def _observe(self, lease: Object) -> None:
        """Note a state of the lease, unless a later one is known: what is watched may be told
        sooner than what was asked before."""
        version = int(lease["metadata"]["resourceVersion"])
        if version < self._latest:
            return
        self._latest = version
        spec = dict(lease.get("spec") or {})
        spec.setdefault("holderIdentity", "")
        if spec != self._observed:
            self._observed, self._observed_at = spec, time.monotonic()
