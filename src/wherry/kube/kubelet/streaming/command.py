"""Couple a process in a container to a client, until one of them ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from wherry.engine.cri.types import CRIError, ProcessStream
from wherry.kube.kubelet.streaming.channels import Channels, ClientGone
from wherry.wire.remotecommand import (
    Channel,
    ProtocolError,
    StreamOptions,
    exit_status,
    failure,
    success,
)


async def couple(
    process: ProcessStream,
    channels: Channels,
    options: StreamOptions,
    *,
    command: Sequence[str] | None,
) -> None:
    """Carry everything between ``process`` and the client; closes both at the end.

    ``command`` is what was run; None for attach, whose end carries no exit code.
    """
    outward = asyncio.create_task(_outward(process, channels))
    gone = asyncio.create_task(channels.wait_gone())
    others = [
        gone,
        asyncio.create_task(_inward(process, channels, options)),
        asyncio.create_task(_resize(process, channels)),
    ]
    try:
        await asyncio.wait((outward, gone), return_when=asyncio.FIRST_COMPLETED)
        if outward.done() and not isinstance(outward.exception(), ClientGone):
            status = await _status(process, outward, command)
            with contextlib.suppress(ClientGone):
                await channels.finish(status)
    finally:
        for task in (outward, *others):
            task.cancel()
        await asyncio.gather(outward, *others, return_exceptions=True)
        await process.close()


async def _status(
    process: ProcessStream, outward: asyncio.Task[None], command: Sequence[str] | None
) -> dict[str, Any]:
    error = outward.exception()
    if error is not None:
        return failure(str(error))
    if command is None:
        return success()
    try:
        code = await process.wait()
    except CRIError as refused:
        return failure(refused.message)
    return exit_status(code, _explain(command, code))


def _explain(command: Sequence[str], code: int) -> str:
    return f"error executing command [{' '.join(command)}], exit code {code}"


async def _outward(process: ProcessStream, channels: Channels) -> None:
    while True:
        stream, data = await process.read()
        if not stream:
            return
        await channels.write(Channel.STDERR if stream == 2 else Channel.STDOUT, data)


async def _inward(process: ProcessStream, channels: Channels, options: StreamOptions) -> None:
    if not options.stdin:
        return
    # A process that no longer reads is no fault; its output may still be coming.
    with contextlib.suppress(OSError, CRIError):
        async for data in channels.stdin():
            await process.write(data)
        await process.close_stdin()


async def _resize(process: ProcessStream, channels: Channels) -> None:
    with contextlib.suppress(ProtocolError, ClientGone):
        async for width, height in channels.sizes():
            if width and height:
                await process.resize(width, height)
