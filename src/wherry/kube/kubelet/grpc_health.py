"""Ask a gRPC server how it is: one call of ``grpc.health.v1.Health/Check`` on its own connection.

A probe needs one unary call without TLS, so it is spoken over HTTP/2 directly: a library of gRPC
would bring threads and forty megabytes. See
https://github.com/grpc/grpc/blob/master/doc/health-checking.md and PROTOCOL-HTTP2.md beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import cast
from urllib.parse import unquote

from wherry.wire import protobuf

METHOD = "/grpc.health.v1.Health/Check"
MAX_MESSAGE = 1 << 16

SERVING = 1
STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
DEADLINE_EXCEEDED, UNIMPLEMENTED = 4, 12
CODES = (
    "OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound",
    "AlreadyExists", "PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted",
    "OutOfRange", "Unimplemented", "Internal", "Unavailable", "DataLoss", "Unauthenticated",
)  # fmt: skip


class RPCError(Exception):
    """The call did not end with OK."""

    def __init__(self, code: int, message: str) -> None:
        name = CODES[code] if 0 <= code < len(CODES) else f"Code({code})"
        super().__init__(f"rpc error: code = {name} desc = {message}")
        self.code = code
        self.message = message


async def check(host: str, port: int, service: str, user_agent: str) -> int:
    """The health of ``service`` (a member of ``STATUSES`` by its number).

    Raises:
        OSError: no connection.
        RPCError: the call failed.
    """
    _, call = await asyncio.get_running_loop().create_connection(
        lambda: _Call(f"{host}:{port}", service, user_agent), host, port
    )
    try:
        return await call.finished
    finally:
        call.close()


class _Call(asyncio.Protocol):
    def __init__(self, authority: str, service: str, user_agent: str) -> None:
        # Lazily: no kubelet without such probes pays for it.
        from h2.config import H2Configuration
        from h2.connection import H2Connection

        self.finished: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._authority = authority
        self._service = service
        self._user_agent = user_agent
        self._headers: dict[str, str] = {}
        self._data = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        http = self._http
        http.initiate_connection()
        http.send_headers(
            1,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", METHOD),
                (":authority", self._authority),
                ("content-type", "application/grpc"),
                ("user-agent", self._user_agent),
                ("te", "trailers"),
            ],
        )
        http.send_data(1, encode_request(self._service), end_stream=True)
        self._flush()

    def _flush(self) -> None:
        if self._transport is not None and (data := self._http.data_to_send()):
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        from h2.exceptions import ProtocolError

        if self.finished.done():
            return
        try:
            for event in self._http.receive_data(data):
                self._take(event)
        except ProtocolError as error:
            self._fail(14, f"connection error: {error}")
            return
        self._flush()

    def _take(self, event: object) -> None:
        from h2 import events

        match event:
            case events.ResponseReceived() | events.TrailersReceived():
                self._headers.update({str(k): str(v) for k, v in event.headers or ()})
            case events.DataReceived():
                self._data += event.data or b""
                self._http.acknowledge_received_data(event.flow_controlled_length or 0, 1)
                if len(self._data) > MAX_MESSAGE:
                    self._fail(8, "the answer is too long")
            case events.StreamEnded():
                self._conclude()
            case events.StreamReset():
                self._fail(
                    1, f"stream terminated by RST_STREAM with error code: {event.error_code}"
                )
            case events.ConnectionTerminated():
                self._fail(14, f"the server goes away with error code: {event.error_code}")

    def _conclude(self) -> None:
        if self.finished.done():
            return
        try:
            self.finished.set_result(decode_answer(self._headers, bytes(self._data)))
        except RPCError as error:
            self.finished.set_exception(error)

    def _fail(self, code: int, message: str) -> None:
        if not self.finished.done():
            self.finished.set_exception(RPCError(code, message))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(14, f"error reading from server: {exc or 'EOF'}")

    def close(self) -> None:
        """Let go of the connection."""
        self.finished.cancel()
        if self._transport is not None:
            self._transport.abort()


# ---- the messages


def encode_request(service: str) -> bytes:
    """A ``HealthCheckRequest`` with gRPC's prefix."""
    name = service.encode()
    message = protobuf.field(1, name) if name else b""
    return b"\0" + len(message).to_bytes(4, "big") + message


def decode_answer(headers: Mapping[str, str], data: bytes) -> int:
    """The status in a ``HealthCheckResponse``; ``headers`` are those before and behind it.

    Raises:
        RPCError: there is none.
    """
    http = headers.get(":status", "")
    if "grpc-status" not in headers and http != "200":
        raise RPCError(
            UNIMPLEMENTED if http == "404" else 14,
            f"unexpected HTTP status code received from server: {http or 'none'}",
        )
    text = headers.get("grpc-status", "2")
    code = int(text) if text.isdigit() else 2
    if code:
        raise RPCError(code, unquote(headers.get("grpc-message", "")))
    length = int.from_bytes(data[1:5], "big")
    if len(data) < 5 or data[0] or len(data) < 5 + length:
        raise RPCError(13, "the answer is not complete")
    try:
        message = {number: value for number, _, value in protobuf.fields(data[5 : 5 + length])}
    except protobuf.Malformed as error:
        raise RPCError(13, "the answer is not complete") from error
    status = message.get(1, 0)
    return status if isinstance(status, int) else 0
