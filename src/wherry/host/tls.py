"""TLS whose two directions end separately, as Docker's streams need it.

asyncio's and uvloop's TLS transports take the other side's end of sending (close_notify, RFC 8446,
section 6.1) for the end of the connection; ``echo hello | docker run -i … cat`` over TLS would lose
its output. Here it is an end of file like any other: the protocol above hears ``eof_received`` and
may go on writing, and ``write_eof`` ends our own sending alone.

The protocol above must not see that this is TLS (``get_extra_info("sslcontext")`` is None), or
asyncio's streams would fall back to the habits above.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

log = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT = 30.0  # seconds
_CHUNK = 256 * 1024
# What Go's servers answer who speaks HTTP to them, so that people see what is wrong.
_SPEAKS_HTTP = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"


def mutual(authority: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """For a server that proves itself and lets nobody in who does not: paths of PEM files.

    Raises:
        OSError, ssl.SSLError: a file cannot be read, or is no such thing.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority)
    context.load_cert_chain(certificate, key)
    return context


class TLSServerProtocol(asyncio.Protocol):
    """Sits on an accepted connection; after the handshake, ``factory()`` gets a transport."""

    def __init__(self, context: ssl.SSLContext, factory: Callable[[], asyncio.Protocol]) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._factory = factory
        self._connection: asyncio.Transport
        self._deadline: asyncio.TimerHandle | None = None
        self._upper: asyncio.Protocol | None = None
        self._transport: _Transport | None = None
        self._reading = True
        self._ended = False  # the other side sends nothing more
        self._said_goodbye = False

    # ---- below: the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connection = cast("asyncio.Transport", transport)
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(HANDSHAKE_TIMEOUT, self._connection.abort)

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        if self._upper is None and not self._shake_hands(data):
            return
        self._deliver()

    def eof_received(self) -> bool:
        """The connection's own end. Half-closed without a word of TLS is what old clients do."""
        if self._upper is None:
            return False
        self._incoming.write_eof()
        self._deliver()
        return not self._connection.is_closing()

    def pause_writing(self) -> None:
        if self._upper is not None:
            self._upper.pause_writing()

    def resume_writing(self) -> None:
        if self._upper is not None:
            self._upper.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._ended = True
        if self._upper is not None:
            self._upper.connection_lost(error)

    # ---- TLS

    def _shake_hands(self, data: bytes) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as error:
            if error.reason == "HTTP_REQUEST":
                self._connection.write(_SPEAKS_HTTP)
            else:
                self._flush()  # the alert that says why
            log.info("TLS handshake failed: %s", error.reason or error)
            self._connection.close()
            return False
        self._flush()
        if self._deadline is not None:
            self._deadline.cancel()
        self._upper, self._transport = self._factory(), _Transport(self)
        self._upper.connection_made(self._transport)
        return True

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and not self._connection.is_closing():
            self._connection.write(data)

    def _deliver(self) -> None:
        """Hand up what has arrived, as far as it is wanted."""
        while self._reading and not self._ended and self._upper is not None:
            try:
                data = self._tls.read(_CHUNK)
            except ssl.SSLWantReadError:
                break
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                data = b""
            except ssl.SSLError as error:
                log.info("TLS: %s", error.reason or error)
                self._flush()
                self._connection.abort()
                return
            if not data:
                self._end_of_file()
                break
            self._upper.data_received(data)
        self._flush()

    def _end_of_file(self) -> None:
        if self._ended or self._upper is None:
            return
        self._ended = True
        if not self._upper.eof_received():
            self.close()

    # ---- above: what the transport asks for

    def write(self, data: bytes) -> None:
        if self._said_goodbye or self._connection.is_closing() or not data:
            return
        view = memoryview(data)
        try:
            while view:
                view = view[self._tls.write(view) :]
        except ssl.SSLError as error:
            log.info("TLS: %s", error.reason or error)
            self._connection.abort()
            return
        self._flush()

    def say_goodbye(self) -> None:
        """Tell the other side that nothing more comes."""
        if self._said_goodbye:
            return
        self._said_goodbye = True
        # It also looks for the answer, which is not there yet, or for data, which stay readable.
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()

    def close(self) -> None:
        self.say_goodbye()
        self._connection.close()

    def pause(self) -> None:
        self._reading = False
        if not self._connection.is_closing():
            self._connection.pause_reading()

    def resume(self) -> None:
        self._reading = True
        if not self._connection.is_closing():
            self._connection.resume_reading()
        # Not from inside the caller, who does not expect to be called.
        asyncio.get_running_loop().call_soon(self._deliver)

    @property
    def connection(self) -> asyncio.Transport:
        """The transport of the encrypted bytes."""
        return self._connection

    @property
    def tls(self) -> ssl.SSLObject:
        """The state of the encryption; it knows the client's certificate."""
        return self._tls

    @property
    def upper(self) -> asyncio.Protocol:
        """Who is served."""
        assert self._upper is not None
        return self._upper

    @upper.setter
    def upper(self, protocol: asyncio.Protocol) -> None:
        self._upper = protocol

    @property
    def is_reading(self) -> bool:
        """Whether what arrives is wanted."""
        return self._reading


class _Transport(asyncio.Transport):
    """What the served protocol writes to."""

    def __init__(self, below: TLSServerProtocol) -> None:
        super().__init__()
        self._below = below

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self._below.tls
        if name == "peercert":
            return self._below.tls.getpeercert()
        return self._below.connection.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._below.upper = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._below.upper

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._below.write(bytes(data))

    def write_eof(self) -> None:
        self._below.say_goodbye()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self._below.close()

    def abort(self) -> None:
        self._below.connection.abort()

    def is_closing(self) -> bool:
        return self._below.connection.is_closing()

    def pause_reading(self) -> None:
        self._below.pause()

    def resume_reading(self) -> None:
        self._below.resume()

    def is_reading(self) -> bool:
        return self._below.is_reading

    def get_write_buffer_size(self) -> int:
        return self._below.connection.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._below.connection.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._below.connection.set_write_buffer_limits(high, low)
