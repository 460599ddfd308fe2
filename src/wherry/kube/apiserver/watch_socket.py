"""A watch over a WebSocket: a message an event, for clients that cannot read a long answer.

What the client sends is not listened to; its close ends the watch.
Upstream: k8s.io/apiserver/pkg/endpoints/handlers/watch.go, HandleWS.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence

from aiohttp import web
from aiohttp.web_request import BaseRequest

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver import render, telling_socket
from wherry.kube.apiserver.answers import Seen


async def stream(
    request: BaseRequest,
    batches: AsyncGenerator[Sequence[Seen], None],
    encode: Callable[[Sequence[Seen]], bytes],
    caught_up: Callable[[], None],
    patience: float,
) -> web.StreamResponse:
    """Tell a watch's events until it ends or the client goes.

    Args:
        encode: makes lines of events.
        caught_up: called where a batch is empty: what there was has been told.
        patience: seconds the client may leave a message unread.
    """
    socket = await telling_socket.accept(request)

    async def tell() -> None:
        async with contextlib.aclosing(batches):
            try:
                async for batch in batches:
                    if not batch:
                        caught_up()
                        continue
                    for line in encode(batch).splitlines(keepends=True):
                        async with asyncio.timeout(patience):
                            await socket.send_str(line.decode())
            except StatusError as error:
                await socket.send_str(render.error_frame(error).decode())
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()

    await telling_socket.speak(socket, tell())
    return socket
