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
from wherry.kube.apiserver import render
from wherry.kube.apiserver.answers import Seen

_MOST_HEARD = 64 * 1024  # bytes of a message that nobody reads
_CLOSING = 2.0  # seconds the client has to answer a close


def is_wanted(request: BaseRequest) -> bool:
    """Whether the client asks for a WebSocket."""
    return request.headers.get("Upgrade", "").lower() == "websocket"


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
    socket = web.WebSocketResponse(timeout=_CLOSING, max_msg_size=_MOST_HEARD, compress=False)
    await socket.prepare(request)

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

    async def hear() -> None:
        async for _ in socket:
            pass

    tasks = {asyncio.ensure_future(tell()), asyncio.ensure_future(hear())}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await socket.close()
    return socket
