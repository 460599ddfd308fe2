"""From a layer as it arrives to a layer in the content store: the one way in.

Loading, importing, committing, and pulling all end here, so that checking digests, seeing through
compression and unpacking are done in one place. Blocking code, for a worker thread.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, cast

from wherry.engine.errors import BadParameter
from wherry.engine.image.compression import (
    BUFFER,
    Bounds,
    Compression,
    CompressionError,
    Meter,
    check_room,
    expand,
)
from wherry.engine.image.content import Layer, Lease
from wherry.engine.image.manifest import Descriptor, layer_media_type
from wherry.engine.image.tar import TarError, TarReader
from wherry.engine.image.unpack import unpack

# What an OCI layer may be packed with; anything else is kept plain.
_STORABLE = (Compression.NONE, Compression.GZIP, Compression.ZSTD)
_CHECK_EVERY = 64 << 20

Progress = Callable[[int, int], None]  # bytes done, bytes in all


def spool(source: IO[bytes], directory: Path) -> tuple[Path, str, int]:
    """Copy ``source`` to its end into a new file: path, digest and size.

    Raises:
        BadParameter: the disk is all but full.
    """
    descriptor, name = tempfile.mkstemp(dir=directory)
    digest = hashlib.sha256()
    size = next_check = 0
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        while data := source.read(BUFFER):
            if size >= next_check:
                next_check += _CHECK_EVERY
                check_room(directory)
            digest.update(data)
            file.write(data)
            size += len(data)
    return Path(name), f"sha256:{digest.hexdigest()}", size


def add_layer(
    lease: Lease,
    chain: str,
    diff_id: str,
    blob: Path,
    digest: str,
    lower: Sequence[Path],
    *,
    progress: Progress | None = None,
    where: str = "",
) -> Layer:
    """Unpack ``blob`` (whose content has been verified against ``digest``) as layer ``chain``.

    ``diff_id`` is the digest its plain bytes must have; ``lower`` are the directories of the layers
    below, topmost first; ``progress`` hears of the packed bytes read.

    Raises:
        BadParameter: digest, archive or compression are wrong; ``where`` names the layer.
    """
    size = blob.stat().st_size
    directory = Path(tempfile.mkdtemp(dir=lease.scratch))
    diff = directory / "diff"
    diff.mkdir(mode=0o755)
    with io.FileIO(blob) as raw:
        metered = io.BufferedReader(_Reporting(raw, size, progress), BUFFER)
        compression, plain = expand(metered, Bounds(lease.scratch))
        # What is not packed has been hashed already, when it came in.
        hashed = hashlib.sha256() if compression is not Compression.NONE else None
        stream = io.BufferedReader(Meter(cast(IO[bytes], plain), hashed), BUFFER)
        try:
            unpacked, entries = unpack(TarReader(stream), diff, lower)
            while stream.read(BUFFER):
                pass  # the digest covers what follows the archive's end
        except (TarError, CompressionError) as error:
            raise BadParameter(f"Error processing tar file{where}: {error}") from error
    actual = f"sha256:{hashed.hexdigest()}" if hashed is not None else digest
    if actual != diff_id:
        raise BadParameter(f'invalid diffID{where}: expected "{diff_id}", got "{actual}"')
    lease.add_blob(blob, digest)
    media_type = layer_media_type(compression)
    return lease.add_layer(
        chain, directory, Layer(diff_id, unpacked, entries, digest, size, media_type)
    )


def storable(lease: Lease, blob: Path, digest: str) -> tuple[Path, str, str]:
    """``blob`` in a form that an OCI manifest can name: its path, digest, and diff id.

    What is packed in gzip or zstd stays as it is, xz and bzip2 are undone.

    Raises:
        BadParameter: it is damaged.
    """
    with io.BufferedReader(io.FileIO(blob), BUFFER) as raw:
        compression, plain = expand(raw, Bounds(lease.scratch))
        if compression is Compression.NONE:
            return blob, digest, digest
        try:
            if compression not in _STORABLE:
                path, digest, _ = spool(cast(IO[bytes], plain), lease.scratch)
                blob.unlink()
                return path, digest, digest
            hashed = hashlib.sha256()
            while data := plain.read(BUFFER):
                hashed.update(data)
        except CompressionError as error:
            raise BadParameter(f"Error processing tar file: {error}") from error
    return blob, digest, f"sha256:{hashed.hexdigest()}"


def blob_descriptor(layer: Layer) -> Descriptor:
    """How a manifest names the layer."""
    return Descriptor(layer.media_type, layer.blob, layer.blob_size)


class _Reporting(io.RawIOBase):
    """Tells ``progress`` how far the reading has come, about every half megabyte."""

    def __init__(self, source: io.FileIO, total: int, progress: Progress | None) -> None:
        super().__init__()
        self._source, self._total, self._progress = source, total, progress
        self._done = self._reported = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._source.readinto(buffer) or 0
        self._done += count
        if self._progress is not None and (
            self._done - self._reported >= 512 << 10 or (not count and self._done > self._reported)
        ):
            self._reported = self._done
            self._progress(self._done, self._total)
        return count
