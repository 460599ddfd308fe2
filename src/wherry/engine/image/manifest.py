"""The documents of an image: configs, manifests, indexes, and the digests that tie them together.

Pure functions on bytes and dicts. Formats: OCI image specification 1.1 and Docker's "Image Manifest
Version 2, Schema 2", which differ in media types only.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from wherry.engine.errors import BadParameter
from wherry.engine.image.compression import Compression
from wherry.engine.image.reference import SHA256

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"

INDEXES = (OCI_INDEX, DOCKER_INDEX)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)

DOCUMENT_LIMIT = 16 << 20  # bytes of one JSON document; real ones have kilobytes

_MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
}


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on, in Go's names."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def offers(self, wanted: Platform) -> bool:
        """Whether an image of this platform is one of ``wanted``, where no variant means any."""
        return (self.os, self.architecture) == (wanted.os, wanted.architecture) and (
            not wanted.variant
            or self.variant == wanted.variant
            or (self.architecture == "arm64" and {self.variant, wanted.variant} == {"", "v8"})
        )


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference from one document to a blob."""

    media_type: str
    digest: str
    size: int

    def to_json(self) -> dict[str, Any]:
        """As manifests write it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


def host_platform() -> Platform:
    """The platform of this machine."""
    architecture, _ = _MACHINES.get(os.uname().machine, (os.uname().machine, ""))
    return Platform("linux", architecture)


_ARCHITECTURES = frozenset(
    (
        *("386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle"),
        *("ppc64", "ppc64le", "riscv64", "s390x", "wasm"),
    )
)


def parse_platform(text: str) -> Platform:
    """The platform that ``os[/architecture[/variant]]`` or an architecture alone names.

    Raises:
        BadParameter: it has too many parts or empty ones, or is one that nobody knows.
    """
    host = host_platform()
    parts = text.lower().split("/")
    if len(parts) > 3 or not all(parts):
        raise BadParameter(
            f'"{text}": platform specifier component must match'
            ' "^[A-Za-z0-9_.-]+(?:\\([A-Za-z0-9_.-]*\\))?$": invalid argument'
        )
    if len(parts) == 1:
        if parts[0] in ("linux", "windows", "darwin", "freebsd"):
            return Platform(parts[0], host.architecture)
        architecture = _architecture(parts[0])
        if architecture not in _ARCHITECTURES:
            raise BadParameter(f'"{text}": unknown operating system or architecture')
        return Platform("linux", architecture)
    return Platform(parts[0], _architecture(parts[1]), parts[2] if len(parts) == 3 else "")


def platform_of(document: Mapping[str, Any]) -> Platform:
    """The platform that a config or the ``platform`` of a descriptor states."""
    return Platform(
        str(document.get("os") or "linux"),
        str(document.get("architecture") or ""),
        str(document.get("variant") or ""),
    )


def digest_of(data: bytes) -> str:
    """``sha256:…`` of ``data``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def chain_ids(diff_ids: Sequence[str]) -> tuple[str, ...]:
    """For each layer, bottom first, the digest that stands for it and all below it."""
    chain: list[str] = []
    for diff_id in diff_ids:
        above = digest_of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id
        chain.append(above)
    return tuple(chain)


def parse_document(data: bytes, what: str) -> Any:
    """The JSON value in ``data``.

    Raises:
        BadParameter: it is not JSON, or unreasonably long; ``what`` names it.
    """
    if len(data) > DOCUMENT_LIMIT:
        raise BadParameter(f"{what} is too large: {len(data)} bytes")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadParameter(f"invalid {what}: {error}") from error


def parse_config(data: bytes) -> dict[str, Any]:
    """An image config, checked as far as the engine relies on it.

    Raises:
        BadParameter: it is none, or for another operating system.
    """
    config = parse_document(data, "image config")
    if not isinstance(config, dict) or not isinstance(config.get("rootfs"), dict):
        raise BadParameter("invalid image JSON, no RootFS key")
    identifiers = config["rootfs"].get("diff_ids") or []
    if not isinstance(identifiers, list) or not all(
        isinstance(one, str) and SHA256.fullmatch(one) for one in identifiers
    ):
        raise BadParameter("invalid image JSON, diff_ids must be a list of sha256 digests")
    if not isinstance(config.get("config") or {}, dict) or not all(
        isinstance(entry, dict) for entry in _list(config.get("history"))
    ):
        raise BadParameter("invalid image JSON, config and history have the wrong form")
    system = config.get("os") or "linux"
    if system != "linux":
        raise BadParameter(f"cannot load {system} image on linux")
    return config


def diff_ids(config: Mapping[str, Any]) -> list[str]:
    """The digests of the plain layers, bottom first."""
    return list(config["rootfs"].get("diff_ids") or [])


def parse_manifest(data: bytes) -> tuple[Descriptor, list[Descriptor]]:
    """The config and the layers, bottom first, of an image manifest.

    Raises:
        BadParameter: it is no manifest of an image.
    """
    manifest = parse_document(data, "manifest")
    if not isinstance(manifest, dict) or not isinstance(manifest.get("config"), dict):
        raise BadParameter("invalid manifest: it has no config")
    return descriptor(manifest["config"]), [
        descriptor(layer) for layer in _list(manifest.get("layers"))
    ]


def descriptor(value: Any) -> Descriptor:
    """The descriptor in a document.

    Raises:
        BadParameter: it is none.
    """
    if not isinstance(value, dict):
        raise BadParameter("invalid manifest: a descriptor must be an object")
    digest, size = value.get("digest"), value.get("size")
    if not isinstance(digest, str) or not SHA256.fullmatch(digest):
        raise BadParameter(f"invalid manifest: {digest!r} is not a sha256 digest")
    if not isinstance(size, int) or size < 0:
        raise BadParameter(f"invalid manifest: {size!r} is not a size")
    return Descriptor(str(value.get("mediaType") or ""), digest, size)


def layer_media_type(compression: Compression) -> str:
    """OCI's name for a layer packed so."""
    return OCI_LAYER + (f"+{compression.value}" if compression.value else "")


def make_manifest(config: Descriptor, layers: Sequence[Descriptor]) -> bytes:
    """The manifest for an image that came without one; the same for the same parts."""
    return orjson.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config.to_json(),
            "layers": [layer.to_json() for layer in layers],
        }
    )


def media_type_of(manifest: Mapping[str, Any]) -> str:
    """What a manifest or index says it is, or what its form shows where it says nothing."""
    stated = manifest.get("mediaType")
    if isinstance(stated, str) and stated:
        return stated
    return OCI_INDEX if "manifests" in manifest else OCI_MANIFEST


def _architecture(name: str) -> str:
    return {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386"}.get(name, name)


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadParameter("invalid manifest: a list was expected")
    return value
