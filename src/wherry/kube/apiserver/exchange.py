"""A request's way back: the answer written to its connection, at the pace of the client.

What is short is handed over whole; long lists and watches are written piece by piece, so that a
client that reads slowly, or not at all, holds little more than the buffers of its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache

from aiohttp import web
from aiohttp.web_request import BaseRequest

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver import render, telling_socket, warnings, watch_socket
from wherry.kube.apiserver.answers import Answer, Collection, Document, Seen, Single, Watching
from wherry.kube.apiserver.audit.record import Record
from wherry.kube.apiserver.fairness import Flow, Seats
from wherry.kube.apiserver.metrics import WATCH_EVENTS
from wherry.kube.apiserver.negotiate import Form

GZIP_FROM = 128 * 1024
"""Answers from this size on are compressed for who takes it, and written in pieces."""

_WRITE_TIMEOUT = 60.0  # seconds a client may leave what was sent unread
_SMALL = 16 * 1024  # bytes that an idle connection takes without waiting


class Exchange:
    """A request and what is known of it on the way: the form of its answer, what the client is to
    be warned of, its seats among the others, and its line in the audit log."""

    __slots__ = ("_request", "ended", "flow", "form", "record", "seats", "warnings")

    def __init__(self, request: BaseRequest, record: Record | None = None) -> None:
        self._request = request
        self.form = Form()
        self.warnings: list[str] = []
        self.record = record
        self.flow: Flow | None = None
        self.seats: Seats | None = None
        self.ended: Callable[[int], None] | None = None
        """Whom to tell the code, for the metrics."""

    def leave(self) -> None:
        """Give the seats back."""
        if self.seats is not None:
            self.seats.leave()

    def tell(self, response: web.StreamResponse) -> None:
        """Say by which schema and level the request was let in, or not, and where it is logged."""
        if self.flow is not None:
            for name, value in self.flow.headers:
                response.headers[name] = value
        if self.record is not None:
            response.headers["Audit-Id"] = self.record.id

    def _describe(self, response: web.StreamResponse) -> None:
        """Say what the body is, and what the client is warned of."""
        response.headers["Content-Type"] = self.form.media_type
        response.headers["Cache-Control"] = "no-cache, private"
        if self.warnings:
            for header in warnings.headers(self.warnings):
                response.headers.add("Warning", header)

    # --- answers ----------------------------------------------------------------------------

    def failure(self, error: StatusError) -> web.Response:
        """The Status of an error."""
        response = web.Response(body=render.dump(error.status(), self.form), status=error.code)
        self._describe(response)
        for name, value in error.headers.items():
            response.headers[name] = value
        retry = (error.details or {}).get("retryAfterSeconds")
        if retry:
            response.headers["Retry-After"] = str(retry)
        return response

    async def write(self, answer: Answer, include: str) -> web.StreamResponse:
        """Any answer, in the form that was negotiated. ``include``: the parameter includeObject
        of tables. Raises StatusError where it cannot be shown so, before anything is written."""
        form = self.form
        if isinstance(answer, Watching):
            encode = render.frames(answer.kind, form, include)
            if telling_socket.is_wanted(self._request):
                if self.record is not None:
                    self.record.started(101)
                return await watch_socket.stream(
                    self._request, answer.batches(), encode, self.leave, _WRITE_TIMEOUT
                )
            return await self._stream(answer, encode)
        if isinstance(answer, Document):
            return web.Response(body=answer.data, content_type=answer.content_type)
        if isinstance(answer, Single):
            body, code = render.render_single(answer, form, include), answer.code
        elif render.in_pieces(form) and answer.size > GZIP_FROM:
            return await self._list(answer, include)
        else:
            body, code = render.render_collection(answer, form, include), 200
        compressed = len(body) > GZIP_FROM and takes_gzip(self._request)
        if compressed:
            body = await asyncio.to_thread(compress, body)
        response = web.Response(body=body, status=code)
        self._describe(response)
        if compressed:
            _say_gzip(response)
        return response

    async def _list(self, answer: Collection, include: str) -> web.StreamResponse:
        """A long list, as the client takes it: of what is encoded only so much is in memory, and
        others have their turns in between."""
        pieces = render.collection_pieces(answer, self.form, include)
        piece = next(pieces)  # what is wrong with the form is known now
        response = web.StreamResponse()
        self._describe(response)
        self.tell(response)
        length = render.collection_length(answer, self.form)
        compressor = None
        if takes_gzip(self._request):
            compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
            _say_gzip(response)
        if compressor is None and length is not None:
            response.content_length = length
        else:
            response.enable_chunked_encoding()
        await response.prepare(self._request)
        while piece:
            if compressor is not None:
                piece = await asyncio.to_thread(compressor.compress, piece)
            await self._send(response, piece)
            await asyncio.sleep(0)
            piece = next(pieces, b"")
        if compressor is not None:
            await self._send(response, compressor.flush())
        await response.write_eof()
        return response

    async def _stream(
        self, answer: Watching, encode: Callable[[Sequence[Seen]], bytes]
    ) -> web.StreamResponse:
        """A watch, as it happens. Once the client has what is there, waiting for news is no work,
        and takes no seat."""
        response = web.StreamResponse()
        self._describe(response)
        self.tell(response)
        if self.record is not None:
            self.record.started(200)
        response.enable_chunked_encoding()
        resource = answer.kind.resource
        place = resource.group, resource.kind, resource.version
        connection = self._request.transport

        def take(batch: Sequence[Seen]) -> bool:
            """Hand it to the connection, if that has taken all that came before. Nearly always it
            has: and a timer and some coroutines for each of many watchers would be most of what
            telling them costs."""
            if connection is None or connection.is_closing() or connection.get_write_buffer_size():
                return False
            if len(batch) > 1 and sum([len(seen.stored.data) for seen in batch]) > _SMALL:
                return False
            connection.write(_chunk(encode(batch)))
            WATCH_EVENTS.add(place, len(batch))
            return True

        async with contextlib.aclosing(answer.batches(take)) as batches:
            await response.prepare(self._request)
            await response.write(b"")
            try:
                async for batch in batches:
                    if not batch:
                        self.leave()
                    elif not take(batch):
                        await self._send(response, encode(batch))
                        WATCH_EVENTS.add(place, len(batch))
            except StatusError as error:
                await response.write(render.error_frame(error))
        await response.write_eof()
        return response

    async def _send(self, response: web.StreamResponse, data: bytes) -> None:
        """Write a part of an answer, and wait until the connection takes more. Who does not read
        for too long is cut off.

        Raises:
            ConnectionError: the client has gone.
        """
        try:
            async with asyncio.timeout(_WRITE_TIMEOUT):
                await response.write(data)
        except TimeoutError:
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionResetError("the client does not read") from None


@lru_cache(1)
def _chunk(data: bytes) -> bytes:
    """A piece of a chunked answer; for many watchers it is the same."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def takes_gzip(request: BaseRequest) -> bool:
    """Whether the client takes compressed answers."""
    return "gzip" in request.headers.get("Accept-Encoding", "")


def compress(data: bytes) -> bytes:
    """Gzip; quick rather than small: the network is near."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
    return compressor.compress(data) + compressor.flush()


def _say_gzip(response: web.StreamResponse) -> None:
    response.headers["Content-Encoding"] = "gzip"
    response.headers["Vary"] = "Accept-Encoding"
