"""The streams of containers: logs, and being attached to what runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from wherry.engine.api.parameters import flag, version
from wherry.engine.api.routing import Route
from wherry.engine.container import detach
from wherry.engine.container.container import Container
from wherry.engine.container.logs import LogQuery
from wherry.engine.container.streams import Outcome, connect
from wherry.engine.container.units import parse_since
from wherry.engine.errors import BadParameter, EngineError
from wherry.host.hijack import HijackedStream, hijack
from wherry.runtime.hub import ContainerStream

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"


def media_type(request: web.Request, *, tty: bool) -> str:
    """What the stream is called; until 1.42 both kinds had one name."""
    return MULTIPLEXED if not tty and version(request) >= (1, 42) else RAW


def take_over(request: web.Request, *, tty: bool) -> HijackedStream:
    """Answer, and use the connection as a stream from here on."""
    kind = media_type(request, tty=tty)
    if request.headers.get("Upgrade"):
        head = (
            "HTTP/1.1 101 UPGRADED\r\n"
            f"Content-Type: {kind}\r\n"
            "Connection: Upgrade\r\n"
            "Upgrade: tcp\r\n\r\n"
        )
    else:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n"
    return hijack(request, head.encode())


def _query(request: web.Request) -> LogQuery:
    tail = request.query.get("tail", "all")
    query = LogQuery(
        stdout=flag(request, "stdout"),
        stderr=flag(request, "stderr"),
        timestamps=flag(request, "timestamps"),
        since=parse_since(request.query.get("since", ""), "since"),
        until=parse_since(request.query.get("until", ""), "until"),
        tail=int(tail) if tail.isdigit() else -1,
        follow=flag(request, "follow"),
    )
    if not (query.stdout or query.stderr):
        raise BadParameter("Bad parameters: you must choose at least one stream")
    return query


async def logs(engine: Engine, request: web.Request) -> web.StreamResponse:
    container = engine.containers.get(request.match_info["id"])
    query = _query(request)
    _check_readable(container)
    response = web.StreamResponse(headers={"Content-Type": media_type(request, tty=container.tty)})
    await response.prepare(request)
    async for data in engine.containers.logs(container, query):
        await response.write(data)
    await response.write_eof()
    return response


def _check_readable(container: Container) -> None:
    if not container.log_path:
        raise EngineError("configured logging driver does not support reading")


async def attach(engine: Engine, request: web.Request) -> web.StreamResponse:
    container = engine.containers.get(request.match_info["id"])
    keys = detach.parse(request.query.get("detachKeys", ""))
    stdin = flag(request, "stdin") and bool(container.config["OpenStdin"])
    outputs = frozenset(
        number
        for number, name in ((1, "stdout"), (2, "stderr"))
        if flag(request, name) or container.tty
    )
    live, replay = flag(request, "stream"), flag(request, "logs")
    await request.read()
    # Asked for before we answer: the client starts the container as soon as it has the answer.
    stream = engine.containers.attach(container, stdin=stdin) if live else None
    client = take_over(request, tty=container.tty)
    try:
        if replay and container.log_path:
            await _replay(engine, container, client, outputs)
        if stream is not None:
            await _follow(engine, container, client, stream, stdin, outputs, keys)
    except ConnectionError:
        return client.response  # the client has left
    finally:
        await client.close()
    return client.response


async def _replay(
    engine: Engine, container: Container, client: HijackedStream, outputs: frozenset[int]
) -> None:
    query = LogQuery(stdout=1 in outputs, stderr=2 in outputs)
    async for data in engine.containers.logs(container, query):
        await client.write(data)


async def _follow(
    engine: Engine,
    container: Container,
    client: HijackedStream,
    starting: asyncio.Future[ContainerStream | None],
    stdin: bool,
    outputs: frozenset[int],
    keys: bytes,
) -> None:
    stream = await starting
    if stream is None:
        return
    try:
        outcome = await connect(
            client,
            stream,
            tty=container.tty,
            stdin=stdin,
            outputs=outputs,
            detach_keys=keys,
            close_stdin=bool(container.config["StdinOnce"]),
        )
    finally:
        await stream.close()
    if outcome is Outcome.DETACHED:
        engine.containers.lifecycle.publish(container, "detach")


async def attach_websocket(engine: Engine, request: web.Request) -> web.StreamResponse:
    """As ``attach``; messages are binary, and unframed even without a terminal, as in Docker."""
    container = engine.containers.get(request.match_info["id"])
    stdin = flag(request, "stdin") and bool(container.config["OpenStdin"])
    outputs = frozenset(
        number
        for number, name in ((1, "stdout"), (2, "stderr"))
        if flag(request, name) or container.tty
    )
    starting = engine.containers.attach(container, stdin=stdin)
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    stream = await starting
    if stream is None:
        await socket.close()
        return socket

    async def send() -> None:
        while (piece := await stream.read())[0]:
            if piece[0] in outputs:
                await socket.send_bytes(piece[1])
        await socket.close()

    sending = asyncio.create_task(send())
    try:
        async for message in socket:
            data = message.data.encode() if isinstance(message.data, str) else message.data
            if stdin and isinstance(data, bytes):
                await stream.write(data)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await stream.close()
    return socket


ROUTES = (
    Route("GET", "/containers/{id}/logs", logs),
    Route("POST", "/containers/{id}/attach", attach),
    Route("GET", "/containers/{id}/attach/ws", attach_websocket),
)
