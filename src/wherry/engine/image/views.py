"""Images in the words of the Engine API, for any version from 1.24 to 1.50.

Pure functions from images to JSON documents (Docker Engine API reference, "Images"; what changed
when is in its "API version history").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wherry.engine.container.units import ZERO_TIME, timestamp
from wherry.engine.image.content import Layer
from wherry.engine.image.image import Image

Version = tuple[int, int]

# Fields of a container's configuration that an image's `Config` had until API 1.50.
_BEFORE_1_50: Mapping[str, Any] = {
    "Hostname": "",
    "Domainname": "",
    "User": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Env": None,
    "Cmd": None,
    "Image": "",
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
}
_ONLY_BEFORE_1_50 = frozenset(
    (
        *("Hostname", "Domainname", "AttachStdin", "AttachStdout", "AttachStderr", "Tty"),
        *("OpenStdin", "StdinOnce", "Image", "NetworkDisabled", "MacAddress", "StopTimeout"),
    )
)


def summary(
    image: Image,
    version: Version,
    *,
    tags: Sequence[str],
    digests: Sequence[str],
    shared_size: int = -1,
    containers: int = -1,
) -> dict[str, Any]:
    """An entry of ``GET /images/json``; ``tags`` and ``digests`` are those the filters let by."""
    created = image.created
    document: dict[str, Any] = {
        "Containers": containers,
        "Created": created // 1_000_000_000 if created is not None else 0,
        "Id": image.id,
        "Labels": dict(image.labels) or None,
        "ParentId": image.parent,
        "RepoDigests": list(digests),
        "RepoTags": list(tags),
        "SharedSize": shared_size,
        "Size": image.size,
    }
    if version < (1, 43) and not tags and not digests:
        document["RepoTags"], document["RepoDigests"] = ["<none>:<none>"], ["<none>@<none>"]
    if version < (1, 44):
        document["VirtualSize"] = image.size
    return document


def manifest_summary(
    image: Image, manifest: Mapping[str, Any], content_size: int, containers: Sequence[str]
) -> dict[str, Any]:
    """The one entry of ``Manifests`` (API 1.47): every image here has one platform."""
    platform = image.platform
    stated = {"architecture": platform.architecture, "os": platform.os}
    if platform.variant:
        stated["variant"] = platform.variant
    return {
        "ID": manifest["digest"],
        "Descriptor": dict(manifest),
        "Available": True,
        "Size": {"Content": content_size, "Total": content_size + image.size},
        "Kind": "image",
        "ImageData": {
            "Platform": stated,
            "Containers": list(containers),
            "Size": {"Unpacked": image.size},
        },
    }


def inspect(image: Image, version: Version, directories: Sequence[Path]) -> dict[str, Any]:
    """The answer of ``GET /images/{name}/json``; ``directories`` are the layers, topmost first."""
    config = image.config
    history = config.get("history") or []
    comment = config.get("comment") or (history[-1].get("comment") if history else "") or ""
    platform = image.platform
    document: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Parent": image.parent,
        "Comment": comment,
        "Created": config.get("created") or "",
        "DockerVersion": config.get("docker_version") or "",
        "Author": config.get("author") or "",
        "Config": _settings(image.settings, version),
        "Architecture": platform.architecture,
        "Os": platform.os,
        "Size": image.size,
        "GraphDriver": {"Data": _directories(directories), "Name": "overlay2"},
        "RootFS": {"Type": "layers", "Layers": image.diff_ids},
        "Metadata": {"LastTagTime": timestamp(image.last_tagged)},
    }
    if platform.variant:
        document["Variant"] = platform.variant
    if config.get("os.version"):
        document["OsVersion"] = config["os.version"]
    if not image.diff_ids:
        del document["RootFS"]["Layers"]
    if not document["Created"]:
        if version < (1, 44):
            document["Created"] = ZERO_TIME
        else:
            del document["Created"]
    if version < (1, 44):
        document["VirtualSize"] = image.size
    if version < (1, 45):
        document["Container"] = config.get("container") or ""
        document["ContainerConfig"] = {**_BEFORE_1_50, **(config.get("container_config") or {})}
    return document


def history(image: Image, layers: Sequence[Layer], ancestors: Sequence[Image]) -> list[Any]:
    """The answer of ``GET /images/{name}/history``, newest first.

    ``layers`` are the image's, bottom first; ``ancestors`` are the image itself and those it was
    made from by builds here, whose ids are still known.
    """
    from wherry.engine.container.units import parse_rfc3339

    entries: list[dict[str, Any]] = []
    sizes = iter(layers)
    for step in image.config.get("history") or []:
        size = 0
        if not step.get("empty_layer"):
            layer = next(sizes, None)
            size = layer.size if layer is not None else 0
        try:
            created = parse_rfc3339(str(step.get("created") or "")) // 1_000_000_000
        except ValueError:
            created = 0
        entries.append(
            {
                "Comment": str(step.get("comment") or ""),
                "Created": created,
                "CreatedBy": str(step.get("created_by") or ""),
                "Id": "<missing>",
                "Size": size,
                "Tags": None,
            }
        )
    entries.reverse()
    for entry, ancestor in zip(entries, ancestors, strict=False):
        entry["Id"] = ancestor.id
        entry["Tags"] = list(ancestor.repo_tags) or None
    return entries


def _settings(settings: Mapping[str, Any], version: Version) -> dict[str, Any]:
    if version < (1, 50):
        return {**_BEFORE_1_50, **settings}
    return {
        key: value
        for key, value in settings.items()
        if key not in _ONLY_BEFORE_1_50 and value not in (None, "", [], {}, False)
    }


def _directories(directories: Sequence[Path]) -> dict[str, str] | None:
    if not directories:
        return None
    data = {"UpperDir": str(directories[0])}
    if len(directories) > 1:
        data["LowerDir"] = ":".join(map(str, directories[1:]))
    return data
