"""Every packing is seen through; bombs and damage are refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from wherry.engine.errors import BadParameter
from wherry.engine.image import compression
from wherry.engine.image.compression import Bounds, Compression, CompressionError, detect, expand

PLAIN = b"some words, and then some more\n" * 20_000

PACKERS: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.NONE: lambda data: data,
    Compression.GZIP: gzip.compress,
    Compression.ZSTD: zstandard.ZstdCompressor().compress,
    Compression.BZIP2: bz2.compress,
    Compression.XZ: lzma.compress,
}


def unpack(data: bytes, directory: Path) -> tuple[Compression, bytes]:
    kind, plain = expand(io.BufferedReader(io.BytesIO(data)), Bounds(directory))  # type: ignore[arg-type]
    return kind, plain.read()


@pytest.mark.parametrize("kind", list(Compression))
def test_each_kind_is_told_by_its_first_bytes_and_undone(kind: Compression, tmp_path: Path) -> None:
    assert unpack(PACKERS[kind](PLAIN), tmp_path) == (kind, PLAIN)


@pytest.mark.parametrize("kind", [k for k in Compression if k is not Compression.NONE])
def test_several_members_are_one_stream(kind: Compression, tmp_path: Path) -> None:
    pack = PACKERS[kind]
    assert unpack(pack(PLAIN) + pack(b"end"), tmp_path)[1] == PLAIN + b"end"


@pytest.mark.parametrize("kind", [Compression.GZIP, Compression.BZIP2, Compression.XZ])
def test_a_stream_that_ends_early_is_refused(kind: Compression, tmp_path: Path) -> None:
    with pytest.raises(CompressionError):
        unpack(PACKERS[kind](PLAIN)[:-20], tmp_path)


@pytest.mark.parametrize("kind", [k for k in Compression if k is not Compression.NONE])
def test_a_damaged_stream_is_refused(kind: Compression, tmp_path: Path) -> None:
    packed = bytearray(PACKERS[kind](PLAIN))
    packed[len(packed) // 2] ^= 0xFF
    with pytest.raises(CompressionError):
        unpack(bytes(packed), tmp_path)


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "RATIO_FREE", 1 << 20)
    with pytest.raises(BadParameter, match="decompression bomb"):
        unpack(gzip.compress(bytes(64 << 20)), tmp_path)


def test_nothing_is_unpacked_onto_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "DISK_RESERVE", 1 << 62)
    with pytest.raises(BadParameter, match="no space left on device"):
        unpack(gzip.compress(PLAIN), tmp_path)


def test_zstd_may_begin_with_a_skippable_frame() -> None:
    assert detect(b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd") is Compression.ZSTD
