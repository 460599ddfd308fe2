"""One HTTP GET on a connection of its own, as probes and hooks send it.

Leaner than a general client: no pool, no cookies, no task and no thread for a request; at most
10 KiB of a body are looked at. Redirects are followed as Go's client does for a kubelet: on the
same host only; one that leaves it is an answer like any other
(https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/#http-probes).
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Sequence
from functools import cache
from typing import cast
from urllib.parse import quote, urljoin, urlsplit

MAX_BODY = 10 * 1024  # bytes of a body that are looked at
MAX_HEAD = 1 << 16
MAX_REDIRECTS = 10
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: .*)?$", re.DOTALL)
# Servers of few words, CGI scripts among them, end lines without a carriage return.
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_UNFIT = re.compile(r"[\r\n\0]")
_PATH_SIGNS = "/%:@!$&'()*+,;=~[]"
Headers = Sequence[tuple[str, str]]


class ProbeError(Exception):
    """There was no answer; the text says why as Go's client does."""


class Broken(ProbeError):
    """The answer began, but its body did not come whole."""


class Answered:
    """An answer as it comes in: feed it bytes until ``done``. No I/O."""

    def __init__(self) -> None:
        self.status = 0
        self.location = ""
        self.done = False
        self._data = bytearray()
        self._body = bytearray()
        self._left: int | None = None  # bytes of the body still to come; None: until the end
        self._chunked = False

    @property
    def body(self) -> str:
        """What is known of the body."""
        return bytes(self._body[:MAX_BODY]).decode("utf-8", "replace")

    def feed(self, data: bytes) -> None:
        """Take in what has arrived.

        Raises:
            ProbeError: it is not HTTP.
        """
        self._data += data
        while not self.status:
            end = _END_OF_HEAD.search(self._data)
            if end is None:
                self._check_beginning()
                return
            head = bytes(self._data[: end.start()])
            del self._data[: end.end()]
            self._read_head(head)
        self._read_body()

    def end(self) -> None:
        """The server has closed the connection.

        Raises:
            ProbeError: too early.
        """
        if self.done:
            return
        if not self.status:
            if self._data:
                self._status_of(bytes(self._data).split(b"\r\n", 1)[0])
                raise ProbeError("unexpected EOF")
            raise ProbeError("EOF")
        if self._chunked or self._left:
            raise Broken("unexpected EOF")
        self.done = True

    def _check_beginning(self) -> None:
        if len(self._data) > MAX_HEAD:
            raise ProbeError(
                "net/http: HTTP/1.x transport connection broken: net/http: server response "
                f"headers exceeded {MAX_HEAD} bytes; aborted"
            )
        line, newline, _ = bytes(self._data).partition(b"\n")
        if newline:
            self._status_of(line.rstrip(b"\r"))

    def _status_of(self, line: bytes) -> int:
        match = _STATUS_LINE.match(line)
        if match is None:
            text = line.decode("latin-1").replace('"', '\\"')
            raise ProbeError(
                f'net/http: HTTP/1.x transport connection broken: malformed HTTP response "{text}"'
            )
        return int(match[1])

    def _read_head(self, head: bytes) -> None:
        lines = [line.rstrip(b"\r") for line in head.split(b"\n")]
        status = self._status_of(lines[0])
        if 100 <= status < 200 and status != 101:
            return  # the real one follows
        self.status = status
        for line in lines[1:]:
            name, _, value = line.decode("latin-1").partition(":")
            match name.strip().lower():
                case "location":
                    self.location = value.strip()
                case "content-length" if value.strip().isdigit():
                    self._left = int(value)
                case "transfer-encoding":
                    self._chunked = "chunked" in value.lower()
        if status in (101, 204, 304):
            self._left, self._chunked = 0, False

    def _read_body(self) -> None:
        if self._chunked:
            self._read_chunks()
        else:
            self._body += self._data
            if self._left is not None:
                self._left -= len(self._data)
                self.done = self._left <= 0
            self._data.clear()
        if len(self._body) >= MAX_BODY:
            self.done = True

    def _read_chunks(self) -> None:
        while len(self._body) < MAX_BODY:
            end = self._data.find(b"\r\n")
            if end < 0:
                if len(self._data) > MAX_HEAD:
                    raise Broken("http: invalid chunk")
                return
            try:
                size = int(self._data[:end].split(b";")[0], 16)
            except ValueError:
                raise Broken("invalid byte in chunk length") from None
            if size == 0:
                self.done = True
                return
            whole = end + 2 + size + 2
            if len(self._data) < whole:
                if len(self._body) + len(self._data) >= MAX_BODY + 64:
                    self._body += self._data[end + 2 :]
                return
            self._body += self._data[end + 2 : whole - 2]
            del self._data[:whole]


async def get(url: str, headers: Headers) -> tuple[int, str, bool]:
    """GET ``url``: status, the body's beginning, and whether a redirect was not followed.

    Raises:
        ProbeError: no answer came.
    """
    host = urlsplit(url).hostname
    requested = url
    for _ in range(MAX_REDIRECTS):
        answer = await _ask(url, headers)
        if answer.status not in _REDIRECTS or not answer.location:
            return answer.status, answer.body, 300 <= answer.status < 400
        target = urljoin(url, answer.location)
        if urlsplit(target).hostname != host or not target.startswith(("http://", "https://")):
            return answer.status, answer.body, True
        if urlsplit(answer.location).netloc:  # a name of its own, no longer that of the probe
            headers = [(n, v) for n, v in headers if n.lower() != "host"]
        url = target
    raise ProbeError(f'Get "{requested}": stopped after {MAX_REDIRECTS} redirects')


async def _ask(url: str, headers: Headers) -> Answered:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    exchange = _Exchange(_request(parts.netloc, parts.path, parts.query, headers))
    try:
        await asyncio.get_running_loop().create_connection(
            lambda: exchange, host, port, ssl=_unverified() if secure else None
        )
    except ssl.SSLError as error:
        if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
            why = "http: server gave HTTP response to HTTPS client"
        else:
            why = f"remote error: tls: {(error.reason or str(error)).lower().replace('_', ' ')}"
        raise ProbeError(f'Get "{url}": {why}') from error
    except OSError as error:
        place = f"{bracketed(host)}:{port}"
        why = "EOF" if secure and isinstance(error, ConnectionError) and not error.errno else ""
        why = why or f"dial tcp {place}: {spoken(error)}"
        raise ProbeError(f'Get "{url}": {why}') from error
    try:
        await exchange.finished
    except Broken:
        raise
    except ProbeError as error:
        raise ProbeError(f'Get "{url}": {error}') from error
    finally:
        exchange.close()
    return exchange.answer


class _Exchange(asyncio.Protocol):
    """The request goes out as soon as there is a connection."""

    def __init__(self, request: bytes) -> None:
        self.answer = Answered()
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self.finished.done():
            self._transport.abort()
        else:
            self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self.finished.done():
            return
        try:
            self.answer.feed(data)
        except ProbeError as error:
            self.finished.set_exception(error)
            return
        if self.answer.done:
            self.finished.set_result(None)

    def eof_received(self) -> bool:
        self._end(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)

    def _end(self, exc: Exception | None) -> None:
        if self.finished.done():
            return
        if isinstance(exc, OSError) and exc.errno:
            why = f"read tcp: read: {_words(exc)}"
            self.finished.set_exception(Broken(why) if self.answer.status else ProbeError(why))
            return
        try:
            self.answer.end()
        except ProbeError as error:
            self.finished.set_exception(error)
        else:
            self.finished.set_result(None)

    def close(self) -> None:
        """Let go of the connection."""
        self.finished.cancel()
        if self._transport is not None:
            # What the server still sends is of no interest: nothing waits for a polite TLS end.
            self._transport.abort()


def _request(netloc: str, path: str, query: str, headers: Headers) -> bytes:
    named = {name.lower() for name, _ in headers}
    target = quote(path or "/", safe=_PATH_SIGNS)
    if query:
        target += "?" + quote(query, safe=_PATH_SIGNS + "?")
    host = next((value for name, value in headers if name.lower() == "host" and value), netloc)
    lines = [f"GET {target} HTTP/1.1", f"Host: {host}"]
    if "accept" not in named:
        lines.append("Accept: */*")
    for name, value in headers:
        if _UNFIT.search(name + value):
            raise ProbeError(f'net/http: invalid header field value for "{name}"')
        # An empty one takes away what would be sent by itself.
        if name.lower() != "host" and (value or name.lower() not in ("accept", "user-agent")):
            lines.append(f"{name}: {value}")
    lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "replace")


@cache
def _unverified() -> ssl.SSLContext:
    """Probes do not check certificates: a container's is rarely made out to its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def bracketed(host: str) -> str:
    """``host`` as it stands before a port."""
    return f"[{host}]" if ":" in host else host


def spoken(error: OSError) -> str:
    """Why a connection failed, as Go's dialler ends its sentence."""
    if (error.errno or 0) < 0:  # of getaddrinfo: a name, not an address
        return f"lookup: {error.strerror or error}"
    return f"connect: {_words(error)}"


def _words(error: OSError) -> str:
    """The kernel's words as Go prints them."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError):
        return "connection reset by peer"
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]
