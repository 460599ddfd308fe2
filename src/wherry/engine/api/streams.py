"""The streams of containers: logs, and being attached to what runs."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from wherry.engine import logs
from wherry.engine.api.parameters import flag, version
from wherry.engine.api.routing import Route
from wherry.engine.container import detach
from wherry.engine.container.attach import Attachment, Past, check
from wherry.engine.container.attach import attach as open_attachment
from wherry.engine.container.container import Container
from wherry.engine.container.streams import Client, Outcome, connect
from wherry.engine.container.units import parse_since
from wherry.engine.errors import BadParameter, EngineError
from wherry.engine.logs import UNREADABLE
from wherry.engine.logs.types import LogQuery
from wherry.host.hijack import HijackedStream, hijack
from wherry.runtime.hub import ContainerStream
from wherry.wire.docker_stream import STDOUT, frame

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
        details=flag(request, "details"),
        since=parse_since(request.query.get("since", ""), "since"),
        until=parse_since(request.query.get("until", ""), "until"),
        tail=int(tail) if re.fullmatch(r"\+?\d{1,18}", tail, re.ASCII) else -1,
        follow=flag(request, "follow"),
    )
    if not (query.stdout or query.stderr):
        raise BadParameter("Bad parameters: you must choose at least one stream")
    return query


async def get_logs(engine: Engine, request: web.Request) -> web.StreamResponse:
    query = _query(request)
    container = engine.containers.get(request.match_info["id"])
    reading = engine.containers.logs(container, query)
    try:
        head = {"Content-Type": media_type(request, tty=container.tty)}
        response = web.StreamResponse(headers=head)
        await response.prepare(request)
        async for data in reading.pieces():
            await response.write(data)
        await response.write_eof()
    finally:
        reading.close()
    return response


def _outputs(request: web.Request, container: Container) -> frozenset[int]:
    """What the client wants to see; a terminal has one output only."""
    wanted = ((1, "stdout"),) if container.tty else ((1, "stdout"), (2, "stderr"))
    return frozenset(number for number, name in wanted if flag(request, name))


async def attach(engine: Engine, request: web.Request) -> web.StreamResponse:
    await request.read()
    try:
        session = _session(engine, request)
        # Asked for before we answer: the client starts the container as soon as it has the answer.
        session.open()
    except EngineError as error:
        return await _refuse(request, error)
    client = take_over(request, tty=session.container.tty)
    try:
        # docker-py loses what arrives together with the answer, and output may be there already.
        await client.taken()
        await session.run(client)
    except ConnectionError:
        return client.response  # the client has left
    finally:
        await session.close()
        await client.close()
    return client.response


async def _refuse(request: web.Request, error: EngineError) -> web.StreamResponse:
    """As dockerd does it here: the sentence alone, up to the end of the connection. Old clients
    show it to the user because they take it for output."""
    head = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\nContent-Type: {RAW}\r\n\r\n"
    )
    client = hijack(request, f"{head}{error.message}\r\n".encode())
    await client.close()
    return client.response


def _session(engine: Engine, request: web.Request) -> Session:
    keys = detach.parse(request.query.get("detachKeys", ""))
    container = engine.containers.get(request.match_info["id"])
    return Session(
        engine,
        container,
        stdin=flag(request, "stdin") and bool(container.config["OpenStdin"]),
        outputs=_outputs(request, container),
        live=flag(request, "stream"),
        logs=flag(request, "logs"),
        framed=not container.tty,
        keys=keys,
    )


class Session:
    """A client that is attached to a container, over whatever connection.

    First ``open``, before the client is answered; then ``run``, and ``close`` in any case.
    """

    def __init__(
        self,
        engine: Engine,
        container: Container,
        *,
        stdin: bool,
        outputs: frozenset[int],
        live: bool,
        logs: bool,
        framed: bool,
        keys: bytes,
    ) -> None:
        self._engine = engine
        self.container = container
        self._stdin = stdin
        self._outputs = outputs
        self._live = live
        self._logs = logs
        self._framed = framed
        self._keys = keys
        self._attachment = Attachment()

    def open(self) -> None:
        """Find the place in the output from which the client sees it.

        Raises:
            Conflict: the container is paused, or waits for its restart.
        """
        check(self.container)
        reader = logs.reader(self.container) if self._logs else None
        if self._logs and reader is None:
            self._live = False  # ``run`` says why
            return
        self._attachment = open_attachment(
            self._engine.runtime,
            self.container,
            stdin=self._stdin,
            live=self._live,
            reader=reader,
            outputs=self._outputs,
            framed=self._framed,
        )

    async def run(self, client: Client) -> None:
        """Send what was, and copy what is, until either side has enough.

        Raises:
            ConnectionError: the client has left.
        """
        past, starting = self._attachment.past, self._attachment.stream
        if past is not None:
            before = await past
            try:
                async for data in before.pieces(self._outputs, framed=self._framed):
                    await client.write(data)
            finally:
                before.reading.close()
        elif self._logs:
            text = f"Error attaching: {UNREADABLE}\n".encode()
            await client.write(frame(STDOUT, text) if self._framed else text)
            return
        self._engine.containers.lifecycle.publish(self.container, "attach")
        if starting is None:
            return
        stream = await self._stream(client, starting)
        if stream is None:
            return
        outcome = await connect(
            client,
            stream,
            framed=self._framed,
            terminal=self.container.tty,
            stdin=self._stdin,
            outputs=self._outputs,
            detach_keys=self._keys,
            close_stdin=bool(self.container.config["StdinOnce"]),
        )
        if outcome is Outcome.DETACHED:
            self._engine.containers.lifecycle.publish(self.container, "detach")

    @staticmethod
    async def _stream(
        client: Client, starting: asyncio.Future[ContainerStream | None]
    ) -> ContainerStream | None:
        """Wait for the start, unless the client has left before."""
        leaving = asyncio.create_task(client.gone())
        try:
            await asyncio.wait((starting, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
        return starting.result() if starting.done() else None

    async def close(self) -> None:
        """Let go of the container."""
        past, starting = self._attachment.past, self._attachment.stream
        if past is not None:
            past.add_done_callback(_close_reading)
        if starting is None:
            return
        if not starting.done() and not self.container.state.running:
            starting.cancel()
            return
        stream = await starting
        if stream is not None:
            await stream.close()


def _close_reading(past: asyncio.Future[Past]) -> None:
    if not past.cancelled() and past.exception() is None:
        past.result().reading.close()


class _WebSocketClient:
    """A WebSocket as a stream of bytes; each write is a message."""

    def __init__(self, socket: web.WebSocketResponse, *, binary: bool) -> None:
        self._socket = socket
        self._binary = binary
        self._closed = False
        self._ahead: deque[bytes] = deque()

    async def read(self) -> bytes:
        """The next message; empty when the client has closed."""
        return self._ahead.popleft() if self._ahead else await self._receive()

    async def _receive(self) -> bytes:
        while not self._closed:
            message = await self._socket.receive()
            if message.type is WSMsgType.BINARY and message.data:
                return bytes(message.data)
            if message.type is WSMsgType.TEXT and message.data:
                return str(message.data).encode()
            self._closed = message.type not in (WSMsgType.BINARY, WSMsgType.TEXT)
        return b""

    async def write(self, *pieces: bytes) -> None:
        """Send a message."""
        data = b"".join(pieces)
        if self._binary:
            await self._socket.send_bytes(data)
        else:
            await self._socket.send_str(data.decode("utf-8", "replace"))

    async def gone(self) -> None:
        """Read ahead until the client has closed; of one that says very much, no more."""
        while not self._closed and sum(map(len, self._ahead)) < 1 << 20:
            if data := await self._receive():
                self._ahead.append(data)
        if not self._closed:
            await asyncio.get_running_loop().create_future()


async def attach_websocket(engine: Engine, request: web.Request) -> web.StreamResponse:
    """As ``attach``, unframed even without a terminal. Until 1.42 clients got all streams, and
    until 1.28 messages were text."""
    keys = detach.parse(request.query.get("detachKeys", ""))
    container = engine.containers.get(request.match_info["id"])
    stdin, outputs = True, frozenset((1, 2))
    if version(request) >= (1, 42):
        stdin, outputs = flag(request, "stdin"), _outputs(request, container)
    session = Session(
        engine,
        container,
        stdin=stdin and bool(container.config["OpenStdin"]),
        outputs=outputs,
        live=flag(request, "stream"),
        logs=flag(request, "logs"),
        framed=False,
        keys=keys,
    )
    session.open()
    socket = web.WebSocketResponse()
    try:
        await socket.prepare(request)
        await session.run(_WebSocketClient(socket, binary=version(request) >= (1, 28)))
    except ConnectionError:
        return socket  # the client has left
    finally:
        await session.close()
        await socket.close()
    return socket


ROUTES = (
    Route("GET", "/containers/{id}/logs", get_logs),
    Route("POST", "/containers/{id}/attach", attach),
    Route("GET", "/containers/{id}/attach/ws", attach_websocket),
)
