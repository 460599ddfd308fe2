"""SPDY/3.1 frames as Kubernetes' exec, attach and port-forward use them.

Old clients (and new ones that fall back) multiplex their streams over one connection with SPDY,
after an HTTP ``Upgrade: SPDY/3.1``. ``Session`` is one end of such a connection without any I/O:
feed it the bytes that arrive, it returns events; call its methods, they return bytes to send.

Follows https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/. As the peers
(moby/spdystream in every kubectl) neither send nor heed WINDOW_UPDATE, there is no flow control
beyond that of the connection itself: a reader that cannot keep up stops reading the connection.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

VERSION = 3
MAX_HEADER_BLOCK = 1 << 20  # bytes, compressed or not: more than any sane client sends
MAX_DATA = 131072  # bytes of payload in a data frame that we send

SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY, HEADERS = 1, 2, 3, 6, 7, 8
FLAG_FIN = 0x01

PROTOCOL_ERROR, INVALID_STREAM, REFUSED_STREAM, UNSUPPORTED_VERSION, CANCEL, INTERNAL_ERROR = range(
    1, 7
)

_WORDS = (
    "options,head,post,put,delete,trace,accept,accept-charset,accept-encoding,accept-language,"
    "accept-ranges,age,allow,authorization,cache-control,connection,content-base,content-encoding,"
    "content-language,content-length,content-location,content-md5,content-range,content-type,date,"
    "etag,expect,expires,from,host,if-match,if-modified-since,if-none-match,if-range,"
    "if-unmodified-since,last-modified,location,max-forwards,pragma,proxy-authenticate,"
    "proxy-authorization,range,referer,retry-after,server,te,trailer,transfer-encoding,upgrade,"
    "user-agent,vary,via,warning,www-authenticate,method,get,status,200 OK,version,HTTP/1.1,url,"
    "public,set-cookie,keep-alive,origin"
)
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request"
    "401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented"
    "503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 "
    "Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,"
    "application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivate"
    "max-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)

DICTIONARY = b"".join(
    struct.pack(">I", len(word)) + word.encode("ascii") for word in _WORDS.split(",")
) + _TAIL.encode("ascii")
"""What both ends prime header compression with (section 2.6.10.1 of the specification)."""


class SpdyError(Exception):
    """The peer broke the protocol; the connection is of no further use."""


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The peer opened a stream and waits for ``Session.accept`` or ``Session.reset``."""

    stream_id: int
    headers: Mapping[str, str]
    finished: bool  # it will send nothing on it


@dataclass(frozen=True, slots=True)
class StreamAccepted:
    """The peer accepted a stream that we opened."""

    stream_id: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DataReceived:
    """Bytes on a stream; ``finished`` when the peer will send no more on it."""

    stream_id: int
    data: bytes
    finished: bool


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The peer aborted a stream."""

    stream_id: int
    status: int


@dataclass(frozen=True, slots=True)
class PingReceived:
    """A ping that must be answered with ``reply``."""

    reply: bytes


@dataclass(frozen=True, slots=True)
class GoAway:
    """The peer opens no more streams."""

    status: int


Event = StreamOpened | StreamAccepted | DataReceived | StreamReset | PingReceived | GoAway


class Session:
    """One end of a SPDY connection.

    ``server`` decides which stream and ping numbers are ours (even ones).
    """

    def __init__(self, *, server: bool) -> None:
        self._buffer = bytearray()
        self._deflate = zlib.compressobj(
            level=zlib.Z_BEST_COMPRESSION, wbits=zlib.MAX_WBITS, zdict=DICTIONARY
        )
        self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS, zdict=DICTIONARY)
        self._parity = 0 if server else 1
        self._next_stream = 2 if server else 1
        self._last_good = 0

    # in

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data``, behind all that came before, completes.

        Raises:
            SpdyError: what arrived is not SPDY/3.
        """
        self._buffer += data
        events: list[Event] = []
        offset = 0
        while len(self._buffer) - offset >= 8:
            word, flags_length = struct.unpack_from(">II", self._buffer, offset)
            flags, length = flags_length >> 24, flags_length & 0xFFFFFF
            if word >> 31 and length > MAX_HEADER_BLOCK:
                raise SpdyError(f"control frame of {length} bytes")
            if len(self._buffer) - offset - 8 < length:
                break
            payload = bytes(self._buffer[offset + 8 : offset + 8 + length])
            offset += 8 + length
            if word >> 31:
                event = self._control((word >> 16) & 0x7FFF, word & 0xFFFF, flags, payload)
                if event is not None:
                    events.append(event)
            else:
                if word == 0:
                    raise SpdyError("data on stream 0")
                events.append(DataReceived(word, payload, bool(flags & FLAG_FIN)))
        del self._buffer[:offset]
        return events

    def _control(self, version: int, kind: int, flags: int, payload: bytes) -> Event | None:
        if version != VERSION:
            raise SpdyError(f"SPDY version {version}")
        try:
            if kind == SYN_STREAM:
                stream, _associated, _priority = struct.unpack_from(">IIH", payload)
                stream &= 0x7FFFFFFF
                headers = self._read_headers(payload[10:])
                if stream % 2 == self._parity or stream <= self._last_good:
                    raise SpdyError(f"stream number {stream} is not the peer's to open")
                self._last_good = stream
                return StreamOpened(stream, headers, bool(flags & FLAG_FIN))
            if kind == SYN_REPLY:
                (stream,) = struct.unpack_from(">I", payload)
                return StreamAccepted(stream & 0x7FFFFFFF, self._read_headers(payload[4:]))
            if kind == RST_STREAM:
                stream, status = struct.unpack(">II", payload)
                return StreamReset(stream & 0x7FFFFFFF, status)
            if kind == PING:
                (number,) = struct.unpack(">I", payload)
                mine = number % 2 == self._parity
                return None if mine else PingReceived(_frame(PING, 0, payload))
            if kind == GOAWAY:
                _last, status = struct.unpack(">II", payload)
                return GoAway(status)
            if kind == HEADERS:  # of no meaning here, but the compressor's state must go along
                self._read_headers(payload[4:])
        except struct.error as error:
            raise SpdyError(f"control frame {kind} of {len(payload)} bytes: {error}") from error
        return None  # SETTINGS and WINDOW_UPDATE ask for nothing

    def _read_headers(self, block: bytes) -> dict[str, str]:
        try:
            plain = self._inflate.decompress(block, MAX_HEADER_BLOCK)
        except zlib.error as error:
            raise SpdyError(f"header block: {error}") from error
        if self._inflate.unconsumed_tail:
            raise SpdyError("header block is too long")
        headers: dict[str, str] = {}
        (count,) = struct.unpack_from(">I", plain)
        position = 4
        for _ in range(count):
            name, position = _read_string(plain, position)
            value, position = _read_string(plain, position)
            headers[name.decode("latin-1").lower()] = value.decode("latin-1")
        return headers

    # out

    def open(self, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Open a stream; returns its number and what to send."""
        stream = self._next_stream
        self._next_stream += 2
        head = struct.pack(">IIH", stream, 0, 0)
        return stream, _frame(SYN_STREAM, 0, head + self._write_headers(headers))

    def accept(self, stream_id: int, headers: Mapping[str, str] | None = None) -> bytes:
        """Accept a stream that the peer opened."""
        head = struct.pack(">I", stream_id)
        return _frame(SYN_REPLY, 0, head + self._write_headers(headers or {}))

    def data(self, stream_id: int, data: bytes, *, finish: bool = False) -> bytes:
        """``data`` on a stream, in as many frames as it needs; ``finish`` ends our half of it."""
        return b"".join(self.pieces(stream_id, data, finish=finish))

    def pieces(
        self, stream_id: int, data: bytes, *, finish: bool = False
    ) -> list[bytes | memoryview]:
        """What ``data`` returns, in pieces that have not been copied."""
        if len(data) <= MAX_DATA:
            return [_data_head(stream_id, len(data), finish), data]
        view = memoryview(data)
        parts: list[bytes | memoryview] = []
        for start in range(0, len(data), MAX_DATA):
            part = view[start : start + MAX_DATA]
            last = finish and start + MAX_DATA >= len(data)
            parts += (_data_head(stream_id, len(part), last), part)
        return parts

    def reset(self, stream_id: int, status: int = CANCEL) -> bytes:
        """Abort a stream."""
        return _frame(RST_STREAM, 0, struct.pack(">II", stream_id, status))

    def go_away(self, status: int = 0) -> bytes:
        """Say that no further stream will be accepted."""
        return _frame(GOAWAY, 0, struct.pack(">II", self._last_good, status))

    def _write_headers(self, headers: Mapping[str, str]) -> bytes:
        parts = [struct.pack(">I", len(headers))]
        for name, value in _lower(headers.items()):
            parts.append(struct.pack(">I", len(name)) + name)
            parts.append(struct.pack(">I", len(value)) + value)
        return self._deflate.compress(b"".join(parts)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def _lower(items: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in items]


def _read_string(block: bytes, position: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from(">I", block, position)
    start = position + 4
    end = start + length
    if end > len(block):
        raise SpdyError("header block ends within a string")
    return block[start:end], end


def _frame(kind: int, flags: int, payload: bytes) -> bytes:
    head = struct.pack(">II", 1 << 31 | VERSION << 16 | kind, flags << 24 | len(payload))
    return head + payload


def _data_head(stream_id: int, length: int, finish: bool) -> bytes:
    return struct.pack(">II", stream_id, (FLAG_FIN if finish else 0) << 24 | length)
