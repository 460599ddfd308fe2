"""What ``docker save`` writes: an OCI image layout with Docker's ``manifest.json`` beside it.

The form of Docker 25 and later: old clients find ``manifest.json`` and ``repositories``, everyone
else ``oci-layout`` and ``index.json``. Every blob is the one that came in, so digests stay; what
several images share is written once. The archive of the same images is always the same bytes.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from wherry.engine.errors import BadParameter, NotFound
from wherry.engine.image.catalog import Catalog
from wherry.engine.image.content import Content
from wherry.engine.image.image import Image
from wherry.engine.image.manifest import (
    OCI_INDEX,
    Descriptor,
    media_type_of,
    parse_document,
    parse_manifest,
)
from wherry.engine.image.reference import SHA256, Reference, parse

PIECE = 1 << 20
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Saved:
    """An image to save and the tags it is to have in the archive."""

    image: Image
    tags: Sequence[Reference]


def choose(catalog: Catalog, names: Sequence[str]) -> dict[str, list[Reference]]:
    """The ids of the images to save, each with the tags it is to have in the archive.

    An image asked for by id gets no tag; a repository without a tag means all of its tags.

    Raises:
        BadParameter: a name is none, or there are none.
        NotFound: there is no such image.
    """
    wanted: dict[str, list[Reference]] = {}

    def want(image: str, *tags: Reference) -> None:
        known = wanted.setdefault(image, [])
        known.extend(tag for tag in tags if tag not in known)

    if not names:
        raise BadParameter("no image names given")
    for text in names:
        whole = f"sha256:{text.removeprefix('sha256:')}"
        if SHA256.fullmatch(whole):
            if whole not in catalog.images:
                raise NotFound(f"No such image: {whole}")
            want(whole)
            continue
        reference = parse(text)
        if (reference.tag or reference.digest) and reference.familiar_name != "sha256":
            image = catalog.find(reference)
            if image is None:
                raise NotFound("reference does not exist")
            want(image, *([] if reference.digest else [reference]))
            continue
        tags = [(parse(tag), image) for tag, image in sorted(catalog.tags.items())]
        named = [(tag, image) for tag, image in tags if tag.name == reference.name]
        for tag, image in named:
            want(image, tag)
        if not named:
            found = catalog.find_by_id(text)
            if found is None:
                raise NotFound(f"No such image: {text}")
            want(found)
    return wanted


def write_archive(images: Sequence[Saved], content: Content) -> Iterator[bytes]:
    """The archive, piece by piece (blocking). The blobs must stay until the end."""
    items: list[dict[str, Any]] = []
    index: list[dict[str, Any]] = []
    repositories: dict[str, dict[str, str]] = {}
    blobs: dict[str, Descriptor] = {}
    together = {saved.image.id for saved in images}
    for saved in images:
        manifest_data = content.read_blob(saved.image.manifest)
        config, layers = parse_manifest(manifest_data)
        stated = Descriptor(
            media_type_of(parse_document(manifest_data, "manifest")),
            saved.image.manifest,
            len(manifest_data),
        )
        for descriptor in (config, stated, *layers):
            blobs[descriptor.digest] = descriptor
        item = _docker_item(saved, config, layers)
        if saved.image.parent in together:
            item["Parent"] = saved.image.parent
        items.append(item)
        index.extend(_index_entries(saved, stated))
        for tag in saved.tags:
            top = layers[-1].digest if layers else config.digest
            names = repositories.setdefault(tag.familiar_name, {})
            names[tag.tag] = top.removeprefix("sha256:")
    yield _directory("blobs")
    yield _directory("blobs/sha256")
    for digest in sorted(blobs):
        yield from _blob(content, digest)
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": index}
    yield _file("index.json", orjson.dumps(document))
    yield _file("manifest.json", orjson.dumps(items) + b"\n")
    yield _file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    if repositories:
        yield _file("repositories", orjson.dumps(repositories) + b"\n")
    yield bytes(2 * _BLOCK)


def _docker_item(saved: Saved, config: Descriptor, layers: Sequence[Descriptor]) -> dict[str, Any]:
    sources = {
        diff_id: layer.to_json()
        for diff_id, layer in zip(saved.image.diff_ids, layers, strict=True)
    }
    return {
        "Config": _blob_name(config.digest),
        "RepoTags": [tag.familiar() for tag in saved.tags] or None,
        "Layers": [_blob_name(layer.digest) for layer in layers],
        "LayerSources": sources,
    }


def _index_entries(saved: Saved, manifest: Descriptor) -> list[dict[str, Any]]:
    """One entry a tag; an image without tags has one without a name."""
    platform = saved.image.platform
    entry = manifest.to_json()
    entry["platform"] = {"architecture": platform.architecture, "os": platform.os}
    if platform.variant:
        entry["platform"]["variant"] = platform.variant
    if not saved.tags:
        return [entry]
    return [
        {
            **entry,
            "annotations": {
                "io.containerd.image.name": str(tag),
                "org.opencontainers.image.ref.name": tag.tag,
            },
        }
        for tag in saved.tags
    ]


def _blob(content: Content, digest: str) -> Iterator[bytes]:
    path = content.blob_path(digest)
    size = path.stat().st_size
    yield _header(_blob_name(digest), size, tarfile.REGTYPE, 0o644)
    with path.open("rb", buffering=0) as file:
        while data := file.read(PIECE):
            yield data
    if size % _BLOCK:
        yield bytes(-size % _BLOCK)


def _file(name: str, data: bytes) -> bytes:
    header = _header(name, len(data), tarfile.REGTYPE, 0o644)
    return header + data + bytes(-len(data) % _BLOCK)


def _directory(name: str) -> bytes:
    return _header(f"{name}/", 0, tarfile.DIRTYPE, 0o755)


def _header(name: str, size: int, kind: bytes, mode: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mode, info.mtime = size, kind, mode, 0
    return info.tobuf(tarfile.PAX_FORMAT)


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"
