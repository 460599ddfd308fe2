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

from wherry.kube.apiserver import telling_socket

_PLAIN = "binary.k8s.io"
_ENCODED = "base64.binary.k8s.io"


async def stream(request: BaseRequest, pieces: AsyncIterator[bytes]) -> web.StreamResponse:
    """Tell ``pieces`` until they end or the client goes; an empty message comes first."""
    socket = await telling_socket.accept(request, _PLAIN, _ENCODED)
    encoded = socket.ws_protocol == _ENCODED

    async def send(data: bytes) -> None:
        if encoded:
            await socket.send_str(base64.b64encode(data).decode("ascii"))
        else:
            await socket.send_bytes(data)

    async def tell() -> None:
        # A kubelet or a client that breaks off ends the log, nothing more.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await send(b"")
            async for piece in pieces:
                await send(piece)

    await telling_socket.speak(socket, tell())
    return socket
