"""Which plugins are on, and what the AdmissionConfiguration file tells them.

https://kubernetes.io/docs/reference/config-api/apiserver-admission.v1/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_VERSIONS = ("apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1")


@dataclass(frozen=True, slots=True)
class AdmissionOptions:
    """``enable`` and ``disable`` are names of plugins; ``configuration`` is what is configured,
    by the names of plugins."""

    enable: tuple[str, ...] = ()
    disable: tuple[str, ...] = ()
    configuration: Mapping[str, Any] = field(default_factory=dict)

    def check(self, known: Iterable[str]) -> None:
        """Raises ValueError for a plugin that there is not, or that is both on and off."""
        names = set(known)
        for option, given in (
            ("enable-admission-plugins", self.enable),
            ("disable-admission-plugins", self.disable),
        ):
            for name in given:
                if name not in names:
                    raise ValueError(f'{option} plugin "{name}" is unknown')
        for name in self.enable:
            if name in self.disable:
                raise ValueError(
                    f"{name} in enable-admission-plugins and disable-admission-plugins overlapped"
                )

    def wants(self, name: str, *, default: bool) -> bool:
        return name in self.enable or (default and name not in self.disable)


def read_configuration(path: Path) -> dict[str, Any]:
    """The configurations in an AdmissionConfiguration file, by plugin. A plugin's ``path`` is taken
    from the file's directory.

    Raises:
        ValueError: it is none, or cannot be read.
    """
    config = _read(path)
    if config.get("apiVersion") not in _VERSIONS or config.get("kind") != "AdmissionConfiguration":
        raise ValueError(
            f'{path}: no kind "{config.get("kind", "")}" is registered for version '
            f'"{config.get("apiVersion", "")}": an AdmissionConfiguration of {_VERSIONS[0]} is '
            "wanted"
        )
    found: dict[str, Any] = {}
    for plugin in config.get("plugins") or ():
        if not isinstance(plugin, dict) or not isinstance(plugin.get("name"), str):
            raise ValueError(f"{path}: plugins: each needs a name")
        if plugin.get("configuration") is not None:
            found[plugin["name"]] = plugin["configuration"]
        elif plugin.get("path"):
            found[plugin["name"]] = _read(path.parent / str(plugin["path"]))
    return found


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        value = yaml.load(path.read_bytes(), yaml.CSafeLoader)
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(
            f'unable to read admission control configuration from "{path}" [{error}]'
        ) from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: a mapping is wanted")
    return value
