"""Which controllers run, as a file: those of the table that are on, and classes of one's own.

::

    apiVersion: wherry.io/v1
    kind: ControllerConfiguration
    controllers: ["*", "-ttl-after-finished-controller"]
    own: ["labels.py:Labeller"]
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import yaml

from wherry.host.classes import ClassNotFound, absolute, find_class
from wherry.kube.controllers import select
from wherry.kube.controllers.base import Controller, Options

API_VERSION = "wherry.io/v1"
KIND = "ControllerConfiguration"


class ConfigurationError(ValueError):
    """The file is no such configuration, or names what does not exist."""


def load(path: Path, options: Options) -> Options:
    """``options`` with what the file says.

    Raises:
        ConfigurationError: it is wrong; the text begins with the file's name.
        OSError: it cannot be read.
    """
    try:
        found = yaml.safe_load(path.read_text())
        if not isinstance(found, dict) or (found.get("apiVersion"), found.get("kind")) != (
            API_VERSION,
            KIND,
        ):
            raise ConfigurationError(f"expected apiVersion {API_VERSION} and kind {KIND}")
        for field in sorted(found.keys() - {"apiVersion", "kind", "controllers", "own"}):
            raise ConfigurationError(f'unknown field "{field}"')
        enabled = tuple(_texts(found.get("controllers") or ["*"], "controllers"))
        names = [absolute(name, path.parent) for name in _texts(found.get("own") or [], "own")]
        own = tuple(find_class(name, Controller) for name in names)  # type: ignore[type-abstract]
        for each in own:
            if not isinstance(getattr(each, "name", None), str):
                raise ConfigurationError(f"{each.__name__} has no name")
        select(enabled, own)
    except (yaml.YAMLError, UnicodeDecodeError, ClassNotFound, ValueError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    return replace(options, enabled=enabled, own=own)


def _texts(value: object, what: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ConfigurationError(f"{what} must be a list of names")
    return value
