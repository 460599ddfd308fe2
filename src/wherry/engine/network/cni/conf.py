"""What an administrator has written: lists of plugins, in a directory such as /etc/cni/net.d."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

log = logging.getLogger(__name__)

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0")
_CHECKED_SINCE = VERSIONS.index("0.4.0")
_SUFFIXES = (".conf", ".conflist", ".json")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")


class BadConf(ValueError):
    """No list of plugins; the text says why."""


@dataclass(frozen=True, slots=True)
class ConfList:
    """A network: the plugins that make it, in their order, each as it was written."""

    name: str
    version: str
    plugins: tuple[Mapping[str, Any], ...]
    disable_check: bool = False

    @property
    def remembers(self) -> bool:
        """Whether plugins can be asked if all is well, and hear the result when they undo it."""
        return VERSIONS.index(self.version) >= _CHECKED_SINCE

    @property
    def capabilities(self) -> frozenset[str]:
        """What any of the plugins wants to be told about each pod."""
        return frozenset(c for plugin in self.plugins for c in wanted(plugin))

    def to_document(self) -> dict[str, Any]:
        """What is kept on disk."""
        return {
            "name": self.name,
            "cniVersion": self.version,
            "plugins": list(self.plugins),
            "disableCheck": self.disable_check,
        }


def wanted(plugin: Mapping[str, Any]) -> frozenset[str]:
    """The capabilities that a plugin's configuration turns on."""
    listed = plugin.get("capabilities")
    return (
        frozenset(k for k, v in listed.items() if v is True)
        if type(listed) is dict
        else frozenset()
    )


def parse(data: bytes, *, single: bool) -> ConfList:
    """The list in a file; with ``single``, the file of one plugin is a list of it.

    Raises:
        BadConf: it is none.
    """
    try:
        document = orjson.loads(data)
    except ValueError as error:
        raise BadConf(f"error parsing configuration: {error}") from None
    if type(document) is not dict:
        raise BadConf("error parsing configuration: it is no object")
    if single and "plugins" not in document:
        if not document.get("type"):
            raise BadConf("error loading CNI config file: no 'type'; perhaps this is a .conflist?")
        document = {**_outer(document), "plugins": [document]}
    return _checked(document)


def _outer(plugin: Mapping[str, Any]) -> dict[str, Any]:
    return {key: plugin[key] for key in ("name", "cniVersion") if key in plugin}


def _checked(document: Mapping[str, Any]) -> ConfList:
    name, version = document.get("name"), document.get("cniVersion") or "0.1.0"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadConf(f"error parsing configuration list: invalid network name {name!r}")
    if version not in VERSIONS:
        raise BadConf(f"cniVersion {version!r} is none of {', '.join(VERSIONS)}")
    plugins = document.get("plugins")
    if not isinstance(plugins, list) or not plugins:
        raise BadConf("error parsing configuration list: no plugins in list")
    for number, plugin in enumerate(plugins):
        kind = plugin.get("type") if isinstance(plugin, dict) else None
        if not isinstance(kind, str) or not kind or "/" in kind:
            raise BadConf(f"error parsing configuration list: invalid plugin config {number}")
    disabled = document.get("disableCheck")
    return ConfList(name, version, tuple(plugins), disabled is True or disabled == "true")


def load(directory: Path) -> ConfList | None:
    """The first list, by the names of the files, that is one; None where there is none.

    What is none is passed over: the log says why.
    """
    try:
        files = sorted(p for p in directory.iterdir() if p.suffix in _SUFFIXES)
    except OSError:
        return None
    for file in files:
        try:
            return parse(file.read_bytes(), single=file.suffix != ".conflist")
        except (BadConf, OSError) as error:
            log.warning("%s is passed over: %s", file, error)
    return None
