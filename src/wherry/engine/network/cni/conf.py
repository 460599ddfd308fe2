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

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
_CHECKED_SINCE = VERSIONS.index("0.4.0")
_TENDED_SINCE = VERSIONS.index("1.1.0")
_SUFFIXES = (".conf", ".conflist", ".json")
_said: set[str] = set()
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")


class BadConf(ValueError):
    """No list of plugins; the text says why."""


@dataclass(frozen=True, slots=True)
class ConfList:
    """A network: the plugins that make it, in their order, each as it was written.

    ``version`` is that of the specification in which they are spoken to; ``versions`` are all that
    the list may be understood in, the newest first.
    """

    name: str
    version: str
    plugins: tuple[Mapping[str, Any], ...]
    disable_check: bool = False
    disable_gc: bool = False
    versions: tuple[str, ...] = ()

    @property
    def remembers(self) -> bool:
        """Whether plugins can be asked if all is well, and hear the result when they undo it."""
        return VERSIONS.index(self.version) >= _CHECKED_SINCE

    @property
    def tells(self) -> bool:
        """Whether plugins say if they are ready (STATUS)."""
        return VERSIONS.index(self.version) >= _TENDED_SINCE

    @property
    def collects(self) -> bool:
        """Whether plugins want to know which pods there still are (GC)."""
        return self.tells and not self.disable_gc

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
    return {key: plugin[key] for key in ("name", "cniVersion", "cniVersions") if key in plugin}


def _checked(document: Mapping[str, Any]) -> ConfList:
    name = document.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadConf(f"error parsing configuration list: invalid network name {name!r}")
    versions = _versions(document)
    plugins = document.get("plugins")
    if not isinstance(plugins, list) or not plugins:
        raise BadConf("error parsing configuration list: no plugins in list")
    for number, plugin in enumerate(plugins):
        kind = plugin.get("type") if isinstance(plugin, dict) else None
        if not isinstance(kind, str) or not kind or "/" in kind:
            raise BadConf(f"error parsing configuration list: invalid plugin config {number}")
    check, gc = (document.get(key) in (True, "true") for key in ("disableCheck", "disableGC"))
    return ConfList(name, versions[0], tuple(plugins), check, gc, versions)


def _versions(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Those that the list is written for and we know, the newest first."""
    version, others = document.get("cniVersion"), document.get("cniVersions")
    if others is None:
        others = []
    if not isinstance(others, list) or not all(isinstance(other, str) for other in others):
        raise BadConf("error parsing configuration list: invalid type for cniVersions")
    named = [version, *others] if version else others or ["0.1.0"]
    known = sorted({VERSIONS.index(v) for v in named if v in VERSIONS}, reverse=True)
    if not known:
        raise BadConf(f"cniVersion {version or others!r} is none of {', '.join(VERSIONS)}")
    return tuple(VERSIONS[number] for number in known)


def load(directory: Path) -> ConfList | None:
    """The first list, by the names of the files, that is one; None where there is none.

    What is none is passed over: the log says why, once.
    """
    try:
        files = sorted(p for p in directory.iterdir() if p.suffix in _SUFFIXES)
    except OSError:
        return None
    for file in files:
        try:
            return parse(file.read_bytes(), single=file.suffix != ".conflist")
        except (BadConf, OSError) as error:
            if (said := f"{file} is passed over: {error}") not in _said:
                _said.add(said)
                log.warning("%s", said)
    return None
