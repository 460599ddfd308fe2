"""A WebSocket of which only the server speaks: what a watch and a followed log have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from aiohttp import web
from aiohttp.web_request import BaseRequest

_MOST_HEARD = 64 * 1024  # bytes of a message that nobody reads
_CLOSING = 2.0  # seconds the client has to answer a close


def is_wanted(request: BaseRequest) -> bool:
    """Whether the client asks for a WebSocket."""
    return request.headers.get("Upgrade", "").lower() == "websocket"


async def accept(request: BaseRequest, *protocols: str) -> web.WebSocketResponse:
    """The WebSocket that the client asked for, in one of ``protocols``."""
    socket = web.WebSocketResponse(
        protocols=protocols, timeout=_CLOSING, max_msg_size=_MOST_HEARD, compress=False
    )
    await socket.prepare(request)
    return socket


async def speak(socket: web.WebSocketResponse, tell: Coroutine[Any, Any, None]) -> None:
    """Run ``tell`` until it ends or the client closes, then close. Nobody heeds what it sends.

    Raises:
        Exception: what ended ``tell``.
    """

    async def hear() -> None:
        async for _ in socket:
            pass

    tasks = {asyncio.ensure_future(tell), asyncio.ensure_future(hear())}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await socket.close()
