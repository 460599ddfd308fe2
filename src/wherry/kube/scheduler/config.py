"""Which plugins decide, with which weights and arguments, for pods of which scheduler name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from wherry.host.classes import ClassNotFound, find_class
from wherry.kube.scheduler.framework import POINTS, Plugin

DEFAULT_NAME = "default-scheduler"


class ConfigurationError(ValueError):
    """The configuration names what does not exist or does not fit."""


@dataclass(frozen=True, slots=True)
class Use:
    """One plugin in a profile.

    ``plugin`` is a name from the table of ``plugins``, or a class of one's own as ``find_class``
    reads it. ``weight`` multiplies its scores. ``only_at`` and ``not_at`` name extension points as
    the configuration file does (``filter``, ``preBind``); without, it is asked wherever it can be.
    """

    plugin: str
    weight: int = 1
    arguments: Mapping[str, Any] = field(default_factory=dict)
    only_at: frozenset[str] | None = None
    not_at: frozenset[str] = frozenset()

    def is_at(self, point: str) -> bool:
        """Whether it is to be asked at that extension point."""
        return point not in self.not_at and (self.only_at is None or point in self.only_at)


# Upstream's default profile, in the order in which plugins are asked.
DEFAULT_PLUGINS = (
    Use("SchedulingGates"),
    Use("PrioritySort"),
    Use("NodeUnschedulable"),
    Use("NodeName"),
    Use("TaintToleration", weight=3),
    Use("NodeAffinity", weight=2),
    Use("NodePorts"),
    Use("NodeResourcesFit"),
    Use("VolumeRestrictions"),
    Use("NodeVolumeLimits"),
    Use("VolumeBinding"),
    Use("VolumeZone"),
    Use("PodTopologySpread", weight=2),
    Use("InterPodAffinity", weight=2),
    Use("DefaultPreemption"),
    Use("NodeResourcesBalancedAllocation"),
    Use("ImageLocality"),
    Use("DefaultBinder"),
)


@dataclass(frozen=True, slots=True)
class Profile:
    """The plugins for pods whose ``spec.schedulerName`` is ``scheduler_name``."""

    scheduler_name: str = DEFAULT_NAME
    plugins: tuple[Use, ...] = DEFAULT_PLUGINS
    percentage_of_nodes: int = 0
    """As that of the whole configuration, for this profile; 0 is that one."""


@dataclass(frozen=True, slots=True)
class ExtenderSettings:
    """A service of the user's own that has a say by HTTP; upstream's ``Extender``."""

    url: str
    filter_verb: str = ""
    prioritize_verb: str = ""
    preempt_verb: str = ""
    bind_verb: str = ""
    weight: int = 1
    timeout: float = 30.0
    node_cache_capable: bool = False
    ignorable: bool = False
    managed_resources: tuple[str, ...] = ()
    """Extended resources that it looks after: it has a say about pods that request one."""
    ignored_resources: tuple[str, ...] = ()
    """Those of them that it alone counts: NodeResourcesFit leaves them to it."""
    certificate_authority: str = ""
    certificate: str = ""
    key: str = ""
    insecure: bool = False
    """Whether whoever answers is believed."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """The scheduler's settings; times in seconds."""

    profiles: tuple[Profile, ...] = (Profile(),)
    initial_backoff: float = 1.0
    """After a first failure; doubled with each one more, up to ``max_backoff``. A pod that a change
    may have helped does not wait for it to end unless others want to be tried."""
    max_backoff: float = 10.0
    unschedulable_timeout: float = 300.0
    """After so long a pod is tried again whatever happened, in case a hint was wrong."""
    percentage_of_nodes: int = 0
    """How many nodes that fit are enough to choose from; 0 decides by the size of the cluster."""
    extenders: tuple[ExtenderSettings, ...] = ()

    def complete(self, profile: Profile) -> Profile:
        """The profile with what the extenders take over from NodeResourcesFit."""
        left = {name for each in self.extenders for name in each.ignored_resources}
        if not left:
            return profile

        def without(use: Use) -> Use:
            if use.plugin != "NodeResourcesFit":
                return use
            ignored = sorted(left.union(use.arguments.get("ignoredResources") or ()))
            return replace(use, arguments={**use.arguments, "ignoredResources": ignored})

        return replace(profile, plugins=tuple(map(without, profile.plugins)))


def resolve(name: str) -> type[Plugin]:
    """The plugin class that a configuration means.

    Raises:
        ConfigurationError: there is no such plugin, or it is no plugin.
    """
    from wherry.kube.scheduler.plugins import PLUGINS

    for plugin in PLUGINS:
        if plugin.name == name:
            return plugin
    if ":" not in name:
        raise ConfigurationError(f'plugin "{name}" does not exist')
    try:
        found = find_class(name, Plugin)
    except ClassNotFound as error:
        raise ConfigurationError(f"plugin {error}") from error
    if not isinstance(getattr(found, "name", None), str):
        raise ConfigurationError(f'plugin "{name}" has no name')
    return found


__all__ = ["POINTS", "Configuration", "ConfigurationError", "ExtenderSettings", "Profile", "Use"]
