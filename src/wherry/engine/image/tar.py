"""Reading tar archives as a stream, with nothing trusted.

Layers are tar archives of strangers, so this reader holds little: one header, and the records
that belong to it up to ``HEADER_LIMIT``. It knows what image builders write: ustar, GNU long names
and sparse files, and pax records with nanosecond times and extended attributes
(IEEE Std 1003.1 "pax"; the GNU tar manual, "Basic Tar Format"). The standard library's ``tarfile``
reads whatever a pax header announces into memory, and takes several times as long for an entry.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

BLOCK = 512
HEADER_LIMIT = 1 << 20  # bytes of pax records or of a long name, per entry
SPARSE_LIMIT = 1 << 16  # data segments of a sparse file
NSEC = 1_000_000_000

REGULAR, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = "0", "1", "2", "3", "4", "5", "6"
_WITHOUT_DATA = frozenset("123456")
_ZEROS = bytes(BLOCK)
_XATTR = "SCHILY.xattr."


class TarError(Exception):
    """The archive is not what a tar archive must be."""


class Source(Protocol):
    """Where the bytes come from: any buffered binary file."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; fewer only at the end."""


@dataclass(slots=True)
class Entry:
    """One member. ``size`` is what its data takes in the archive, ``real_size`` once unpacked."""

    name: str
    type: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int  # nanoseconds since the epoch
    link: str = ""
    major: int = 0
    minor: int = 0
    real_size: int = 0
    xattrs: dict[str, bytes] = field(default_factory=dict)
    sparse: list[tuple[int, int]] | None = None  # (offset, length) of what is not a hole


class TarReader:
    """Iterates over the entries of ``source``; ``read`` gives the data of the current one.

    Raises:
        TarError: a header is damaged, or the archive ends too early.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._left = 0  # of the current entry's data
        self._padding = 0
        self._global: dict[str, bytes] = {}

    def __iter__(self) -> Iterator[Entry]:
        records: dict[str, bytes] = dict(self._global)
        while (block := self._header()) is not None:
            kind = chr(block[156]) if block[156] else REGULAR
            size = _number(block[124:136])
            if kind in "xgLK":
                if kind == "x":
                    records.update(_records(self._meta(size)))
                elif kind == "g":
                    self._global.update(_records(self._meta(size)))
                    records.update(self._global)
                else:
                    key = "path" if kind == "L" else "linkpath"
                    records[key] = self._meta(size).split(b"\0", 1)[0]
                continue
            entry = self._entry(block, kind, size, records)
            records = dict(self._global)
            yield entry
            self._skip()

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes of the current entry's data; empty at its end."""
        size = min(size, self._left)
        if not size:
            return b""
        data = self._exactly(size)
        self._left -= size
        return data

    def _entry(self, block: bytes, kind: str, size: int, records: dict[str, bytes]) -> Entry:
        name, link = _text(block[:100]), _text(block[157:257])
        if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
            name = f"{prefix}/{name}"
        entry = Entry(
            name=name,
            type=kind,
            mode=_number(block[100:108]) & 0o7777,
            uid=_number(block[108:116]),
            gid=_number(block[116:124]),
            size=size,
            mtime=_number(block[136:148]) * NSEC,
            link=link,
        )
        if kind in (CHARACTER, BLOCK_DEVICE):
            entry.major, entry.minor = _number(block[329:337]), _number(block[337:345])
        if records:
            _apply(entry, records)
        if entry.type not in "0123456S7":
            raise TarError(f"unknown kind of entry {entry.type!r}: {entry.name!r}")
        if entry.type in "07" and entry.name.endswith("/"):
            entry.type = DIRECTORY  # as archives older than ustar mark a directory
        if entry.type in _WITHOUT_DATA:
            # A link may state the size of what it points to, without any data behind it.
            entry.size = 0
        if entry.size < 0:
            raise TarError("archive/tar: invalid tar header")
        if "\0" in entry.name or "\0" in entry.link:
            raise TarError("archive/tar: invalid tar header")
        self._left, self._padding = entry.size, -entry.size % BLOCK
        entry.real_size = entry.size
        if entry.type == "S" or "GNU.sparse.major" in records or "GNU.sparse.map" in records:
            self._sparse(entry, block, records)
        if entry.type in "S7":
            entry.type = REGULAR
        return entry

    def _sparse(self, entry: Entry, block: bytes, records: dict[str, bytes]) -> None:
        """Find the map of a sparse file, in any of the three places where GNU tar has put it."""
        if entry.type == "S":
            numbers, entry.real_size = self._gnu_map(block), _number(block[483:495])
        elif "GNU.sparse.map" in records:
            numbers = [_decimal(n) for n in records["GNU.sparse.map"].split(b",") if n]
            entry.real_size = _decimal(records.get("GNU.sparse.size", b"0"))
        else:
            entry.real_size = _decimal(records.get("GNU.sparse.realsize", b"0"))
            numbers = self._data_map()
        if len(numbers) % 2 or len(numbers) > 2 * SPARSE_LIMIT:
            raise TarError("archive/tar: invalid sparse map")
        segments = list(zip(numbers[::2], numbers[1::2], strict=True))
        end = 0
        for offset, length in segments:
            if offset < end or length < 0:
                raise TarError("archive/tar: invalid sparse map")
            end = offset + length
        if end > entry.real_size or sum(length for _, length in segments) != self._left:
            raise TarError("archive/tar: invalid sparse map")
        entry.sparse = segments

    def _gnu_map(self, block: bytes) -> list[int]:
        """The map in the header and in the blocks that extend it."""
        numbers: list[int] = []
        area, count, more = block[386:482], 4, block[482]
        while True:
            for start in range(0, count * 24, 24):
                if not area[start]:
                    break
                numbers.append(_number(area[start : start + 12]))
                numbers.append(_number(area[start + 12 : start + 24]))
            if not more:
                return numbers
            if len(numbers) > 2 * SPARSE_LIMIT:
                raise TarError("archive/tar: invalid sparse map")
            area = self._exactly(BLOCK)
            count, more = 21, area[504]

    def _data_map(self) -> list[int]:
        """The map of format 1.0: decimal lines in the first blocks of the data."""
        text = b""

        def numbers() -> Iterator[int]:
            nonlocal text
            while True:
                line, newline, rest = text.partition(b"\n")
                if newline:
                    text = rest
                    yield _decimal(line)
                    continue
                more = self.read(BLOCK)
                if not more or len(text) > BLOCK:
                    raise TarError("archive/tar: invalid sparse map")
                text += more

        lines = numbers()
        count = next(lines)
        if not 0 <= count <= SPARSE_LIMIT:
            raise TarError("archive/tar: invalid sparse map")
        return [next(lines) for _ in range(2 * count)]

    def _header(self) -> bytes | None:
        """The next header block, None at the end of the archive."""
        block = self._source.read(BLOCK)
        if not block:
            return None
        if block == _ZEROS:
            if 0 < len(self._source.read(BLOCK)) < BLOCK:
                raise TarError("unexpected EOF")
            return None
        if len(block) < BLOCK:
            raise TarError("unexpected EOF")
        expected = _number(block[148:156])
        unsigned = sum(block) - sum(block[148:156]) + 8 * 32
        if unsigned != expected:
            negative = sum(byte > 127 for byte in block[:148] + block[156:])
            if unsigned - 256 * negative != expected:  # some old archivers summed signed bytes
                raise TarError("archive/tar: invalid tar header")
        return block

    def _meta(self, size: int) -> bytes:
        if not 0 <= size <= HEADER_LIMIT:
            raise TarError(f"archive/tar: header of {size} bytes is too long")
        data = self._exactly(size)
        self._exactly(-size % BLOCK)
        return data

    def _skip(self) -> None:
        left, padding = self._left, self._padding
        self._left = self._padding = 0
        while left:
            left -= len(self._exactly(min(left, 1 << 20)))
        if padding:
            self._source.read(padding)  # Docker's client leaves it away at the end

    def _exactly(self, size: int) -> bytes:
        data = self._source.read(size)
        if len(data) < size:
            raise TarError("unexpected EOF")
        return data


def _apply(entry: Entry, records: dict[str, bytes]) -> None:
    """Let extended records overrule the fields of the header."""
    for key, value in records.items():
        match key:
            case "path" | "GNU.sparse.name":
                entry.name = value.decode("utf-8", "surrogateescape")
            case "linkpath":
                entry.link = value.decode("utf-8", "surrogateescape")
            case "size":
                entry.size = _decimal(value)
            case "uid":
                entry.uid = _decimal(value)
            case "gid":
                entry.gid = _decimal(value)
            case "mtime":
                entry.mtime = _time(value)
            case _ if key.startswith(_XATTR):
                entry.xattrs[key[len(_XATTR) :]] = value
    if "GNU.sparse.name" in records:  # the path beside it is a made-up one
        entry.name = records["GNU.sparse.name"].decode("utf-8", "surrogateescape")


def _records(data: bytes) -> dict[str, bytes]:
    """The records of a pax header, each ``"<length> <key>=<value>\\n"``."""
    found: dict[str, bytes] = {}
    sparse: list[bytes] = []
    while data:
        digits, space, _ = data.partition(b" ")
        length = _decimal(digits)
        if not space or length > len(data) or length < len(digits) + 3:
            raise TarError("archive/tar: invalid tar header")
        record = data[len(digits) + 1 : length]
        key, equals, value = record[:-1].partition(b"=")
        if not equals or record[-1:] != b"\n":
            raise TarError("archive/tar: invalid tar header")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            sparse.append(value)  # format 0.0 repeats these instead of giving a map
        else:
            found[key.decode("utf-8", "surrogateescape")] = value
        data = data[length:]
    if sparse:
        found["GNU.sparse.map"] = b",".join(sparse)
    return found


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _number(raw: bytes) -> int:
    """An octal field, or a binary one where the first bit is set (GNU's base 256)."""
    if raw[0] & 0x80:
        value = int.from_bytes(raw, "big")
        if raw[0] & 0x40:
            return value - (1 << (8 * len(raw)))
        return value & ((1 << (8 * len(raw) - 1)) - 1)
    digits = raw.split(b"\0", 1)[0].strip()
    if not digits:
        return 0
    try:
        return int(digits, 8)
    except ValueError as error:
        raise TarError("archive/tar: invalid tar header") from error


def _decimal(raw: bytes) -> int:
    if not raw.isdigit() or len(raw) > 19:
        raise TarError("archive/tar: invalid tar header")
    return int(raw)


def _time(raw: bytes) -> int:
    """A decimal number of seconds with any number of places, in nanoseconds."""
    whole, _, fraction = raw.partition(b".")
    negative = whole.startswith(b"-")
    seconds = _decimal(whole.lstrip(b"-") or b"0")
    nanoseconds = _decimal(fraction[:9].ljust(9, b"0")) if fraction else 0
    total = seconds * NSEC + nanoseconds
    return -total if negative else total
