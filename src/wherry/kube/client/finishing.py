"""Writes that are under way when their component is told to stop are seen through.

A cancelled request may still reach the server and take effect there, later than the stop. Whoever
takes over by then (the next leader, the same component started again) would look at the cluster
before that write and act a second time. So a component that acts on what it sees hands its place
over only when its last write is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from wherry.kube.client.transport import Object, Query, Transport

_LONGEST_SECONDS = 5.0


class FinishingTransport:
    """``inner``, with cancellation held back (for five seconds at most) until a write is over."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: object = None,
        content_type: str = "application/json",
    ) -> Object:
        """See ``Transport.request``."""
        request = self._inner.request(
            method, path, query=query, body=body, content_type=content_type
        )
        if method == "GET":
            return await request
        task = asyncio.ensure_future(request)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait((task,), timeout=_LONGEST_SECONDS)
            if not task.done():
                task.cancel()
            elif not task.cancelled():
                task.exception()  # nobody is left to hear of it
            raise

    def watch(self, path: str, query: Query = ()) -> AsyncIterator[tuple[str, Object]]:
        """See ``Transport.watch``."""
        return self._inner.watch(path, query)

    async def close(self) -> None:
        """Close ``inner``."""
        await self._inner.close()
