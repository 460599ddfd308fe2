"""A log over a WebSocket: its bytes in messages, for clients that cannot read a long answer.

What the client sends is not listened to; its close ends the log.
Upstream: k8s.io/apiserver/pkg/util/wsstream, Reader.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.web_request import BaseRequest

_PLAIN = "binary.k8s.io"
_ENCODED = "base64.binary.k8s.io"
_MOST_HEARD = 64 * 1024  # bytes of a message that nobody reads
_CLOSING = 2.0  # seconds the client has to answer a close


def is_wanted(request: BaseRequest) -> bool:
    """Whether the client asks for a WebSocket."""
    return request.headers.get("Upgrade", "").lower() == "websocket"


async def stream(request: BaseRequest, pieces: AsyncIterator[bytes]) -> web.StreamResponse:
    """Tell ``pieces`` until they end or the client goes; an empty message comes first."""
    socket = web.WebSocketResponse(
        protocols=(_PLAIN, _ENCODED), timeout=_CLOSING, max_msg_size=_MOST_HEARD, compress=False
    )
    await socket.prepare(request)
    encoded = socket.ws_protocol == _ENCODED

    async def send(data: bytes) -> None:
        if encoded:
            await socket.send_str(base64.b64encode(data).decode("ascii"))
        else:
            await socket.send_bytes(data)

    async def tell() -> None:
        await send(b"")
        async for piece in pieces:
            await send(piece)

    async def hear() -> None:
        async for _ in socket:
            pass

    tasks = {asyncio.ensure_future(tell()), asyncio.ensure_future(hear())}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            # A kubelet or a client that breaks off ends the log, nothing more.
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await socket.close()
    return socket
