"""Between a client's connection and a process: who copies what, and what ends it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from enum import Enum
from typing import Any, Protocol

from wherry.engine.container.detach import DetachFilter
from wherry.engine.cri.types import ProcessStream
from wherry.wire.docker_stream import pieces


class Client(Protocol):
    """The client's end of a connection."""

    async def read(self) -> bytes:
        """Input; empty at its end."""

    async def write(self, *pieces: bytes) -> None:
        """Send output, pieces one behind the other.

        Raises:
            ConnectionError: the client has gone.
        """

    async def gone(self) -> None:
        """Return when the client has closed the connection, not only ended its input."""


class Outcome(Enum):
    """Why the copying stopped."""

    ENDED = "the process closed its output"
    DETACHED = "the user typed the detach keys"
    GONE = "the client closed the connection, or its input where nothing but that ends"


async def connect(
    client: Client,
    process: ProcessStream,
    *,
    framed: bool,
    terminal: bool = False,
    stdin: bool,
    outputs: frozenset[int] = frozenset((1, 2)),
    detach_keys: bytes | None = None,
    close_stdin: bool = True,
) -> Outcome:
    """Copy both ways until the process has nothing more to say, or the client leaves.

    ``outputs`` are the streams that the client wants (1, 2), ``framed`` so that it can tell them
    apart. With ``close_stdin`` the end of the client's input is the end of the process's, unless
    it is a ``terminal``; otherwise it is the end of the connection, as with dockerd. Only with a
    terminal are ``detach_keys`` looked for. Neither ``client`` nor ``process`` is closed.
    """
    work: list[Coroutine[Any, Any, Outcome | None]] = [
        _copy_output(process, client, framed, outputs)
    ]
    if stdin:
        keys = DetachFilter(detach_keys) if terminal and detach_keys else None
        work.append(_copy_input(client, process, keys, close_stdin and not terminal))
    else:
        work.append(_until_gone(client))
    tasks = {asyncio.create_task(one) for one in work}
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
    process: ProcessStream, client: Client, framed: bool, outputs: frozenset[int]
) -> Outcome:
    try:
        while True:
            stream, data = await process.read()
            if not stream:
                return Outcome.ENDED
            if stream in outputs:
                await client.write(*(pieces(stream, data) if framed else (data,)))
    except ConnectionError:
        return Outcome.GONE


async def _until_gone(client: Client) -> Outcome:
    await client.gone()
    return Outcome.GONE


async def _copy_input(
    client: Client, process: ProcessStream, keys: DetachFilter | None, close: bool
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
        if keys is not None and (held := keys.flush()):
            await process.write(held)
    except ConnectionResetError:
        return Outcome.GONE
    except BrokenPipeError:
        # The process reads no more. Its output goes on, and so does the client, unread.
        await client.gone()
        return Outcome.GONE
    if not close:
        return Outcome.GONE
    with contextlib.suppress(OSError):  # the process has closed its input, or ended
        await process.close_stdin()
    await client.gone()
    return Outcome.GONE
