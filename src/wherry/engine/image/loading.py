"""Bringing the images of an archive into the content store (blocking, for a worker thread)."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wherry.engine.errors import BadParameter
from wherry.engine.image.archive import Archive, ArchivedImage, Member
from wherry.engine.image.catalog import Catalog, Record
from wherry.engine.image.compression import BUFFER, Bounds, Compression, detect, expand
from wherry.engine.image.content import Content, Layer, Lease
from wherry.engine.image.layers import add_layer, blob_descriptor, storable
from wherry.engine.image.manifest import (
    OCI_CONFIG,
    Descriptor,
    Platform,
    chain_ids,
    diff_ids,
    digest_of,
    host_platform,
    make_manifest,
    parse_manifest,
)
from wherry.engine.image.reference import Reference

# Hears of a layer's short id, the bytes read and the bytes in all.
Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image whose content is in the store; it exists once the catalog has the record."""

    id: str
    record: Record
    config: dict[str, Any]
    tags: list[Reference]


def load_archive(
    source: io.RawIOBase, content: Content, lease: Lease, platform: Platform | None, report: Report
) -> list[Loaded]:
    """Read the archive in ``source`` to its end and bring in what it has for ``platform``.

    Raises:
        EngineError: the archive, a digest or a layer is wrong; nothing of it will be kept.
    """
    _, plain = expand(io.BufferedReader(source, BUFFER), Bounds(lease.scratch))
    archive = Archive(plain, lease.scratch)
    images = archive.images(platform, host_platform())
    if platform is not None and not images:
        raise BadParameter(f"no image in the archive is for the platform {platform}")
    return [_bring_in(image, content, lease, report) for image in images]


def store_image(
    lease: Lease,
    config_data: bytes,
    chain: tuple[str, ...],
    layers: list[Layer],
    manifest: bytes | None = None,
    parent: str = "",
) -> Record:
    """Store config and manifest (made where there is none) of layers that are there."""
    identity = digest_of(config_data)
    lease.add_blob_bytes(config_data, identity)
    if manifest is None:
        blobs = [layer.blob for layer in layers]
        config = Descriptor(OCI_CONFIG, identity, len(config_data))
        manifest = make_manifest(config, [blob_descriptor(layer) for layer in layers])
        for blob in blobs:
            lease.use_blob(blob)
    else:
        blobs = [layer.digest for layer in parse_manifest(manifest)[1]]
    manifest_digest = digest_of(manifest)
    lease.add_blob_bytes(manifest, manifest_digest)
    return Record((manifest_digest,), (identity, manifest_digest, *blobs), chain, parent)


def _bring_in(image: ArchivedImage, content: Content, lease: Lease, report: Report) -> Loaded:
    identifiers = diff_ids(image.config)
    chain = chain_ids(identifiers)
    manifest = image.manifest
    layers: list[Layer] = []
    for index, (one, diff_id, member) in enumerate(
        zip(chain, identifiers, image.layers, strict=True)
    ):
        layer = lease.use_layer(one)
        where = f" for layer {index}"
        if layer is None:
            path, digest = _as_stored(lease, content, member)

            def progress(done: int, total: int, short: str = diff_id[7:19]) -> None:
                report(short, done, total)

            lower = [content.diff(below) for below in reversed(chain[:index])]
            layer = add_layer(
                lease, one, diff_id, path, digest, lower, progress=progress, where=where
            )
        elif manifest is not None and not lease.use_blob(member.digest):
            # The same layer in another packing: the manifest wants exactly this one kept.
            path, digest, actual = storable(lease, member.path, member.digest)
            if actual != diff_id:
                raise BadParameter(f'invalid diffID{where}: expected "{diff_id}", got "{actual}"')
            lease.add_blob(path, digest)
        if manifest is not None and not content.has_blob(member.digest):
            manifest = None  # it names a packing that is not kept
        layers.append(layer)
    record = store_image(lease, image.config_data, chain, layers, manifest, image.parent)
    return Loaded(image.id, record, image.config, image.tags)


def _as_stored(lease: Lease, content: Content, member: Member) -> tuple[Path, str]:
    """The layer's archive and digest, in a packing that can be kept."""
    if not member.path.exists():  # already moved in, for another place in this archive
        return content.blob_path(member.digest), member.digest
    with member.path.open("rb") as file:
        compression = detect(file.read(6))
    if compression in (Compression.XZ, Compression.BZIP2):
        path, digest, _ = storable(lease, member.path, member.digest)
        return path, digest
    return member.path, member.digest


def with_loaded(
    old: Catalog, loaded: Sequence[Loaded], now: int
) -> tuple[Catalog, list[tuple[Reference, str]]]:
    """The catalog with the loaded images, and the names that pointed to other images before."""
    new = old
    replaced: list[tuple[Reference, str]] = []
    for one in loaded:
        new = new.with_image(one.id, one.record)
        for tag in one.tags:
            previous = new.tags.get(str(tag))
            if previous == one.id:
                continue  # nor has it been tagged anew
            if previous is not None:
                replaced.append((tag, previous))
            new = new.with_reference(tag, one.id, now)
    for one in loaded:
        parent = one.record.parent
        if parent and parent in new.images and not new.images[one.id].parent:
            images = {**new.images, one.id: replace(new.images[one.id], parent=parent)}
            new = replace(new, images=images)
    return new, replaced
