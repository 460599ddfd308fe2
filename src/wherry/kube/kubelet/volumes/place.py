"""Where a volume of a pod is, once it is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Place:
    """A path of the node, or the content of an image.

    ``readonly``: nobody may write there, whatever a container's mount says. ``device``: the path
    is a block device, for ``volumeDevices``. ``image``: the id of an image, instead of a path.
    """

    path: Path
    readonly: bool = False
    device: bool = False
    image: str = ""
