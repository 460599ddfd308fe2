"""The door on the network: HTTP/1.1 over TLS, by aiohttp.

One handler for all requests: read off what is asked, find out who asks, ask whether they may, read
the body, let the chain answer, write the answer in the form the client wants. Whatever goes wrong
on the way is answered with a ``Status``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import zlib
from collections.abc import Iterable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver import render, warnings
from wherry.kube.apiserver.answers import Answer, Collection, Document, Single, Watching
from wherry.kube.apiserver.audit.record import Record, is_long
from wherry.kube.apiserver.authn import Authenticator, Peer, impersonation
from wherry.kube.apiserver.chain import Chain
from wherry.kube.apiserver.negotiate import Form, negotiate
from wherry.kube.apiserver.outward import Outward
from wherry.kube.apiserver.request import (
    APIRequest,
    Body,
    Query,
    RequestInfo,
    User,
    parse_query,
    parse_request,
)

log = logging.getLogger(__name__)

_quiet = logging.getLogger(f"{__name__}.protocol")
_quiet.setLevel(logging.CRITICAL)  # what clients do wrong in HTTP is theirs to know

MAX_BODY = 3 * 1024 * 1024
"""The largest request body, in bytes."""

_BODY_TIMEOUT = 60.0  # seconds to send it in
_WRITE_TIMEOUT = 60.0  # seconds a watcher may leave its stream unread
_SMALL = 16 * 1024  # bytes that an idle connection takes without waiting
_GZIP_FROM = 128 * 1024  # answers from this size on are compressed for who takes it
_SHUTDOWN = 2.0  # seconds for requests under way to end
_READ_VERBS = frozenset(("get", "list", "watch"))
_NO_CACHE = "no-cache, private"


class _Server(web.Server):
    """Knows of each connection whose certificate it was opened with: read once, not per request."""

    def __init__(self, authenticator: Authenticator, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._authenticator = authenticator
        self.certified: dict[RequestHandler, Peer] = {}

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        peer = self._authenticator.peer(transport.get_extra_info("ssl_object"))
        if peer is not None:
            self.certified[handler] = peer

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self.certified.pop(handler, None)


class Front:
    """Serves the chain on a TLS socket."""

    def __init__(self, chain: Chain, authenticator: Authenticator, outward: Outward) -> None:
        self._chain = chain
        self._authenticator = authenticator
        self._outward = outward
        self._server: _Server | None = None
        self._sockets: asyncio.Server | None = None
        self._carrying: set[asyncio.Task[Any]] = set()

    async def listen(self, host: str | None, port: int, tls: ssl.SSLContext) -> int:
        """Begin to serve; the port, which was free if 0 was given. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = _Server(
            self._authenticator,
            self._handle,
            handler_cancellation=True,  # who hangs up ends his watch
            access_log=None,
            logger=_quiet,
            keepalive_timeout=180,
            max_line_size=128 * 1024,
            max_field_size=128 * 1024,
        )
        self._sockets = await loop.create_server(
            self._server, host, port, ssl=tls, backlog=1024, reuse_address=True
        )
        bound: int = self._sockets.sockets[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        if self._sockets is not None:
            self._sockets.close()
        for task in self._carrying:
            task.cancel()
        if self._server is not None:
            self._server.pre_shutdown()
            await self._server.shutdown(_SHUTDOWN)

    # --- a request --------------------------------------------------------------------------

    async def _handle(self, request: BaseRequest) -> web.StreamResponse:
        auditor = self._chain.auditor
        if auditor is None:
            return await self._serve(request, None)
        headers = request.headers
        agent = headers.get("User-Agent", "")
        record = auditor.begin(request.raw_path, headers, agent, request.remote)
        code = 200
        try:
            response = await self._serve(request, record)
            code = response.status
            if not response.prepared:
                response.headers["Audit-Id"] = record.id
            return response
        finally:
            record.ended(code)

    async def _serve(self, request: BaseRequest, record: Record | None) -> web.StreamResponse:
        form = Form()
        told: list[str] = []
        try:
            path, _, text = request.raw_path.partition("?")
            query = parse_query(text)
            info = parse_request(request.method, path, query, self._chain.catalogue.served)
            headers = request.headers
            agent = headers.get("User-Agent", "")
            user = await self._user(request, info, record)
            await self._chain.authorize(user, info, record)
            if self._outward.concerns(info):
                if self._outward.connects(info):
                    await self._chain.connect(user, info, query)
                if record is not None and is_long(info):
                    record.started(200)
                return await self._carry(request, info, query, user)
            if not info.is_resource:
                return self._document(request, info, query)
            form = negotiate(headers.get("Accept", ""), query.get("pretty"), agent)
            if info.verb in _READ_VERBS:
                body = Body()
            else:
                body = Body(headers.get("Content-Type", ""), await _read(request))
            asked = APIRequest(info, user, query, body, agent, told)
            answer = await self._chain.answer(asked, record)
            return await self._write(request, answer, form, query, told, record)
        except StatusError as error:
            if record is not None:
                record.failed(error)
            return _failure(error, form, told)
        except ConnectionError:
            raise
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("%s %s", request.method, request.raw_path)
            if record is not None:
                record.ended(500, panic=True)
            return _failure(
                StatusError(500, "InternalError", f"Internal error occurred: {error}"), form
            )

    async def _carry(
        self, request: BaseRequest, info: RequestInfo, query: Query, user: User
    ) -> web.StreamResponse:
        """What others answer. It ends when either side does, or when the server stops."""
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        try:
            return await self._outward.handle(request, info, query, user)
        finally:
            self._carrying.discard(task)

    async def _user(self, request: BaseRequest, info: RequestInfo, record: Record | None) -> User:
        """Who asks, perhaps in another's name."""
        assert self._server is not None
        peer = self._server.certified.get(request.protocol)
        try:
            user = await self._authenticator.authenticate(peer, request.headers)
        except StatusError:
            if record is not None:
                record.identified(None, info)
            raise
        if record is not None:
            record.identified(user, info)
        acting = await impersonation.from_headers(
            user, request.headers.items(), self._chain.authorizer
        )
        if record is not None:
            record.acting(acting)
        return acting

    def _document(
        self, request: BaseRequest, info: RequestInfo, query: Query
    ) -> web.StreamResponse:
        headers = {
            "accept": request.headers.get("Accept", ""),
            "if-none-match": request.headers.get("If-None-Match", ""),
        }
        answer = self._chain.document(info, query, headers)
        assert isinstance(answer, Document)
        data = answer.data
        takes_gzip = _takes_gzip(request)
        compressed = answer.compressed and bool(data)
        if compressed and not takes_gzip:
            data, compressed = zlib.decompress(data, 31), False
        elif not compressed and takes_gzip and len(data) > _GZIP_FROM:
            data, compressed = _gzip(data), True
        response = web.Response(body=data, status=answer.code, headers=answer.headers)
        response.headers["Content-Type"] = answer.content_type
        if compressed:
            response.headers["Content-Encoding"] = "gzip"
        return response

    # --- an answer --------------------------------------------------------------------------

    async def _write(
        self,
        request: BaseRequest,
        answer: Answer,
        form: Form,
        query: Query,
        told: list[str],
        record: Record | None = None,
    ) -> web.StreamResponse:
        if isinstance(answer, Single):
            body = render.render_single(answer, form, query.get("includeObject"))
            response = web.Response(body=body, status=answer.code)
        elif isinstance(answer, Collection):
            body = render.render_collection(answer, form, query.get("includeObject"))
            response = web.Response(body=body)
        elif isinstance(answer, Watching):
            return await self._stream(request, answer, form, query, told, record)
        else:
            return web.Response(body=answer.data, content_type=answer.content_type)
        headers = response.headers
        headers["Content-Type"] = form.media_type
        headers["Cache-Control"] = _NO_CACHE
        if told:
            _tell(response, told)
        if len(body) > _GZIP_FROM and _takes_gzip(request):
            headers["Content-Encoding"] = "gzip"
            headers["Vary"] = "Accept-Encoding"
            response.body = await asyncio.to_thread(_gzip, body)
        return response

    async def _stream(
        self,
        request: BaseRequest,
        answer: Watching,
        form: Form,
        query: Query,
        told: list[str],
        record: Record | None = None,
    ) -> web.StreamResponse:
        """Write a watch as it happens. A client that does not read is dropped."""
        encode = render.frames(answer.kind, form, query.get("includeObject"))
        response = web.StreamResponse()
        response.headers["Content-Type"] = form.media_type
        response.headers["Cache-Control"] = _NO_CACHE
        if told:
            _tell(response, told)
        if record is not None:
            response.headers["Audit-Id"] = record.id
            record.started(200)
        response.enable_chunked_encoding()
        async with contextlib.aclosing(answer.batches) as batches:
            await response.prepare(request)
            await response.write(b"")
            try:
                async for batch in batches:
                    data = encode(batch)
                    if not _sent_at_once(request.transport, data):
                        async with asyncio.timeout(_WRITE_TIMEOUT):
                            await response.write(data)
            except StatusError as error:
                await response.write(render.error_frame(error))
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()
                raise ConnectionResetError("the watcher does not read") from None
        await response.write_eof()
        return response


def _sent_at_once(transport: asyncio.Transport | None, data: bytes) -> bool:
    """Hand a chunk of a watch to the connection, if it has taken all that came before.

    Nearly always it has, and with many watchers a timer and three coroutines for each would be
    most of what telling them of a change costs.
    """
    if transport is None or len(data) > _SMALL or transport.get_write_buffer_size():
        return False
    transport.write(b"%x\r\n%b\r\n" % (len(data), data))
    return True


async def _read(request: BaseRequest) -> bytes:
    """The body. Raises StatusError 413, 408 (too slow)."""
    if not request.body_exists:
        return b""
    if (request.content_length or 0) > MAX_BODY:
        raise _too_large()
    try:
        async with asyncio.timeout(_BODY_TIMEOUT):
            first = await request.content.readany()
            if request.content.at_eof():
                return first
            body = bytearray(first)
            while data := await request.content.readany():
                body += data
                if len(body) > MAX_BODY:
                    raise _too_large()
            return bytes(body)
    except TimeoutError:
        raise StatusError(
            408, "Timeout", "Timeout: request did not complete within the allotted timeout"
        ) from None


def _too_large() -> StatusError:
    return StatusError(
        413, "RequestEntityTooLarge", f"Request entity too large: limit is {MAX_BODY}"
    )


def _takes_gzip(request: BaseRequest) -> bool:
    return "gzip" in request.headers.get("Accept-Encoding", "")


def _gzip(data: bytes) -> bytes:
    """Quick rather than small: the network is near."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
    return compressor.compress(data) + compressor.flush()


def _tell(response: web.StreamResponse, told: list[str]) -> None:
    """Put warnings into the headers."""
    for header in warnings.headers(told):
        response.headers.add("Warning", header)


def _failure(error: StatusError, form: Form, told: list[str] | None = None) -> web.Response:
    status = error.status()
    response = web.Response(body=render.dump(status, form), status=error.code)
    response.headers["Content-Type"] = form.media_type
    response.headers["Cache-Control"] = _NO_CACHE
    for name, value in error.headers.items():
        response.headers[name] = value
    retry = (error.details or {}).get("retryAfterSeconds")
    if retry:
        response.headers["Retry-After"] = str(retry)
    if told:
        _tell(response, told)
    return response


def tls_context(certificate: str, key: str, authorities: Iterable[str]) -> ssl.SSLContext:
    """A server's context; clients may show a certificate that one of ``authorities`` signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1"])
    for authority in authorities:
        context.load_verify_locations(authority)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context
