"""The door on the network: HTTP/1.1 over TLS, by aiohttp.

One handler for all requests: read off what is asked, find out who asks, ask whether they may, read
the body, let the chain answer; `exchange` writes the answer in the form the client wants. Whatever
goes wrong on the way is answered with a ``Status``.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import zlib
from collections.abc import Iterable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver.answers import Document
from wherry.kube.apiserver.audit.record import Record, is_long
from wherry.kube.apiserver.authn import Authenticator, Peer, impersonation
from wherry.kube.apiserver.chain import Chain
from wherry.kube.apiserver.exchange import GZIP_FROM, Exchange, compress, takes_gzip
from wherry.kube.apiserver.fairness import Fairness
from wherry.kube.apiserver.metrics import Metrics
from wherry.kube.apiserver.negotiate import negotiate
from wherry.kube.apiserver.outward import Outward
from wherry.kube.apiserver.request import (
    READS,
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
_FIRST_REQUEST = 32.0  # seconds from the opening of a connection to the end of its first headers
_SHUTDOWN = 2.0  # seconds for requests under way to end


class _Server(web.Server):
    """Knows of each connection whose certificate it was opened with: read once, not per request."""

    def __init__(self, authenticator: Authenticator, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._authenticator = authenticator
        self.certified: dict[RequestHandler, Peer] = {}
        self._silent: dict[RequestHandler, asyncio.TimerHandle] = {}

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        loop = asyncio.get_running_loop()
        self._silent[handler] = loop.call_later(_FIRST_REQUEST, transport.abort)
        peer = self._authenticator.peer(transport.get_extra_info("ssl_object"))
        if peer is not None:
            self.certified[handler] = peer

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self.certified.pop(handler, None)
        self.spoke(handler)

    def spoke(self, handler: RequestHandler) -> None:
        """A request has come: from now on it is the pauses between requests that are limited."""
        if (timer := self._silent.pop(handler, None)) is not None:
            timer.cancel()


class Front:
    """Serves the chain on a TLS socket."""

    def __init__(
        self,
        chain: Chain,
        authenticator: Authenticator,
        outward: Outward,
        fairness: Fairness,
        metrics: Metrics,
    ) -> None:
        self._chain = chain
        self._metrics = metrics
        self._fairness = fairness
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
            return await self._serve(request, Exchange(request))
        headers = request.headers
        agent = headers.get("User-Agent", "")
        record = auditor.begin(request.raw_path, headers, agent, request.remote)
        code = 200
        try:
            response = await self._serve(request, Exchange(request, record))
            code = response.status
            return response
        finally:
            record.ended(code)

    async def _serve(self, request: BaseRequest, exchange: Exchange) -> web.StreamResponse:
        assert self._server is not None
        self._server.spoke(request.protocol)
        code = 500
        try:
            response = await self._respond(request, exchange)
            code = response.status
        except StatusError as error:
            if exchange.record is not None:
                exchange.record.failed(error)
            response = exchange.failure(error)
            code = error.code
        except ConnectionError:
            raise
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("%s %s", request.method, request.raw_path)
            if exchange.record is not None:
                exchange.record.ended(500, panic=True)
            response = exchange.failure(
                StatusError(500, "InternalError", f"Internal error occurred: {error}")
            )
        finally:
            exchange.leave()
            if exchange.ended is not None:
                exchange.ended(code)
        if not response.prepared:
            exchange.tell(response)
        return response

    async def _respond(self, request: BaseRequest, exchange: Exchange) -> web.StreamResponse:
        """Lead a request through the chain. Raises StatusError."""
        path, _, text = request.raw_path.partition("?")
        query = parse_query(text)
        info = parse_request(request.method, path, query, self._chain.catalogue.served)
        exchange.ended = self._metrics.begin(info)
        headers, record = request.headers, exchange.record
        agent = headers.get("User-Agent", "")
        user = await self._user(request, info, record)
        outward = self._outward.concerns(info)
        if not outward and (flow := self._fairness.flow(user, info)) is not None:
            exchange.flow = flow
            exchange.seats = await self._fairness.enter(flow, info, query)
            if exchange.seats.width > 1:  # what takes long lets those in who came meanwhile
                await asyncio.sleep(0)
        await self._chain.authorize(user, info, record)
        if outward:
            if self._outward.connects(info):
                await self._chain.connect(user, info, query)
            if record is not None and is_long(info):
                record.started(200)
            return await self._carry(request, info, query, user)
        if not info.is_resource:
            return self._document(request, info, query)
        exchange.form = negotiate(headers.get("Accept", ""), query.get("pretty"), agent)
        if info.verb in READS:
            body = Body()
        else:
            body = Body(headers.get("Content-Type", ""), await _read(request))
        asked = APIRequest(info, user, query, body, agent, exchange.warnings)
        answer = await self._chain.answer(asked, record)
        return await exchange.write(answer, query.get("includeObject"))

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
        taken = takes_gzip(request)
        compressed = answer.compressed and bool(data)
        if compressed and not taken:
            data, compressed = zlib.decompress(data, 31), False
        elif not compressed and taken and len(data) > GZIP_FROM:
            data, compressed = compress(data), True
        response = web.Response(body=data, status=answer.code, headers=answer.headers)
        response.headers["Content-Type"] = answer.content_type
        if compressed:
            response.headers["Content-Encoding"] = "gzip"
        return response


async def _read(request: BaseRequest) -> bytes:
    """The body. Raises StatusError 413, 408 (too slow)."""
    if not request.body_exists:
        return b""
    if (request.content_length or 0) > MAX_BODY:
        raise _too_large()
    if request.content.is_eof():  # as short bodies are: it came with the headers
        data = request.content.read_nowait()
        if len(data) > MAX_BODY:
            raise _too_large()
        return data
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
