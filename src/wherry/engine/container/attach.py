"""Attaching to a container: its live streams, and before them what it wrote, without a gap.

Output goes to the log and to clients at once, but the log takes its time. So a client that wants
both has its past cut off by a mark in the log's queue: what stands before it is read from the log,
what came after it went to the client's own queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from wherry.engine import logs
from wherry.engine.container.container import Container
from wherry.engine.errors import Conflict
from wherry.engine.logs.reading import Reading
from wherry.engine.logs.types import LogQuery
from wherry.runtime.hub import ContainerStream
from wherry.runtime.service import Runtime
from wherry.runtime.types import RuntimeFailure
from wherry.wire.docker_stream import frame


@dataclass(frozen=True, slots=True)
class Past:
    """What a container wrote before a moment: its log, and lines that had only begun."""

    reading: Reading
    begun: dict[int, bytes] = field(default_factory=dict)

    async def pieces(self, outputs: frozenset[int], *, framed: bool) -> AsyncIterator[bytes]:
        """What to send to a client that wants ``outputs``; the reading has chosen already."""
        async for data in self.reading.pieces():
            yield data
        for stream, data in self.begun.items():
            if stream in outputs:
                yield frame(stream, data) if framed else data


@dataclass(frozen=True, slots=True)
class Attachment:
    """A client's place at a container, each part as soon as it is there.

    ``stream`` is None where its start failed, or where it has just ended.
    """

    stream: asyncio.Future[ContainerStream | None] | None = None
    past: asyncio.Future[Past] | None = None


def attach(
    runtime: Runtime,
    container: Container,
    *,
    stdin: bool,
    live: bool = True,
    reader: logs.LogReader | None = None,
    outputs: frozenset[int] = frozenset((1, 2)),
    framed: bool = True,
) -> Attachment:
    """Attach to the ``live`` streams, to what ``reader`` has, or to both.

    From this call on nothing that it writes is missed; one that does not run is waited for.

    Raises:
        Conflict: it is paused, or waits for its restart.
    """
    check(container)
    if not (live and container.state.running):
        past = None
        if reader is not None:
            past = asyncio.ensure_future(_past(container, reader, outputs, framed))
        return Attachment(_started(container, stdin) if live else None, past)
    if reader is None:
        return Attachment(asyncio.ensure_future(_running(runtime, container, stdin)))
    joint = asyncio.get_running_loop().create_future()

    async def cut() -> None:
        if not joint.done():
            joint.set_result(await _past(container, reader, outputs, framed))

    return Attachment(asyncio.ensure_future(_running(runtime, container, stdin, cut)), joint)


def check(container: Container) -> None:
    """Whether one can attach to it now.

    Raises:
        Conflict: it is paused, or waits for its restart.
    """
    if container.state.paused:
        raise Conflict(f"container {container.id} is paused, unpause the container before attach")
    if container.state.restarting:
        raise Conflict(
            f"container {container.id} is restarting, wait until the container is running"
        )


async def _past(
    container: Container, reader: logs.LogReader, outputs: frozenset[int], framed: bool
) -> Past:
    begun: dict[int, bytes] = {}
    if container.log is not None:
        await container.log.settle()
        begun = container.log.pending()
    query = LogQuery(stdout=1 in outputs, stderr=2 in outputs)
    return Past(reader.open(query, framed=framed), begun)


async def _running(
    runtime: Runtime,
    container: Container,
    stdin: bool,
    cut: Callable[[], Awaitable[None]] | None = None,
) -> ContainerStream | None:
    try:
        return await runtime.attach(container.id, stdin=stdin, at=cut)
    except RuntimeFailure:
        if cut is not None:
            await cut()
        return None


def _started(container: Container, stdin: bool) -> asyncio.Future[ContainerStream | None]:
    """Its streams as soon as it starts; see ``Lifecycle``."""
    waiting: asyncio.Future[ContainerStream | None]
    waiting = asyncio.get_running_loop().create_future()
    entry = (waiting, stdin)
    container.attaching.append(entry)

    def forget(_: object) -> None:
        if entry in container.attaching:
            container.attaching.remove(entry)

    waiting.add_done_callback(forget)
    return waiting
