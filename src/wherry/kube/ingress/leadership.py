"""Which of several controllers writes statuses: the one that holds a Lease. All of them serve.

The Lease and its times are those of ingress-nginx (internal/ingress/controller/status.go there).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from wherry.host.tasks import run_until
from wherry.kube.client.client import Client
from wherry.kube.client.election import LeaderElector, LeadershipLost

log = logging.getLogger(__name__)

TTL = 30.0
"""Seconds after which others take over from one that is silent."""


class Leadership:
    """The leadership that one controller has, or waits for.

    Args:
        candidate: makes what stands for election; None: the controller has nobody beside it.
    """

    def __init__(self, candidate: Callable[[], LeaderElector] | None = None) -> None:
        self._candidate = candidate
        self._resigned = asyncio.Event()
        self._leads = False

    @property
    def held(self) -> bool:
        """Whether it is for this controller to write."""
        return self._leads and not self._resigned.is_set()

    async def run(self, gained: Callable[[], None]) -> None:
        """Stand for election until cancelled; ``gained`` is called each time it is won."""
        await run_until(self._resigned, self._stand(gained))
        await asyncio.get_running_loop().create_future()

    def resign(self) -> None:
        """Lead no longer, for good; the next one need not wait for the Lease to run out."""
        self._resigned.set()

    async def _stand(self, gained: Callable[[], None]) -> None:
        async def lead() -> None:
            self._leads = True
            gained()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._leads = False

        if self._candidate is None:
            await lead()
            return
        while True:
            try:
                await self._candidate().run(lead)
            except LeadershipLost as error:
                log.warning("statuses may be written by another controller now: %s", error)


def by_lease(
    client: Client, namespace: str, name: str, identity: str, ttl: float = TTL
) -> Leadership:
    """That of all who know of the Lease ``namespace/name``.

    Args:
        client: of whoever may write the Lease.
        identity: no other's at the same time. Who comes back by the same one need not wait.
        ttl: seconds, as ``TTL``.
    """
    return Leadership(
        lambda: LeaderElector(
            client,
            name,
            identity,
            namespace=namespace,
            lease_duration=ttl,
            renew_deadline=ttl / 2,
            retry_period=ttl / 4,
        )
    )
