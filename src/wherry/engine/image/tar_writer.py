"""Headers of tar archives, as Docker's clients write and read them: ustar, with pax records where
ustar has no room (IEEE Std 1003.1, "pax Interchange Format").

``tarfile`` could write them, too; an archive of many small files is mostly headers, and these take
a tenth of its time.
"""

from __future__ import annotations

from wherry.engine.image.tar import BLOCK, BLOCK_DEVICE, CHARACTER, NSEC, Entry

# What follows the last member.
END = bytes(2 * BLOCK)
_OCTAL7, _OCTAL11 = 0o7777777, 0o77777777777
_NAME, _PREFIX = 100, 155


def header(entry: Entry) -> bytes:
    """All that stands before the data of ``entry``: its header, with extended ones before it.

    A time is written in full; round it before where a second will do. ``entry.size`` is what the
    data takes; ``padding`` of it must follow the data. Of ``entry.sparse`` the map is part of the
    result, in GNU's format 1.0; what it names must follow, one segment after the other.
    """
    records: list[tuple[bytes, bytes]] = []
    name = entry.name.encode("utf-8", "surrogateescape")
    link = entry.link.encode("utf-8", "surrogateescape")
    size, sparse = entry.size, b""
    if entry.sparse is not None:
        sparse = _sparse_map(entry.sparse)
        size += len(sparse)
        records += [
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", name),
            (b"GNU.sparse.realsize", b"%d" % entry.real_size),
        ]
        head, _, tail = name.rpartition(b"/")
        name = (head + b"/" if head else b"") + b"GNUSparseFile.0/" + tail
    prefix, short = _split(name)
    if not entry.name.isascii() or short is None:
        records.append((b"path", name))
        prefix, short = b"", name[:_NAME] if short is None else short
    if len(link) > _NAME or not entry.link.isascii():
        records.append((b"linkpath", link))
    for key, number, limit in (
        (b"uid", entry.uid, _OCTAL7),
        (b"gid", entry.gid, _OCTAL7),
        (b"size", size, _OCTAL11),
    ):
        if number > limit:
            records.append((key, b"%d" % number))
    seconds, fraction = divmod(entry.mtime, NSEC)
    if fraction or not 0 <= seconds <= _OCTAL11:
        records.append((b"mtime", _decimal_time(entry.mtime)))
    for attribute in sorted(entry.xattrs):
        records.append(
            (
                b"SCHILY.xattr." + attribute.encode("utf-8", "surrogateescape"),
                entry.xattrs[attribute],
            )
        )
    block = _block(
        prefix,
        short,
        entry.type,
        entry.mode,
        entry.uid if entry.uid <= _OCTAL7 else 0,
        entry.gid if entry.gid <= _OCTAL7 else 0,
        size if size <= _OCTAL11 else 0,
        seconds if 0 <= seconds <= _OCTAL11 else 0,
        link[:_NAME],
        (entry.major, entry.minor) if entry.type in (CHARACTER, BLOCK_DEVICE) else None,
    )
    if not records:
        return block
    data = b"".join(record(key, value) for key, value in records)
    before = _block(b"", b"PaxHeaders.0/" + short[-80:], "x", 0o644, 0, 0, len(data), 0, b"", None)
    return before + data + padding(len(data)) + block + sparse


def padding(size: int) -> bytes:
    """The zeros that fill the last block of ``size`` bytes of data."""
    return bytes(-size % BLOCK)


def record(key: bytes, value: bytes) -> bytes:
    """One pax record; its length counts its own digits."""
    rest = b" %s=%s\n" % (key, value)
    length = len(rest) + len(str(len(rest)))
    if len(str(length)) > len(str(len(rest))):
        length += 1
    return b"%d" % length + rest


def _block(
    prefix: bytes,
    name: bytes,
    kind: str,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    link: bytes,
    device: tuple[int, int] | None,
) -> bytes:
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, uid, gid, size, mtime)
    devices = b"%07o\0%07o\0" % device if device else bytes(16)
    block = b"".join(
        (
            name.ljust(_NAME, b"\0"),
            numbers,
            b"        ",
            kind.encode(),
            link.ljust(_NAME, b"\0"),
            b"ustar\x0000",
            bytes(64),
            devices,
            prefix.ljust(_PREFIX, b"\0"),
            bytes(12),
        )
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _split(name: bytes) -> tuple[bytes, bytes | None]:
    """Prefix and name for the two fields of ustar; no name where they do not hold it."""
    if len(name) <= _NAME:
        return b"", name
    # The prefix must end before a slash that leaves at most a hundred bytes, and more than none.
    cut = name.find(b"/", len(name) - _NAME - 1, min(len(name) - 1, _PREFIX + 1))
    if cut <= 0:
        return b"", None
    return name[:cut], name[cut + 1 :]


def _decimal_time(nanoseconds: int) -> bytes:
    sign = "-" if nanoseconds < 0 else ""
    seconds, fraction = divmod(abs(nanoseconds), NSEC)
    text = f"{sign}{seconds}.{fraction:09d}"
    return text.rstrip("0").rstrip(".").encode()


def _sparse_map(segments: list[tuple[int, int]]) -> bytes:
    lines = [len(segments), *(number for segment in segments for number in segment)]
    data = b"".join(b"%d\n" % line for line in lines)
    return data + padding(len(data))
