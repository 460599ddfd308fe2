"""Answers that are streams of JSON messages: load, pull, push, import."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from wherry.engine.errors import EngineError
from wherry.engine.image import progress


class Messages:
    """A stream of messages; what fails after the first is told in the stream itself."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.response = web.StreamResponse(headers={"Content-Type": "application/json"})

    async def start(self) -> None:
        """Answer, before there is a message."""
        if not self.response.prepared:
            await self.response.prepare(self._request)

    async def send(self, message: progress.Message) -> None:
        """Tell the client."""
        await self.start()
        await self.response.write(orjson.dumps(message) + b"\r\n")

    async def __aenter__(self) -> Messages:
        return self

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if error is not None:
            if not isinstance(error, EngineError) or not self.response.prepared:
                return False
            await self.send(progress.failure(error.message))
        await self.response.write_eof()
        return True
