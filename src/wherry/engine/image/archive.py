"""What ``docker load`` is given: an archive of images, in any of the forms in use.

- ``docker save`` before version 25: ``manifest.json``, a config per image, a directory per layer
  whose ``layer.tar`` may be a symbolic link to another layer's;
- ``docker save`` since 25: an OCI layout with the same ``manifest.json`` beside it;
- an OCI image layout (``oci-layout``, ``index.json``, ``blobs/``), as skopeo and buildx write it.

The archive is read once, as a stream: every file in it goes to a scratch file and is hashed on the
way. Names in the archive are only ever keys of a dict, so none of them can lead anywhere.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from wherry.engine.errors import BadParameter, NotFound
from wherry.engine.image import tar
from wherry.engine.image.compression import CompressionError
from wherry.engine.image.layers import spool
from wherry.engine.image.manifest import (
    DOCUMENT_LIMIT,
    INDEXES,
    MANIFESTS,
    Descriptor,
    Platform,
    descriptor,
    diff_ids,
    digest_of,
    media_type_of,
    parse_config,
    parse_document,
    parse_manifest,
    platform_of,
)
from wherry.engine.image.reference import Reference, parse
from wherry.engine.image.tar import TarError, TarReader

FILE_LIMIT = 100_000  # files in an archive of images
_LINKS_LIMIT = 16
_CONTAINERD_NAME = "io.containerd.image.name"
_OCI_NAME = "org.opencontainers.image.ref.name"


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the archive, in a scratch file of its own."""

    path: Path
    digest: str
    size: int


@dataclass(slots=True)
class ArchivedImage:
    """One image to load; ``layers`` are bottom first, as are the diff ids of its config."""

    id: str
    config_data: bytes
    config: dict[str, Any]
    layers: list[Member]
    manifest: bytes | None = None
    tags: list[Reference] = field(default_factory=list)
    parent: str = ""


class Archive:
    """The files of an archive of images, below ``scratch`` until its owner removes that.

    Raises:
        BadParameter: it is no tar archive, or a blob is not what its name says.
    """

    def __init__(self, source: IO[bytes], scratch: Path) -> None:
        self._files: dict[str, Member] = {}
        self._links: dict[str, str] = {}
        reader = TarReader(source)
        try:
            for entry in reader:
                name = _clean(entry.name)
                if len(self._files) + len(self._links) >= FILE_LIMIT:
                    raise BadParameter(f"archive has more than {FILE_LIMIT} files")
                if entry.type == tar.REGULAR and entry.sparse is None:
                    path, digest, size = spool(cast(IO[bytes], reader), scratch)
                    self._files[name] = Member(path, digest, size)
                elif entry.type == tar.SYMLINK:
                    self._links[name] = _clean(posixpath.join(posixpath.dirname(name), entry.link))
                elif entry.type == tar.LINK:
                    self._links[name] = _clean(entry.link)
        except (TarError, CompressionError) as error:
            raise BadParameter(f"Error processing tar file: {error}") from error
        for name, member in self._files.items():
            head, _, hexadecimal = name.rpartition("/")
            if head == "blobs/sha256" and member.digest != f"sha256:{hexadecimal}":
                raise BadParameter(
                    f"invalid blob: expected digest sha256:{hexadecimal}, got {member.digest}"
                )

    def images(self, platform: Platform | None, host: Platform) -> list[ArchivedImage]:
        """What the archive has for ``platform``, or where that is None for any, ``host`` first.

        Raises:
            BadParameter: its documents are wrong, or name files that are not there.
        """
        if "manifest.json" in self._files or "manifest.json" in self._links:
            found = self._docker_images()
        elif "index.json" in self._files:
            found = self._oci_images(platform or host)
        else:
            raise BadParameter("invalid archive: does not contain a manifest.json")
        if platform is None:
            return found
        return [image for image in found if platform_of(image.config).offers(platform)]

    # docker save

    def _docker_images(self) -> list[ArchivedImage]:
        items = self._document("manifest.json")
        if not isinstance(items, list):
            raise BadParameter("invalid manifest, manifest cannot be null (but can be [])")
        manifests = self._manifests_by_config()
        images = [self._docker_image(item, manifests) for item in items]
        by_id = {image.id: image for image in images}
        for image in images:
            parent = by_id.get(image.parent)
            if parent is None or not _is_parent(parent.config, image.config):
                image.parent = ""
        return images

    def _docker_image(self, item: Any, manifests: Mapping[str, bytes]) -> ArchivedImage:
        if not isinstance(item, dict) or not isinstance(item.get("Config"), str):
            raise BadParameter("invalid manifest: an image has no Config")
        config_data = self._read(item["Config"])
        config = parse_config(config_data)
        layers = item.get("Layers") or []
        expected = len(diff_ids(config))
        if len(layers) != expected:
            raise BadParameter(
                f"invalid manifest, layers length mismatch: expected {len(layers)}, got {expected}"
            )
        tags = []
        for text in item.get("RepoTags") or []:
            reference = parse(str(text))
            if not reference.tag:
                raise BadParameter(f'invalid tag "{text}"')
            tags.append(reference)
        identity = digest_of(config_data)
        members = [self._member(str(name)) for name in layers]
        manifest = manifests.get(identity)
        if manifest is not None:
            _, stated = parse_manifest(manifest)
            if [layer.digest for layer in stated] != [member.digest for member in members]:
                manifest = None
        return ArchivedImage(
            identity, config_data, config, members, manifest, tags, str(item.get("Parent") or "")
        )

    def _manifests_by_config(self) -> dict[str, bytes]:
        """The manifests of the OCI layout beside ``manifest.json``, by the config they name."""
        found: dict[str, bytes] = {}
        if "index.json" not in self._files:
            return found
        index = self._document("index.json")
        pending = list(index.get("manifests") or []) if isinstance(index, dict) else []
        for entry in pending:
            stated = descriptor(entry)
            member = self._files.get(_blob_name(stated.digest))
            if stated.media_type in MANIFESTS and member is not None:
                data = self._read(_blob_name(stated.digest))
                config, _ = parse_manifest(data)
                found.setdefault(config.digest, data)
        return found

    # OCI layouts

    def _oci_images(self, wanted: Platform) -> list[ArchivedImage]:
        index = self._document("index.json")
        if not isinstance(index, dict) or not isinstance(index.get("manifests"), list):
            raise BadParameter("invalid index.json: it has no manifests")
        images: dict[str, ArchivedImage] = {}
        for entry in index["manifests"]:
            stated = self._choose(entry, wanted)
            data = self._read(_blob_name(stated.digest))
            config, layers = parse_manifest(data)
            image = images.get(config.digest)
            if image is None:
                config_data = self._read(_blob_name(config.digest))
                parsed = parse_config(config_data)
                expected = len(diff_ids(parsed))
                if len(layers) != expected:
                    raise BadParameter(
                        "invalid manifest, layers length mismatch:"
                        f" expected {len(layers)}, got {expected}"
                    )
                members = [self._member(_blob_name(layer.digest)) for layer in layers]
                image = ArchivedImage(config.digest, config_data, parsed, members, data)
                images[config.digest] = image
            name = _oci_name(entry.get("annotations") or {})
            if name is not None and name not in image.tags:
                image.tags.append(name)
        return list(images.values())

    def _choose(self, entry: Any, wanted: Platform, depth: int = 0) -> Descriptor:
        """The manifest for the platform behind an entry of an index, which may be an index."""
        stated = descriptor(entry)
        document = self._document(_blob_name(stated.digest))
        if not isinstance(document, dict):
            raise BadParameter(f"invalid manifest {stated.digest}")
        media_type = media_type_of(document)
        if media_type in MANIFESTS:
            return Descriptor(media_type, stated.digest, stated.size)
        if media_type not in INDEXES or depth > 4:
            raise BadParameter(f"unsupported manifest media type {media_type}")
        candidates = [one for one in document.get("manifests") or [] if isinstance(one, dict)]
        present = [
            one
            for one in candidates
            if _blob_name(str(one.get("digest"))) in self._files
            and platform_of(one.get("platform") or {}).offers(wanted)
        ]
        if not present:
            raise NotFound(f"no match for platform in manifest: {wanted}: not found")
        return self._choose(present[0], wanted, depth + 1)

    # Files

    def _member(self, name: str) -> Member:
        clean = _clean(name)
        for _ in range(_LINKS_LIMIT):
            if clean in self._files:
                return self._files[clean]
            if clean not in self._links:
                break
            clean = self._links[clean]
        raise BadParameter(f"invalid archive: {name} is not in it")

    def _read(self, name: str) -> bytes:
        member = self._member(name)
        if member.size > DOCUMENT_LIMIT:
            raise BadParameter(f"{name} is too large: {member.size} bytes")
        return member.path.read_bytes()

    def _document(self, name: str) -> Any:
        return parse_document(self._read(name), name)


def _oci_name(annotations: Mapping[str, Any]) -> Reference | None:
    """The tag an entry of an index is to get; a bare word is a tag of no repository."""
    for key in (_CONTAINERD_NAME, _OCI_NAME):
        text = annotations.get(key)
        if isinstance(text, str) and (":" in text or "/" in text):
            try:
                reference = parse(text).with_default_tag()
            except BadParameter:
                continue
            return reference if reference.tag else None
    return None


def _is_parent(parent: Mapping[str, Any], child: Mapping[str, Any]) -> bool:
    """Whether the child's history is the parent's and one step more, as a build makes it."""
    before, after = parent.get("history") or [], child.get("history") or []
    return (not before and not after) or before == after[:-1]


def _blob_name(digest: str) -> str:
    algorithm, _, hexadecimal = digest.partition(":")
    return f"blobs/{algorithm}/{hexadecimal}"


def _clean(name: str) -> str:
    return posixpath.normpath("/" + name).lstrip("/")
