"""The driver ``syslog``: a message a line, over a socket, in the formats that dockerd offers.

Without ``syslog-format`` that is what syslog(3) sends to the local daemon; ``rfc3164``, ``rfc5424``
and ``rfc5424micro`` (microseconds) are those of RFC 3164 and RFC 5424. A message ends with a
newline; over TLS the RFC 5424 formats count its bytes instead (RFC 5425, section 4.3). The tag is
the name of the application and the message id.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from wherry.engine.errors import BadParameter
from wherry.engine.logs import options
from wherry.engine.logs.files import LogFile
from wherry.engine.logs.info import Info
from wherry.engine.logs.types import Piece
from wherry.host.readiness import writable
from wherry.wire.docker_stream import STDERR

NAME = "syslog"
OPTIONS = frozenset(
    (
        *("env", "env-regex", "labels", "labels-regex", "tag"),
        *("syslog-address", "syslog-facility", "syslog-format", "syslog-tls-ca-cert"),
        *("syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify"),
    )
)
FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron"),
    *("authpriv", "ftp", "", "", "", "", "local0", "local1", "local2", "local3", "local4"),
    *("local5", "local6", "local7"),
)
SECURE = "tcp+tls"
# Where the local daemon listens.
LOCAL = ("/dev/log", "/var/run/syslog", "/var/run/log")

_PORT = 514
_ERROR, _INFORMATION = 3, 6  # severities
_CONNECT_TIMEOUT = 10.0


def check(config: Mapping[str, str]) -> None:
    """Whether the driver knows all options and can make sense of them.

    Raises:
        BadParameter: it cannot.
    """
    options.check_known(config, OPTIONS, "unknown log opt '{}' for syslog log driver")
    try:
        parse_address(config.get("syslog-address", ""))
        parse_facility(config.get("syslog-facility", ""))
        formatter(config.get("syslog-format", ""))
    except ValueError as error:
        raise BadParameter(str(error)) from None


def parse_address(text: str) -> tuple[str, str, int]:
    """Protocol, host or path, and port; the protocol is empty for the local daemon.

    Raises:
        ValueError: it is no address, or no such socket exists.
    """
    if not text:
        return "", "", 0
    protocols = ("tcp", "udp", "unix", "unixgram", SECURE)
    if not text.startswith(tuple(f"{name}://" for name in protocols)):
        raise ValueError(f"syslog-address should be in form proto://address, got {text}")
    url = urlsplit(text)
    if url.scheme in ("unix", "unixgram"):
        try:
            Path(url.path).stat()
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise ValueError(f"stat {url.path}: {reason}") from None
        return url.scheme, url.path, 0
    try:
        port = url.port
    except ValueError:
        raise ValueError(f'parse "{text}": invalid port after host') from None
    return url.scheme, url.hostname or "", _PORT if port is None else port


def parse_facility(text: str) -> int:
    """A facility by its name or number.

    Raises:
        ValueError: there is none like that.
    """
    name = text or "daemon"
    if name in FACILITIES:
        return FACILITIES.index(name)
    if name.isascii() and name.isdigit() and int(name) < len(FACILITIES):
        return int(name)
    raise ValueError("invalid syslog facility")


# ---- messages

Formatter = Callable[[int, str, str, bytes], bytes]  # priority, host, tag, content


def _local(priority: int, host: str, tag: str, content: bytes) -> bytes:
    return b"<%d>%s %s[%d]: %s" % (priority, _stamp(), tag.encode(), os.getpid(), content)


def _rfc3164(priority: int, host: str, tag: str, content: bytes) -> bytes:
    head = f"{host} {tag}[{os.getpid()}]: ".encode()
    return b"<%d>%s %s%s" % (priority, _stamp(), head, content)


def _stamp() -> bytes:
    now = datetime.now()
    return f"{now:%b} {now.day:2d} {now:%H:%M:%S}".encode()


def _rfc5424(timespec: str) -> Formatter:
    def format(priority: int, host: str, tag: str, content: bytes) -> bytes:
        moment = datetime.now().astimezone().isoformat(timespec=timespec)
        if moment.endswith("+00:00"):
            moment = moment[:-6] + "Z"
        head = f"<{priority}>1 {moment} {host} {tag} {os.getpid()} {tag} - "
        return head.encode() + content

    return format


_FORMATTERS: Mapping[str, Formatter] = {
    "": _local,
    "rfc3164": _rfc3164,
    "rfc5424": _rfc5424("seconds"),
    "rfc5424micro": _rfc5424("microseconds"),
}


def formatter(name: str) -> Formatter:
    """What makes messages of the format ``name``.

    Raises:
        ValueError: there is none.
    """
    try:
        return _FORMATTERS[name]
    except KeyError:
        raise ValueError("Invalid syslog format") from None


def counted(message: bytes) -> bytes:
    """A message in the framing of RFC 5425."""
    return b"%d %s" % (len(message), message)


# ---- connections


class _Connection(Protocol):
    async def send(self, messages: Sequence[bytes]) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


class _Datagrams:
    """One datagram a message."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    async def send(self, messages: Sequence[bytes]) -> None:
        for message in messages:
            while True:
                try:
                    self._socket.send(message)
                    break
                except BlockingIOError:
                    await writable(self._socket.fileno())
                except OSError as error:
                    if error.errno != errno.EMSGSIZE:
                        raise
                    message = message[: len(message) // 2]  # rather half of it than nothing

    def close(self) -> None:
        self._socket.close()

    def abort(self) -> None:
        self._socket.close()


class _Stream:
    """Messages one behind the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, messages: Sequence[bytes]) -> None:
        if self._reader.at_eof() or self._writer.is_closing():
            raise ConnectionResetError(errno.EPIPE, "the syslog server has closed the connection")
        self._writer.write(b"".join(messages))
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        self._writer.transport.abort()


async def _datagram(family: int, address: str | tuple[str, int]) -> _Connection:
    connection = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        connection.setblocking(False)
        connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return _Datagrams(connection)


async def _dial_unix(path: str) -> _Connection:
    return _Stream(*await asyncio.open_unix_connection(path))


async def _dial_udp(host: str, port: int) -> _Connection:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    family, *_, address = found[0]
    return await _datagram(family, (str(address[0]), port))


def tls_context(config: Mapping[str, str]) -> ssl.SSLContext:
    """How ``tcp+tls`` checks the server and shows who we are.

    Raises:
        ValueError: a file cannot be used.
    """
    context = ssl.create_default_context()
    authority = config.get("syslog-tls-ca-cert")
    if authority:
        try:
            context.load_verify_locations(cafile=authority)
        except OSError as error:
            reason = f"open {authority}: {os.strerror(error.errno or 0).lower()}"
            if isinstance(error, ssl.SSLError):
                text = f'failed to append certificates from PEM file: "{authority}"'
                raise ValueError(text) from None
            raise ValueError(f'could not read CA certificate "{authority}": {reason}') from None
    certificate, key = config.get("syslog-tls-cert", ""), config.get("syslog-tls-key", "")
    if certificate or key:
        try:
            context.load_cert_chain(certificate, key or None)
        except OSError as error:
            reason = f"open {certificate}: {os.strerror(error.errno or 0).lower()}"
            if isinstance(error, ssl.SSLError):
                reason = "tls: failed to find or use any PEM data"
            raise ValueError(f"Could not load X509 key pair: {reason}") from None
    if "syslog-tls-skip-verify" in config:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Writer:
    """Sends the log of one run; a lost connection is made again with the next message.

    Raises:
        ValueError: an option makes no sense.
    """

    file: LogFile | None = None

    def __init__(self, info: Info) -> None:
        config = info.config
        self._tag = info.tag("{{.ID}}")
        self._protocol, self._host, self._port = parse_address(config.get("syslog-address", ""))
        self._facility = parse_facility(config.get("syslog-facility", ""))
        name = config.get("syslog-format", "")
        self._format = formatter(name)
        self._counted = self._protocol == SECURE and name.startswith("rfc5424")
        self._tls = tls_context(config) if self._protocol == SECURE else None
        self._hostname = socket.gethostname()
        self._connection: _Connection | None = None

    async def connect(self) -> None:
        """Connect now.

        Raises:
            OSError: in Go's words, as dockerd's users know them.
        """
        if self._connection is not None:
            return
        if not self._protocol:
            self._connection = await self._dial_local()
            return
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                self._connection = await self._dial()
        except (OSError, TimeoutError) as error:
            raise OSError(error.errno, self._complaint(error)) from error

    async def _dial(self) -> _Connection:
        match self._protocol:
            case "unix":
                return await _dial_unix(self._host)
            case "unixgram":
                return await _datagram(socket.AF_UNIX, self._host)
            case "udp":
                return await _dial_udp(self._host, self._port)
            case _:
                return _Stream(
                    *await asyncio.open_connection(self._host, self._port, ssl=self._tls)
                )

    async def _dial_local(self) -> _Connection:
        for path in LOCAL:
            with contextlib.suppress(OSError):
                return await _datagram(socket.AF_UNIX, path)
            with contextlib.suppress(OSError):
                return await _dial_unix(path)
        raise OSError(errno.ENOENT, "Unix syslog delivery error")

    def _complaint(self, error: BaseException) -> str:
        if isinstance(error, ssl.SSLCertVerificationError):
            reason = "x509: certificate signed by unknown authority"
            if error.verify_code in (62, 64):  # another host name, another address
                reason = f"x509: certificate is not valid for {self._host}"
            elif error.verify_code == 10:
                reason = "x509: certificate has expired or is not yet valid"
            return f"tls: failed to verify certificate: {reason}"
        protocol = "tcp" if self._protocol == SECURE else self._protocol
        where = self._host
        if self._port:
            where = f"[{where}]:{self._port}" if ":" in where else f"{where}:{self._port}"
        if isinstance(error, socket.gaierror):
            return f"dial {protocol}: lookup {self._host}: no such host"
        if isinstance(error, TimeoutError):
            return f"dial {protocol} {where}: i/o timeout"
        number = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(number).lower() if number and number > 0 else str(error)
        return f"dial {protocol} {where}: connect: {reason}"

    async def write(self, pieces: Sequence[Piece]) -> None:
        """Send ``pieces``; empty lines are none worth sending.

        Raises:
            OSError: the server cannot be reached, not even anew.
        """
        messages = [
            self._message(piece.stream, line) for piece in pieces for line in piece.lines if line
        ]
        if not messages:
            return
        if self._connection is not None:
            try:
                await self._connection.send(messages)
                return
            except OSError:
                self._connection.close()
                self._connection = None
        await self.connect()
        assert self._connection is not None
        await self._connection.send(messages)

    def _message(self, stream: int, line: bytes) -> bytes:
        severity = _ERROR if stream == STDERR else _INFORMATION
        priority = self._facility << 3 | severity
        message = self._format(priority, self._hostname, self._tag, line + b"\n")
        return counted(message) if self._counted else message

    async def settle(self) -> None:
        """Nothing waits here."""

    async def close(self) -> None:
        """Close the connection, once all is sent."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def abandon(self) -> None:
        """Close the connection, sent or not."""
        if self._connection is not None:
            self._connection.abort()
            self._connection = None
