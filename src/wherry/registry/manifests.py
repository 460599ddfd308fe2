"""What may be pushed as a manifest, and what it refers to.

https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md and image-index.md;
https://distribution.github.io/distribution/spec/manifest-v2-2/ for Docker's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from wherry.registry import names
from wherry.registry.errors import RegistryError
from wherry.registry.storage import Manifest

SIZE_LIMIT = 4 << 20  # bytes, as the specification recommends

IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_IMAGES, _INDEXES = (IMAGE, DOCKER_IMAGE), (INDEX, DOCKER_LIST)
# Layers that their makers do not let others distribute are fetched from elsewhere.
_FOREIGN = ("nondistributable", "foreign")


@dataclass(frozen=True, slots=True)
class Judged:
    """A manifest that may be kept; ``document`` is what it says, ``subject`` may be empty."""

    manifest: Manifest
    document: Mapping[str, Any]
    subject: str


def judge(data: bytes, content_type: str, digest: str) -> Judged:
    """Read what a client pushes; an empty ``digest`` is worked out.

    Raises:
        RegistryError: MANIFEST_INVALID, DIGEST_INVALID, SIZE_INVALID.
    """
    if len(data) > SIZE_LIMIT:
        raise RegistryError("SIZE_INVALID", f"a manifest has at most {SIZE_LIMIT} bytes")
    algorithm = digest.partition(":")[0] or "sha256"
    found = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    if digest not in ("", found):
        raise RegistryError("DIGEST_INVALID", {"digest": digest})
    document = _read(data)
    named = document.get("mediaType") or ""
    media_type = content_type.partition(";")[0].strip() or named
    if named and named != media_type:
        raise _invalid(f"mediaType {named} is not the Content-Type {media_type}")
    if document.get("schemaVersion") != 2:
        raise _invalid("schemaVersion is not 2")
    if media_type in _IMAGES:
        _descriptor(document.get("config"), "config")
        _descriptors(document, "layers")
    elif media_type in _INDEXES:
        _descriptors(document, "manifests")
    else:
        raise _invalid(f"no manifest has the media type {media_type!r}")
    subject = ""
    if document.get("subject") is not None:
        subject = _descriptor(document["subject"], "subject")["digest"]
    return Judged(Manifest(found, media_type, data), document, subject)


def _read(data: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(data)
    except ValueError as error:
        raise _invalid(str(error)) from None
    if not isinstance(document, dict):
        raise _invalid("a manifest is a JSON object")
    return document


def _invalid(why: str) -> RegistryError:
    return RegistryError("MANIFEST_INVALID", why)


def _descriptors(document: Mapping[str, Any], field: str) -> None:
    values = document.get(field)
    if not isinstance(values, list):
        raise _invalid(f"{field} is not a list of descriptors")
    for value in values:
        _descriptor(value, field)


def _descriptor(value: Any, field: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not isinstance(value.get("mediaType"), str):
        raise _invalid(f"{field} is not a descriptor")
    if not names.is_digest(str(value.get("digest"))):
        raise _invalid(f"{field} has no valid digest")
    if not isinstance(value.get("size"), int) or value["size"] < 0:
        raise _invalid(f"{field} has no valid size")
    return value


def check_references(
    judged: Judged, has_blob: Callable[[str], bool], has_manifest: Callable[[str], bool]
) -> None:
    """See that everything is there that ``judged`` refers to.

    Raises:
        RegistryError: MANIFEST_BLOB_UNKNOWN, with the digests of what is missing.
    """
    blobs = [one for one in blobs_of(judged.document) if not _is_foreign(one)]
    missing = [one["digest"] for one in blobs if not has_blob(one["digest"])]
    missing += [digest for digest in manifests_of(judged.document) if not has_manifest(digest)]
    if missing:
        raise RegistryError("MANIFEST_BLOB_UNKNOWN", [{"digest": digest} for digest in missing])


def _is_foreign(descriptor: Mapping[str, Any]) -> bool:
    return any(word in descriptor["mediaType"] for word in _FOREIGN)


def blobs_of(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The descriptors of the blobs that a manifest refers to; an index refers to none."""
    if isinstance(document.get("config"), dict):
        yield document["config"]
    yield from document.get("layers") or ()


def manifests_of(document: Mapping[str, Any]) -> Iterator[str]:
    """The digests of the manifests that an index lists."""
    for descriptor in document.get("manifests") or ():
        yield descriptor["digest"]


def document_of(manifest: Manifest) -> dict[str, Any]:
    """What a kept manifest says."""
    document: dict[str, Any] = orjson.loads(manifest.data)
    return document


def subject_of(manifest: Manifest) -> str:
    """The digest of what it is about; empty where it is about nothing else."""
    return str((document_of(manifest).get("subject") or {}).get("digest", ""))


def as_referrer(manifest: Manifest) -> dict[str, Any]:
    """Its descriptor in an answer of the referrers API."""
    document = document_of(manifest)
    descriptor = {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": len(manifest.data),
    }
    config = document.get("config") or {}
    if kind := document.get("artifactType") or config.get("mediaType"):
        descriptor["artifactType"] = kind
    if document.get("annotations"):
        descriptor["annotations"] = document["annotations"]
    return descriptor
