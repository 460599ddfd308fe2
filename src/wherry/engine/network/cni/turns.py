"""Who may call plugins at once: calls for pods beside each other, a collection all by itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Turns:
    """``shared`` and ``exclusive`` never at once, and one ``exclusive`` at most.

    Who wants to be alone waits as long as anybody shares: a plugin that hangs over one pod must not
    keep the others from starting.
    """

    def __init__(self) -> None:
        self._sharing = 0
        self._nobody, self._open = asyncio.Event(), asyncio.Event()
        self._nobody.set()
        self._open.set()

    @contextlib.asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Beside others."""
        while not self._open.is_set():
            await self._open.wait()
        self._sharing += 1
        self._nobody.clear()
        try:
            yield
        finally:
            self._sharing -= 1
            if not self._sharing:
                self._nobody.set()

    @contextlib.asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Alone."""
        while self._sharing or not self._open.is_set():
            await self._nobody.wait()
            await self._open.wait()
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()
