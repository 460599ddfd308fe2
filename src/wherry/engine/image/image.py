"""An image as the rest of the engine sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wherry.engine.container.units import parse_rfc3339
from wherry.engine.image.manifest import Platform, platform_of


@dataclass(frozen=True, slots=True)
class Image:
    """A snapshot: what it consists of never changes, its names are those of the moment.

    ``id`` is the digest of the config, ``config`` the whole OCI document (whose own ``config`` key
    holds what containers inherit), ``chain`` the chain ids of its layers, bottom first.
    ``repo_tags`` and ``repo_digests`` are in Docker's short form. ``size`` is bytes, unpacked.
    """

    id: str
    config: Mapping[str, Any]
    chain: tuple[str, ...]
    repo_tags: tuple[str, ...] = ()
    repo_digests: tuple[str, ...] = ()
    size: int = 0
    parent: str = ""
    manifest: str = ""  # digest of the manifest under which it is saved
    last_tagged: int = 0  # nanoseconds since the epoch, 0 for never

    @property
    def created(self) -> int | None:
        """When it was made, in nanoseconds since the epoch; None where it does not say."""
        text = self.config.get("created")
        if not isinstance(text, str) or not text:
            return None
        try:
            return parse_rfc3339(text)
        except ValueError:
            return None

    @property
    def settings(self) -> Mapping[str, Any]:
        """What containers inherit: Env, Cmd, Entrypoint, User, …"""
        return self.config.get("config") or {}

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        return self.settings.get("Labels") or {}

    @property
    def platform(self) -> Platform:
        """What it runs on."""
        return platform_of(self.config)

    @property
    def diff_ids(self) -> list[str]:
        """The digests of its plain layers, bottom first."""
        return list(self.config["rootfs"].get("diff_ids") or [])

    @property
    def short_id(self) -> str:
        """The first twelve digits of the id, as Docker shortens it."""
        return self.id.removeprefix("sha256:")[:12]
