"""Between a client's connection and a process: who copies what, and what ends it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from enum import Enum

from wherry.engine.container.detach import DetachFilter
from wherry.engine.cri.types import ProcessStream
from wherry.host.hijack import HijackedStream
from wherry.wire.docker_stream import frame


class Outcome(Enum):
    """Why the copying stopped."""

    ENDED = "the process closed its output"
    DETACHED = "the user typed the detach keys"
    GONE = "the client closed the connection"


async def connect(
    client: HijackedStream,
    process: ProcessStream,
    *,
    tty: bool,
    stdin: bool,
    outputs: frozenset[int] = frozenset((1, 2)),
    detach_keys: bytes | None = None,
    close_stdin: bool = True,
) -> Outcome:
    """Copy both ways until the process has nothing more to say, or the client leaves.

    ``outputs`` are the streams that the client wants (1, 2); of a terminal there is one, unframed.
    With ``close_stdin`` the end of the client's input is the end of the process's. ``detach_keys``
    are looked for only with a terminal. Neither ``client`` nor ``process`` is closed.
    """
    output = asyncio.create_task(_copy_output(process, client, tty, outputs))
    tasks: set[asyncio.Task[Outcome | None]] = {output}
    if stdin:
        keys = DetachFilter(detach_keys) if tty and detach_keys else None
        tasks.add(asyncio.create_task(_copy_input(client, process, keys, close_stdin)))
    try:
        while tasks:
            done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                outcome = task.result()
                if outcome is not None:
                    return outcome
        return Outcome.ENDED
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _copy_output(
    process: ProcessStream, client: HijackedStream, tty: bool, outputs: frozenset[int]
) -> Outcome:
    try:
        while True:
            stream, data = await process.read()
            if not stream:
                return Outcome.ENDED
            if stream in outputs:
                await client.write(data if tty else frame(stream, data))
    except ConnectionError:
        return Outcome.GONE


async def _copy_input(
    client: HijackedStream, process: ProcessStream, keys: DetachFilter | None, close: bool
) -> Outcome | None:
    """None where the input has ended and the output goes on."""
    try:
        while data := await client.read():
            if keys is not None:
                data, detached = keys.feed(data)
                if detached:
                    if data:
                        await process.write(data)
                    return Outcome.DETACHED
            if data:
                await process.write(data)
    except ConnectionError:
        return Outcome.GONE
    with contextlib.suppress(OSError):  # the process has closed its input, or ended
        if close:
            await process.close_stdin()
    return None


async def output_of(process: ProcessStream) -> AsyncIterator[tuple[int, bytes]]:
    """Everything that ``process`` writes, as (stream, data)."""
    while True:
        stream, data = await process.read()
        if not stream:
            return
        yield stream, data
