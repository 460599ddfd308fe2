"""Which plugins decide, with which weights and arguments, for pods of which scheduler name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wherry.kube.scheduler.framework import Plugin

DEFAULT_NAME = "default-scheduler"


class ConfigurationError(ValueError):
    """The configuration names what does not exist or does not fit."""


@dataclass(frozen=True, slots=True)
class Use:
    """One plugin in a profile.

    ``plugin`` is a name from the table of ``plugins``, or ``package.module:Class`` for a class of
    one's own. ``weight`` multiplies its scores.
    """

    plugin: str
    weight: int = 1
    arguments: Mapping[str, Any] = field(default_factory=dict)


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
    Use("NodeResourcesBalancedAllocation"),
    Use("DefaultPreemption"),
    Use("DefaultBinder"),
)


@dataclass(frozen=True, slots=True)
class Profile:
    """The plugins for pods whose ``spec.schedulerName`` is ``scheduler_name``."""

    scheduler_name: str = DEFAULT_NAME
    plugins: tuple[Use, ...] = DEFAULT_PLUGINS


@dataclass(frozen=True, slots=True)
class Configuration:
    """The scheduler's settings; times in seconds.

    Upstream waits a second before it tries a pod again. Here a pod is only tried again when a
    change may have helped it, so that a tenth is enough to keep a contended node from being fought
    for in a loop.
    """

    profiles: tuple[Profile, ...] = (Profile(),)
    initial_backoff: float = 0.1
    max_backoff: float = 10.0
    unschedulable_timeout: float = 300.0
    """After so long a pod is tried again whatever happened, in case a hint was wrong."""
    percentage_of_nodes: int = 0
    """How many nodes that fit are enough to choose from; 0 decides by the size of the cluster."""


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
    module_name, _, class_name = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f'plugin "{name}" cannot be loaded: {error}') from error
    if not inspect.isclass(found) or not issubclass(found, Plugin):
        raise ConfigurationError(f'plugin "{name}" is not a class derived from Plugin')
    if not isinstance(getattr(found, "name", None), str):
        raise ConfigurationError(f'plugin "{name}" has no name')
    return found
