"""What is written can be read: by our own reader and by Python's."""

from __future__ import annotations

import io
import tarfile

import pytest

from wherry.engine.image import tar
from wherry.engine.image.tar import NSEC, Entry, TarReader
from wherry.engine.image.tar_writer import END, header, padding, record


def entry(name: str = "f", type: str = tar.REGULAR, **fields: object) -> Entry:
    values = {"mode": 0o644, "uid": 0, "gid": 0, "size": 0, "mtime": 1_700_000_000 * NSEC}
    return Entry(name=name, type=type, **{**values, **fields})  # type: ignore[arg-type]


CASES = [
    entry(),
    entry("a" * 100),
    entry("d" * 60 + "/" + "f" * 90),
    entry("d" * 200 + "/" + "f" * 200),
    entry("d/" * 40 + "x" * 101),
    entry("grüße/ü"),
    entry("dir/", tar.DIRECTORY, mode=0o1777),
    entry("d" * 155 + "/" + "e" * 99 + "/", tar.DIRECTORY),
    entry("d" * 120 + "/", tar.DIRECTORY),
    entry("l", tar.SYMLINK, link="x" * 300),
    entry("l", tar.SYMLINK, link="ä"),
    entry("h", tar.LINK, link="f"),
    entry("c", tar.CHARACTER, major=5, minor=1),
    entry("b", tar.BLOCK_DEVICE, major=259, minor=70000),
    entry("p", tar.FIFO),
    entry(uid=3_000_000, gid=4_000_000_000),
    entry(mtime=1_700_000_000 * NSEC + 5),
    entry(mtime=-NSEC - 250_000_000),
    entry(xattrs={"user.a": b"\0=\n", "security.capability": b"\1" * 20}),
    entry(b"raw\xff".decode("utf-8", "surrogateescape")),
]


@pytest.mark.parametrize("given", CASES, ids=lambda e: repr(e.name[:12]))
def test_our_reader_gets_back_what_was_written(given: Entry) -> None:
    (read,) = TarReader(io.BytesIO(header(given) + END))
    for name in ("name", "type", "mode", "uid", "gid", "mtime", "link", "major", "minor", "xattrs"):
        assert getattr(read, name) == getattr(given, name), name


@pytest.mark.parametrize("given", CASES, ids=lambda e: repr(e.name[:12]))
def test_pythons_reader_agrees(given: Entry) -> None:
    data = header(given) + END
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        (info,) = archive.getmembers()
    assert info.name == given.name.rstrip("/")
    assert (info.linkname, info.uid, info.gid) == (given.link, given.uid, given.gid)
    assert info.mtime == pytest.approx(given.mtime / NSEC)


def test_a_size_beyond_eight_gigabytes_is_told(tmp_path: object) -> None:
    big = entry(size=9 << 30)
    info = tarfile.TarInfo.frombuf(header(big)[-512:], "utf-8", "strict")
    assert info.size == 0 and b"size=%d\n" % (9 << 30) in header(big)


def test_a_sparse_file_keeps_its_holes() -> None:
    segments = [(1 << 20, 512), (5 << 20, 0)]
    given = entry("dir/s", size=512, real_size=5 << 20, sparse=segments)
    data = header(given) + b"x" * 512 + padding(512) + END
    reader = TarReader(io.BytesIO(data))
    read = next(iter(reader))
    assert (read.name, read.real_size, read.sparse) == ("dir/s", 5 << 20, segments)
    assert reader.read(512) == b"x" * 512
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        (info,) = archive.getmembers()
        file = archive.extractfile(info)
        assert file is not None
        content = file.read()
    assert len(content) == 5 << 20 and content[1 << 20 :][:512] == b"x" * 512


@pytest.mark.parametrize("length", range(85, 110))
def test_a_record_counts_its_own_digits(length: int) -> None:
    made = record(b"k", b"v" * length)
    assert int(made.split(b" ")[0]) == len(made)
