"""The driver ``json-file``: a JSON object a line, byte for byte as dockerd writes it.

``{"log":"text\\n","stream":"stdout","attrs":{…},"time":"2024-05-01T10:00:00.000000001Z"}``; the
text of a part of a long line has no newline at its end. dockerd escapes what HTML would take for
markup, and writes a byte that is no UTF-8 as ``\\ufffd``.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from wherry.engine.container.units import timestamp
from wherry.engine.logs import options
from wherry.engine.logs.files import Decoder, LogFile
from wherry.engine.logs.formats import Lines, fixed
from wherry.engine.logs.info import Info
from wherry.engine.logs.types import STREAMS, Entry, FileWriter, Piece, RawTime
from wherry.wire.docker_stream import STDERR, STDOUT

NAME = "json-file"
OPTIONS = frozenset(
    ("max-file", "max-size", "compress", "labels", "labels-regex", "env", "env-regex", "tag")
)
_BEGIN = b'{"log":"'


def check(config: Mapping[str, str]) -> None:
    """Whether the driver knows all options.

    Raises:
        BadParameter: it does not.
    """
    options.check_known(config, OPTIONS, "unknown log opt '{}' for json-file log driver")


class Writer(FileWriter):
    """Writes the log of one run.

    Raises:
        ValueError: an option makes no sense.
        OSError: the file cannot be opened.
    """

    def __init__(self, info: Info) -> None:
        config = info.config
        capacity, max_files, compress = 0, 1, False
        if "max-size" in config:
            capacity = options.human_size(config["max-size"])
            if capacity <= 0:
                raise ValueError("max-size must be a positive number")
        if "max-file" in config:
            max_files = options.integer(config["max-file"])
            if max_files < 1:
                raise ValueError("max-file cannot be less than 1")
        if "compress" in config:
            compress = options.boolean(config["compress"])
            if compress and (max_files == 1 or not capacity):
                raise ValueError(
                    "compress cannot be true when max-file is less than 2 or max-size is not set"
                )
        attributes = info.attributes()
        if config.get("tag"):
            attributes["tag"] = info.tag()
        self._attributes = b""
        if attributes:
            self._attributes = b'"attrs":' + encode_attributes(attributes) + b","
        super().__init__(
            LogFile(
                info.path, JSONLines(), capacity=capacity, max_files=max_files, compress=compress
            )
        )

    def encode(self, pieces: Sequence[Piece]) -> bytes:
        return b"".join(encode(piece, self._attributes) for piece in pieces)


def encode_attributes(attributes: Mapping[str, str]) -> bytes:
    """A JSON object, its names in order, as Go encodes a map."""
    return _markup(orjson.dumps(dict(attributes), option=orjson.OPT_SORT_KEYS))


def encode(piece: Piece, attributes: bytes = b"") -> bytes:
    """The lines of the file for ``piece``."""
    end = b'","stream":"%s",%s"time":"%s"}\n' % (
        STREAMS[piece.stream].encode(),
        attributes,
        timestamp(piece.time).encode(),
    )
    if piece.partial is not None:
        return _BEGIN + escape(piece.data) + end
    # One byte is found faster than the two of an escaped newline.
    mark = b"\x7f" if b"\x7f" not in piece.data else b""
    if mark:
        texts = escape(piece.data[:-1].replace(b"\n", mark)).split(mark)
    else:
        texts = [escape(line) for line in piece.lines]
    return _BEGIN + (b"\\n" + end + _BEGIN).join(texts) + b"\\n" + end


def escape(data: bytes) -> bytes:
    """The inside of a JSON string for ``data``, as dockerd writes it.

    In what orjson makes of text without backslashes, each backslash begins an escape; so those of
    ``data`` are put aside first, and the escapes can be replaced as a whole. Encoding makes a
    question mark of each byte that is no UTF-8; so then those that are meant are put aside, too.
    """
    backslash = question = b""
    if b"\\" in data:
        backslash = _absent(data)
        data = data.replace(b"\\", backslash)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        question = _absent(data)
        data = data.replace(b"?", question)
        text = data.decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode()
    encoded = _markup(orjson.dumps(text)[1:-1])
    for character, short, long in _SHORT:
        if character in data:
            encoded = encoded.replace(short, long)
    if question:
        encoded = encoded.replace(b"?", b"\\ufffd").replace(question, b"?")
    return encoded.replace(backslash, b"\\\\") if backslash else encoded


_SHORT = (
    (b"\t", b"\\t", b"\\u0009"),
    (b"\b", b"\\b", b"\\u0008"),
    (b"\f", b"\\f", b"\\u000c"),
)


def _markup(encoded: bytes) -> bytes:
    for character, escaped in ((b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026")):
        if character in encoded:
            encoded = encoded.replace(character, escaped)
    if not encoded.isascii() and b"\xe2\x80" in encoded:
        encoded = encoded.replace(b"\xe2\x80\xa8", b"\\u2028")
        encoded = encoded.replace(b"\xe2\x80\xa9", b"\\u2029")
    return encoded


def _absent(data: bytes) -> bytes:
    """A character that ``data`` does not have, and that JSON does not escape.

    There are more private ones than ``data`` has room for; drawn by chance, so that nobody can
    write what makes the search long.
    """
    found = b"\x7f"
    while found in data:
        found = chr(random.randrange(0xF0000, 0xFFFFE)).encode()  # noqa: S311  no secret
    return found


# ---- reading


class JSONLines(Lines):
    """The format, for files and readers."""

    def decoder(self) -> Decoder:
        return JSONDecoder()


_STREAM_NUMBERS = {"stdout": STDOUT, "stderr": STDERR}


class JSONDecoder:
    """Finds the entries in such a file; lines that are none are left out."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Entry]:
        end = data.rfind(b"\n")
        if end < 0:
            self._rest += data
            return []
        complete = self._rest + data[:end]
        self._rest = data[end + 1 :]
        lines = complete.split(b"\n")
        try:
            documents = orjson.loads(b"[%s]" % b",".join(lines))
            return [
                (_STREAM_NUMBERS[d["stream"]], d["time"], d["log"].encode(), d.get("attrs"))
                for d in documents
            ]
        except (ValueError, TypeError, KeyError, AttributeError):
            return [entry for line in lines if (entry := _entry(line)) is not None]

    def fixed_time(self, time: RawTime) -> str:
        return fixed(str(time))


def _entry(line: bytes) -> Entry | None:
    try:
        document: Any = orjson.loads(line)
        stream = _STREAM_NUMBERS[document.get("stream", "stdout")]
        time, text = str(document["time"]), document.get("log", "").encode()
        fixed(time)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return stream, time, text, document.get("attrs")
