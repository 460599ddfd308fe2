"""``daemon.json``: what an operator decides for an engine, in the words of dockerd's own file.

https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file. Of its directives those
count that mean something here; any other is refused, as dockerd refuses what it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from wherry.engine import logs
from wherry.engine.errors import EngineError
from wherry.engine.image.distribution.endpoints import Settings


@dataclass(frozen=True, slots=True)
class DaemonOptions:
    """The directives of the file; ``log_options`` belong to ``log_driver``."""

    registries: Settings = field(default_factory=Settings)
    log_driver: str = logs.DEFAULT
    log_options: Mapping[str, str] = field(default_factory=dict)
    userns_remap: str = ""
    labels: tuple[str, ...] = ()

    def log_config(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What a container logs to that asks for ``given`` (``HostConfig.LogConfig``)."""
        driver = str(given.get("Type") or self.log_driver)
        options = given.get("Config") or {}
        if driver == self.log_driver and isinstance(options, dict):
            options = {**self.log_options, **options}
        return {"Type": driver, "Config": options}


def load(path: Path) -> DaemonOptions:
    """Read the file; without one, everything is as dockerd has it by default.

    Raises:
        EngineError: it is no JSON object, has a directive that is not known, or a wrong value.
    """
    try:
        document = orjson.loads(path.read_bytes() or b"{}")
    except FileNotFoundError:
        return DaemonOptions()
    except (OSError, ValueError) as error:
        raise _unusable(path, str(error)) from None
    if not isinstance(document, dict):
        raise _unusable(path, "it is not a JSON object")
    if unknown := sorted(set(document) - set(_KINDS)):
        raise _unusable(
            path,
            "the following directives don't match any configuration option: " + ", ".join(unknown),
        )
    for name, value in document.items():
        kind = _KINDS[name]
        entries = value.values() if isinstance(value, dict) else value
        fits = isinstance(value, kind) and (
            kind is str or all(isinstance(entry, str) for entry in entries)
        )
        if not fits:
            raise _unusable(path, f"{name} is not {_WORDS[kind]}")
    mirrors = tuple(document.get("registry-mirrors", ()))
    for mirror in mirrors:
        parts = urlsplit(mirror)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/"):
            raise _unusable(path, f'invalid mirror: "{mirror}" is not the URL of a registry')
    driver, options = document.get("log-driver", logs.DEFAULT), document.get("log-opts", {})
    try:
        logs.check_options(driver, options)
    except EngineError as error:
        raise _unusable(path, error.message) from None
    return DaemonOptions(
        registries=Settings(mirrors, tuple(document.get("insecure-registries", ()))),
        log_driver=driver,
        log_options=options,
        userns_remap=document.get("userns-remap", ""),
        labels=tuple(document.get("labels", ())),
    )


_KINDS: Mapping[str, type] = {
    "insecure-registries": list,
    "labels": list,
    "log-driver": str,
    "log-opts": dict,
    "registry-mirrors": list,
    "userns-remap": str,
}
_WORDS: Mapping[type, str] = {
    list: "a list of strings",
    dict: "an object of strings",
    str: "a string",
}


def _unusable(path: Path, why: str) -> EngineError:
    return EngineError(f"unable to configure the Docker daemon with file {path}: {why}")
