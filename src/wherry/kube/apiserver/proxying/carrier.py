"""A request handed on as it is, and its answer handed back; both bodies are streamed.

Connections to other servers are kept for the next request. One that is to be taken over (an
upgrade) goes by `raw` instead. Headers that concern one connection only (RFC 9110, section 7.6.1)
are not handed on, nor is whatever the client showed to us to say who it is.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass

import aiohttp
from aiohttp import web
from aiohttp.web_request import BaseRequest
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from wherry.host.hijack import hijack
from wherry.kube.apiserver.authn.authenticator import without_bearer
from wherry.kube.apiserver.proxying import raw
from wherry.kube.apiserver.proxying.raw import Target, Unreachable

_KEEP = 30.0  # seconds an unused connection is kept
_HEAD_LIMIT = 128 * 1024
_MOST_REWRITTEN = 16 << 20  # bytes of a page whose links are mended
_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
_IDENTITY = ("authorization", "impersonate-", "x-remote-")
_CORS = frozenset(
    f"access-control-allow-{what}" for what in ("credentials", "headers", "methods", "origin")
)

Rewriting = Callable[[str], str]
"""What makes an address in an answer one that the client can follow."""


@dataclass(frozen=True, slots=True)
class Errand:
    """What to carry where.

    ``context`` is the TLS to use; ``headers`` are added to the client's; ``host`` is the Host
    header, the target's own where it is empty; ``rewriting`` mends addresses, where wanted.
    """

    target: Target
    context: ssl.SSLContext | None
    headers: tuple[tuple[str, str], ...] = ()
    host: str = ""
    rewriting: Rewriting | None = None


class Carrier:
    """Carries requests; all that go the same way share connections."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def carry(self, request: BaseRequest, errand: Errand) -> web.StreamResponse:
        """Answer ``request`` with what the target answers.

        Raises:
            Unreachable: it answers nothing.
        """
        if wants_upgrade(request):
            return await _upgrade(request, errand)
        target = errand.target
        body = _body(request) if request.body_exists else None
        try:
            response = await self.session.request(
                request.method,
                URL(target.url, encoded=True),
                headers=_headers(request, errand),
                data=body,
                ssl=errand.context if errand.context is not None else True,
                server_hostname=target.name or None,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable(target, error) from error
        try:
            return await _hand_back(request, response, errand)
        except aiohttp.ClientError as error:
            if request.transport is not None:
                request.transport.abort()  # what was promised did not come
            raise ConnectionResetError("the other side broke off") from error
        finally:
            response.close() if not response.content.at_eof() else response.release()

    @property
    def session(self) -> aiohttp.ClientSession:
        """For requests of our own, too."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP),
                timeout=aiohttp.ClientTimeout(total=None, connect=raw.DIAL),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
                max_line_size=_HEAD_LIMIT,
                max_field_size=_HEAD_LIMIT,
            )
        return self._session


def unreachable(target: Target, error: BaseException) -> Unreachable:
    """What aiohttp's error means."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return Unreachable(raw.why_not(target, error.certificate_error))
    if isinstance(error, aiohttp.ClientConnectorError):
        return Unreachable(raw.why_not(target, error.os_error))
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return Unreachable("EOF")
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ClientResponseError):
        return Unreachable(f"malformed HTTP response: {error}")
    if isinstance(error, TimeoutError):
        return Unreachable(raw.why_not(target, TimeoutError()))
    return Unreachable(raw.why_not(target, error))


def wants_upgrade(request: BaseRequest) -> bool:
    return "upgrade" in request.headers.get("Connection", "").lower()


async def _body(request: BaseRequest) -> AsyncIterator[bytes]:
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    async for chunk in request.content.iter_any():
        yield chunk


def _kept(name: str, named: Iterable[str]) -> bool:
    return not (name in _HOP or name in named or name.startswith(_IDENTITY) or name == "expect")


def _named(headers: CIMultiDictProxy[str]) -> set[str]:
    """The headers that Connection says are for this connection only."""
    return {
        name.strip().lower()
        for value in headers.getall("Connection", [])
        for name in value.split(",")
    }


def _headers(request: BaseRequest, errand: Errand) -> CIMultiDict[str]:
    named = _named(request.headers)
    upgrade = wants_upgrade(request)
    headers: CIMultiDict[str] = CIMultiDict()
    headers["Host"] = errand.host or errand.target.authority
    for name, value in request.headers.items():
        low = name.lower()
        if low in ("host", "x-forwarded-for"):
            continue
        if low == "sec-websocket-protocol" and not (value := without_bearer(value)):
            continue
        if _kept(low, named) or (upgrade and low in ("connection", "upgrade")):
            headers.add(name, value)
    peer = request.transport.get_extra_info("peername") if request.transport else None
    if peer:
        before = request.headers.getall("X-Forwarded-For", [])
        headers["X-Forwarded-For"] = ", ".join([*before, str(peer[0])])
    for name, value in errand.headers:
        headers.add(name, value)
    return headers


async def _hand_back(
    request: BaseRequest, answer: aiohttp.ClientResponse, errand: Errand
) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, reason=answer.reason)
    named = _named(answer.headers)
    for name, value in answer.headers.items():
        low = name.lower()
        if low in _HOP or low in named or (errand.rewriting and low in _CORS):
            continue
        if low == "location" and errand.rewriting:
            value = errand.rewriting(value)
        response.headers.add(name, value)
    if errand.rewriting and "Location" not in answer.headers and _is_page(answer):
        return await _mended(request, answer, response, errand.rewriting)
    if "Content-Length" not in answer.headers and _has_body(request, answer):
        response.enable_chunked_encoding()
    await response.prepare(request)
    async for chunk in answer.content.iter_any():
        await response.write(chunk)
    await response.write_eof()
    return response


def _has_body(request: BaseRequest, answer: aiohttp.ClientResponse) -> bool:
    return request.method != "HEAD" and answer.status not in (204, 304) and answer.status >= 200


def _is_page(answer: aiohttp.ClientResponse) -> bool:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip() == "text/html"


async def _mended(
    request: BaseRequest,
    answer: aiohttp.ClientResponse,
    response: web.StreamResponse,
    rewriting: Rewriting,
) -> web.StreamResponse:
    """A page with its links changed; one that is huge, or in an unknown coding, as it is."""
    from wherry.kube.apiserver.proxying.rewriting import rewrite_body

    page = bytearray()
    async for chunk in answer.content.iter_any():
        page += chunk
        if len(page) > _MOST_REWRITTEN:
            break
    else:
        encoding = answer.headers.get("Content-Encoding", "")
        changed = await asyncio.to_thread(rewrite_body, bytes(page), encoding, rewriting)
        if changed is not None and _has_body(request, answer):
            page = bytearray(changed)
            response.headers["Content-Length"] = str(len(page))
    if "Content-Length" not in response.headers and _has_body(request, answer):
        response.enable_chunked_encoding()
    await response.prepare(request)
    if page:
        await response.write(bytes(page))
    async for chunk in answer.content.iter_any():
        await response.write(chunk)
    await response.write_eof()
    return response


async def _upgrade(request: BaseRequest, errand: Errand) -> web.StreamResponse:
    """Both sides switch protocols, then bytes are carried. A refusal is handed back."""
    reader, writer = await raw.dial(errand.target, errand.context)
    try:
        writer.write(raw.head(request, errand.target, _headers(request, errand).items()))
        head, code, headers = await raw.answer_head(reader)
        if code == 101:
            return await raw.tunnel(hijack(request, head), reader, writer)
        if code < 400:
            raise Unreachable(f"invalid upgrade response: status code {code}")
        return await raw.relay(request, code, headers, reader)
    finally:
        writer.close()
