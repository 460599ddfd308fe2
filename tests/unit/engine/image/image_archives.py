"""Archives to feed the image store, and the store with what it tells."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from wherry.engine.image.store import ImageStore

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners, trusted attributes")


class Tar:
    """A tar archive in the making, owned by whoever runs the tests."""

    def __init__(self, format: int = tarfile.PAX_FORMAT) -> None:
        self._buffer = io.BytesIO()
        self._archive = tarfile.TarFile(fileobj=self._buffer, mode="w", format=format)

    def add(self, name: str, data: bytes | None = None, **fields: Any) -> Tar:
        info = tarfile.TarInfo(name)
        info.uid, info.gid, info.mtime, info.mode = os.geteuid(), os.getegid(), 1_700_000_000, 0o644
        info.size = len(data or b"")
        for key, value in fields.items():
            setattr(info, key, value)
        self._archive.addfile(info, io.BytesIO(data) if data is not None else None)
        return self

    def directory(self, name: str, **fields: Any) -> Tar:
        return self.add(name, type=tarfile.DIRTYPE, **{"mode": 0o755, **fields})

    def symlink(self, name: str, target: str) -> Tar:
        return self.add(name, type=tarfile.SYMTYPE, linkname=target)

    def link(self, name: str, target: str) -> Tar:
        return self.add(name, type=tarfile.LNKTYPE, linkname=target)

    def bytes(self) -> bytes:
        self._archive.close()
        return self._buffer.getvalue()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def image_config(layers: list[bytes], **fields: Any) -> bytes:
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-05-01T10:00:00.5Z",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        "history": [
            {"created": "2024-05-01T10:00:00Z", "created_by": f"step {number}"}
            for number, _ in enumerate(layers)
        ],
        **fields,
    }
    return json.dumps(document).encode()


def docker_archive(tags: list[str], layers: list[bytes], **fields: Any) -> bytes:
    """As ``docker save`` wrote it before version 25."""
    config = image_config(layers, **fields)
    name = f"{digest(config)[7:]}.json"
    tar = Tar()
    tar.add(name, config)
    for number, layer in enumerate(layers):
        tar.directory(f"layer{number}").add(f"layer{number}/layer.tar", layer)
    item = {
        "Config": name,
        "RepoTags": tags or None,
        "Layers": [f"layer{number}/layer.tar" for number, _ in enumerate(layers)],
    }
    return tar.add("manifest.json", json.dumps([item]).encode()).bytes()


def oci_archive(
    name: str, layers: list[bytes], pack: Callable[[bytes], bytes] = gzip.compress, **fields: Any
) -> bytes:
    """An OCI image layout with packed layers."""
    config = image_config(layers, **fields)
    packed = [pack(layer) for layer in layers]
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(config),
                "size": len(config),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": digest(layer),
                    "size": len(layer),
                }
                for layer in packed
            ],
        }
    ).encode()
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": digest(manifest),
        "size": len(manifest),
        "annotations": {"org.opencontainers.image.ref.name": name},
    }
    tar = Tar().add("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    for blob in {config, manifest, *packed}:
        tar.add(f"blobs/sha256/{digest(blob)[7:]}", blob)
    index = {"schemaVersion": 2, "manifests": [entry]}
    return tar.add("index.json", json.dumps(index).encode()).bytes()


async def pieces(data: bytes, size: int = 4096) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


class Opened:
    """A store with the events it told."""

    def __init__(self, root: Path) -> None:
        self.events: list[tuple[str, str, str]] = []
        self.store = ImageStore(
            root,
            notify=lambda action, image, attributes: self.events.append(
                (action, image, attributes.get("name", ""))
            ),
        )

    async def load(self, archive: bytes, *, quiet: bool = True) -> list[str]:
        """The lines that the client would print."""
        lines = []
        async for message in self.store.load(pieces(archive), quiet=quiet):
            lines.append(message.get("stream", "").rstrip("\n"))
        return [line for line in lines if line]

    async def save(self, *names: str) -> bytes:
        return b"".join([piece async for piece in await self.store.save(names)])
