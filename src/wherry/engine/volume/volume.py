"""What a volume is, and its directory.

``<root>/<name>/volume.json`` says what was asked for, ``<root>/<name>/_data`` is what containers
see. A volume is made under another name and renamed when it is whole, and renamed away before its
files are removed: under its name it is complete or absent, whenever the daemon is killed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from wherry.engine.errors import BadParameter

DRIVER = "local"
# What `docker volume prune` goes by; the name is part of the API.
ANONYMOUS_LABEL = "com.docker.volume.anonymous"
DOCUMENT = "volume.json"
DATA = "_data"
FORMAT = 1

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume; ``created_at`` is nanoseconds since the epoch.

    Labels and options are None where the client sent none: the API shows the difference.
    """

    name: str
    home: Path = field(compare=False)
    labels: Mapping[str, str] | None = None
    options: Mapping[str, str] | None = None
    created_at: int = 0

    @property
    def path(self) -> Path:
        """What containers see of it."""
        return self.home / DATA

    @property
    def driver(self) -> str:
        return DRIVER

    @property
    def is_plain(self) -> bool:
        """Whether it is nothing but a directory; one with options is somebody else's space."""
        return not self.options

    @property
    def is_mounted_on_use(self) -> bool:
        """Whether something has to be mounted before it can be used."""
        return bool(self.options and (self.options.get("device") or self.options.get("type")))

    def to_api(self) -> dict[str, Any]:
        """Volume of the API."""
        created = datetime.fromtimestamp(self.created_at // 1_000_000_000).astimezone()
        return {
            "CreatedAt": created.isoformat().replace("+00:00", "Z"),
            "Driver": self.driver,
            "Labels": None if self.labels is None else dict(sorted(self.labels.items())),
            "Mountpoint": str(self.path),
            "Name": self.name,
            "Options": None if self.options is None else dict(sorted(self.options.items())),
            "Scope": "local",
        }

    def encode(self) -> bytes:
        """The document to keep."""
        return orjson.dumps(
            {
                "format": FORMAT,
                "name": self.name,
                "labels": self.labels,
                "options": self.options,
                "created_at": self.created_at,
            }
        )

    @classmethod
    def decode(cls, data: bytes, home: Path) -> Volume:
        """The volume that ``encode`` wrote.

        Raises:
            ValueError: the document is not one of ours, or from a later version.
        """
        document = orjson.loads(data)
        if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
            raise ValueError(f"{home / DOCUMENT} is not a volume of format {FORMAT}")
        return cls(home=home, **document)


def check_name(name: str) -> None:
    """Whether a volume may be called so.

    Raises:
        BadParameter: no.
    """
    if len(name) == 1:
        raise BadParameter(
            f"create {name}: volume name is too short, "
            "names should be at least two alphanumeric characters"
        )
    if not _NAME.fullmatch(name):
        raise BadParameter(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
            "use absolute path"
        )
