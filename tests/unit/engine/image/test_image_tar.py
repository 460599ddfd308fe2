"""Tar archives of every kind are read; damaged ones end in one kind of error."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_archives import Tar

from wherry.engine.image.tar import HEADER_LIMIT, TarError, TarReader


def read(data: bytes) -> dict[str, bytes]:
    reader = TarReader(io.BytesIO(data))
    found = {}
    for entry in reader:
        content = b""
        while piece := reader.read(100):
            content += piece
        found[entry.name] = content
    return found


LONG = "directory/" * 20 + "file"


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_and_links_are_whole(form: int) -> None:
    data = Tar(form).add(LONG, b"x" * 700).symlink("link", LONG).add("after", b"y").bytes()
    entries = {entry.name: entry for entry in TarReader(io.BytesIO(data))}
    assert list(entries) == [LONG, "link", "after"]
    assert entries["link"].link == LONG
    assert read(data)[LONG] == b"x" * 700


def test_names_of_ustar_have_their_prefix() -> None:
    name = "a" * 90 + "/" + "b" * 90
    assert list(read(Tar(tarfile.USTAR_FORMAT).add(name, b"x").bytes())) == [name]


def test_fields_are_read_with_nanoseconds_and_attributes() -> None:
    tar = Tar().add(
        "f",
        b"",
        mode=0o4755,
        uid=3_000_000,
        gid=7,
        pax_headers={"mtime": "1700000000.123456789", "SCHILY.xattr.user.note": "hello"},
    )
    (entry,) = TarReader(io.BytesIO(tar.bytes()))
    assert (entry.mode, entry.uid, entry.gid) == (0o4755, 3_000_000, 7)
    assert entry.mtime == 1_700_000_000_123_456_789
    assert entry.xattrs == {"user.note": b"hello"}


def test_a_time_before_1970_is_read() -> None:
    (entry,) = TarReader(io.BytesIO(Tar().add("f", b"", pax_headers={"mtime": "-1.5"}).bytes()))
    assert entry.mtime == -1_500_000_000


def test_devices_keep_their_numbers() -> None:
    tar = Tar().add("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)
    (entry,) = TarReader(io.BytesIO(tar.bytes()))
    assert (entry.type, entry.major, entry.minor) == ("3", 1, 3)


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
@pytest.mark.parametrize("form", ["oldgnu", "posix:0.0", "posix:0.1", "posix:1.0"])
def test_sparse_files_are_read_in_all_forms_of_gnu_tar(tmp_path: Path, form: str) -> None:
    file = tmp_path / "sparse"
    with file.open("wb") as out:
        for start in range(40):
            out.seek(start * 100_000)
            out.write(b"data%03d" % start)
        out.truncate(5_000_000)
    kind, _, version = form.partition(":")
    options = [f"--format={kind}", *([f"--sparse-version={version}"] if version else [])]
    packed = subprocess.run(
        ["tar", "--sparse", *options, "-cf", "-", "-C", str(tmp_path), "sparse"],
        capture_output=True,
        check=True,
    ).stdout
    reader = TarReader(io.BytesIO(packed))
    (entry,) = _with_data(reader)
    assert entry[0] == "sparse"
    assert entry[1] == file.read_bytes()
    assert len(packed) < 1_000_000


def _with_data(reader: TarReader) -> list[tuple[str, bytes]]:
    found = []
    for entry in reader:
        assert entry.sparse is not None
        content = bytearray(entry.real_size)
        for offset, length in entry.sparse:
            content[offset : offset + length] = reader.read(length)
        found.append((entry.name, bytes(content)))
    return found


def test_an_archive_that_ends_early_is_refused() -> None:
    data = Tar().add("f", b"x" * 2000).bytes()
    for end in (100, 512 + 1, 512 + 1999):
        with pytest.raises(TarError, match="unexpected EOF"):
            read(data[:end])


def test_a_damaged_header_is_refused() -> None:
    data = bytearray(Tar().add("f", b"x").bytes())
    data[3] ^= 1
    with pytest.raises(TarError, match="invalid tar header"):
        read(bytes(data))


def test_what_is_no_archive_is_refused() -> None:
    with pytest.raises(TarError):
        read(b"hello world, this is not a tar archive" * 100)


def test_an_endless_name_is_not_read_into_memory() -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, HEADER_LIMIT + 1
    with pytest.raises(TarError, match="too long"):
        read(info.tobuf(tarfile.GNU_FORMAT) + bytes(HEADER_LIMIT + 1024))


@given(st.binary(max_size=2000), st.integers(0, 1500), st.integers(1, 255))
def test_garbage_never_ends_in_anything_but_a_tar_error(
    tail: bytes, position: int, flip: int
) -> None:
    data = bytearray(
        Tar().add("some/file", b"content", pax_headers={"mtime": "1.5"}).bytes()[:1536]
    )
    data[position % len(data)] ^= flip
    try:
        read(bytes(data) + tail)
    except TarError:
        return


@given(st.binary(max_size=512))
def test_garbage_with_a_valid_checksum_is_an_entry_or_a_tar_error(seed: bytes) -> None:
    block = bytearray(seed.ljust(512, b"\0"))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    try:
        read(bytes(block) + bytes(4096))
    except TarError:
        return
