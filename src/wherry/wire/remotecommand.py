"""Kubernetes' remote command protocols: exec and attach over SPDY streams or WebSocket channels.

Five channels belong to one command: stdin, stdout, stderr, error and resize. SPDY gives each a
stream, named by its ``streamType`` header. A WebSocket puts the channel's number in front of each
message. The protocol's version says how the end of the command is told on the error channel: as a
``Status`` object from v4 on, before that as plain text. v5 adds a signal that closes one channel,
which is how stdin ends over a WebSocket.

Follows k8s.io/apimachinery/pkg/util/remotecommand and k8s.io/streaming's wsstream.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

SPDY_PROTOCOLS = (
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
)
WEBSOCKET_PROTOCOLS = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
)
PORT_FORWARD_PROTOCOL = "portforward.k8s.io"
PORT_FORWARD_TUNNEL = "SPDY/3.1+portforward.k8s.io"
PORT_FORWARD_CHANNELS = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io")

CLOSE_SIGNAL = 255  # "channel number" of v5's message that ends the channel its payload names


class Channel(IntEnum):
    """What a channel carries; the value is its number on a WebSocket."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    ERROR = 3
    RESIZE = 4

    @property
    def stream_type(self) -> str:
        """The ``streamType`` header of the SPDY stream for it."""
        return self.name.lower()


class ProtocolError(Exception):
    """The client sent what the protocol does not have."""


class Unsupported(Exception):
    """No protocol that the client offers is known; ``offered`` are its offers."""

    def __init__(self, offered: Iterable[str]) -> None:
        self.offered = tuple(offered)
        super().__init__(f"unable to upgrade: unable to negotiate protocol: client supports "
                         f"[{' '.join(self.offered)}]")  # fmt: skip


def negotiate(offered: Iterable[str], known: Iterable[str]) -> str:
    """The first protocol of the client's list that is known; ``""`` (version 1) if it lists none.

    Raises:
        Unsupported: it lists some, none of them known.
    """
    wanted = [name.strip() for entry in offered for name in entry.split(",") if name.strip()]
    if not wanted:
        return ""
    accepted = set(known)
    for name in wanted:
        if name in accepted:
            return name
    raise Unsupported(wanted)


def protocol_version(protocol: str) -> int:
    """5 for ``v5.channel.k8s.io``, 1 for those without a number."""
    head = protocol.split(".", 1)[0]
    return int(head[1:]) if head.startswith("v") and head[1:].isdigit() else 1


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Which streams the client wants; with a terminal there is no separate stderr."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    tty: bool = False

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> StreamOptions:
        """From a URL's parameters, by the kubelet's names (``input``) or the API's (``stdin``).

        Raises:
            ProtocolError: no stream is asked for.
        """

        def wanted(*names: str) -> bool:
            return any(query.get(name, "").lower() in ("1", "true", "t") for name in names)

        tty = wanted("tty")
        options = cls(
            stdin=wanted("input", "stdin"),
            stdout=wanted("output", "stdout"),
            stderr=wanted("error", "stderr") and not tty,
            tty=tty,
        )
        if not (options.stdin or options.stdout or options.stderr):
            raise ProtocolError("you must specify at least 1 of stdin, stdout, stderr")
        return options

    def channels(self, version: int) -> frozenset[Channel]:
        """The channels a client of that protocol version opens."""
        channels = {Channel.ERROR}
        if self.stdin:
            channels.add(Channel.STDIN)
        if self.stdout:
            channels.add(Channel.STDOUT)
        if self.stderr:
            channels.add(Channel.STDERR)
        if self.tty and version >= 3:
            channels.add(Channel.RESIZE)
        return frozenset(channels)


# the messages of a WebSocket


def encode_message(protocol: str, channel: int, data: bytes) -> bytes | str:
    """One WebSocket message; text where the protocol is one of the base64 ones."""
    if "base64" in protocol:
        return chr(ord("0") + channel) + base64.b64encode(data).decode("ascii")
    return bytes((channel,)) + data


def decode_message(protocol: str, message: bytes | str) -> tuple[int, bytes]:
    """The channel and payload of a WebSocket message.

    Raises:
        ProtocolError: it is empty or malformed.
    """
    if isinstance(message, str):
        message = message.encode("utf-8")
    if not message:
        raise ProtocolError("empty message")
    if "base64" not in protocol:
        return message[0], message[1:]
    try:
        return message[0] - ord("0"), base64.b64decode(message[1:], validate=True)
    except binascii.Error as error:
        raise ProtocolError(f"not base64: {error}") from error


class ResizeReader:
    """Terminal sizes from the resize channel: JSON objects, one after another, cut anywhere."""

    def __init__(self) -> None:
        self._text = ""
        self._decoder = json.JSONDecoder()

    def feed(self, data: bytes) -> list[tuple[int, int]]:
        """The sizes (width, height) that ``data`` completes.

        Raises:
            ProtocolError: what arrives is no such object.
        """
        self._text += data.decode("utf-8", "replace")
        sizes: list[tuple[int, int]] = []
        while self._text.strip():
            self._text = self._text.lstrip()
            try:
                size, end = self._decoder.raw_decode(self._text)
            except ValueError as error:
                if self._text[0] != "{" or len(self._text) > 256:
                    raise ProtocolError(f"terminal size: {error}") from error
                break
            if not isinstance(size, dict):
                raise ProtocolError(f"terminal size: {size!r}")
            sizes.append((int(size.get("Width") or 0), int(size.get("Height") or 0)))
            self._text = self._text[end:]
        return sizes


# how a command ended


def success() -> dict[str, Any]:
    """The command ended with code 0."""
    return {"metadata": {}, "status": "Success"}


def exit_status(code: int, why: str = "") -> dict[str, Any]:
    """The command ended with ``code``; clients take it from the causes."""
    if code == 0:
        return success()
    why = why or f"error executing command in container: command terminated, exit code {code}"
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: {why}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def failure(message: str) -> dict[str, Any]:
    """The command could not be run or followed: an internal error, as the API words it."""
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {message}",
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    }


def encode_end(version: int, status: Mapping[str, Any]) -> bytes:
    """What the error channel carries at the end; before v4 nothing for success, else the text."""
    if version >= 4:
        return json.dumps(status, separators=(",", ":")).encode("utf-8")
    if status.get("status") == "Success":
        return b""
    return str(status.get("message", "")).encode("utf-8")
