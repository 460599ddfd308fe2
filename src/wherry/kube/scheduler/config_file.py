"""The configuration as a file: KubeSchedulerConfiguration, version v1
(https://kubernetes.io/docs/reference/config-api/kube-scheduler-config.v1/).

A plugin is named as upstream's are, or it is a class of one's own: ``package.module:Class``, or
``path/to/file.py:Class`` from the directory of the configuration. Its arguments stand in
``pluginConfig`` under the same name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from wherry.host.classes import absolute
from wherry.kube.scheduler.config import (
    DEFAULT_NAME,
    DEFAULT_PLUGINS,
    POINTS,
    Configuration,
    ConfigurationError,
    ExtenderSettings,
    Profile,
    Use,
    resolve,
)

API_VERSION = "kubescheduler.config.k8s.io/v1"
KIND = "KubeSchedulerConfiguration"

_KNOWN = {
    "apiVersion",
    "kind",
    "profiles",
    "percentageOfNodesToScore",
    "podInitialBackoffSeconds",
    "podMaxBackoffSeconds",
    "extenders",
}
# What upstream's process needs and ours does not: it is in the server, and asks in memory.
_PASSED_OVER = {
    "clientConnection",
    "delayCacheUntilActive",
    "enableContentionProfiling",
    "enableProfiling",
    "healthzBindAddress",
    "leaderElection",
    "metricsBindAddress",
    "parallelism",
}
_MULTI_POINT = "multiPoint"


def load(path: Path) -> Configuration:
    """The configuration in a file.

    Raises:
        ConfigurationError: it is none; the text begins with the file's name.
        OSError: it cannot be read.
    """
    try:
        document = yaml.safe_load(path.read_text())
        return read(document, path.parent)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def read(document: object, directory: Path) -> Configuration:
    """The configuration that a document means; paths in it begin at ``directory``.

    Raises:
        ConfigurationError: it is none.
    """
    found = _mapping(document, "the document")
    if (found.get("apiVersion"), found.get("kind")) != (API_VERSION, KIND):
        raise ConfigurationError(f"expected apiVersion {API_VERSION} and kind {KIND}")
    unknown = sorted(found.keys() - _KNOWN - _PASSED_OVER)
    if unknown:
        raise ConfigurationError(f'unknown field "{unknown[0]}"')
    default = Configuration()
    extenders = tuple(
        _extender(_mapping(each, f"extenders[{number}]"), directory)
        for number, each in enumerate(_sequence(found.get("extenders"), "extenders"))
    )
    if sum(bool(each.bind_verb) for each in extenders) > 1:
        raise ConfigurationError("extenders: only one extender can implement bind")
    profiles = tuple(
        _profile(_mapping(each, f"profiles[{number}]"), directory)
        for number, each in enumerate(_sequence(found.get("profiles"), "profiles"))
    )
    names = [profile.scheduler_name for profile in profiles]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f'profiles: Duplicate value: "{name}"')
    initial = _number(found, "podInitialBackoffSeconds", default.initial_backoff)
    longest = _number(found, "podMaxBackoffSeconds", default.max_backoff)
    if initial <= 0 or longest < initial:
        raise ConfigurationError(
            "podInitialBackoffSeconds must be greater than 0, "
            "podMaxBackoffSeconds not less than podInitialBackoffSeconds"
        )
    return Configuration(
        profiles=profiles or default.profiles,
        initial_backoff=initial,
        max_backoff=longest,
        percentage_of_nodes=_percentage(found),
        extenders=extenders,
    )


def _profile(profile: Mapping[str, Any], directory: Path) -> Profile:
    plugins = _mapping(profile.get("plugins") or {}, "plugins")
    unknown = sorted(plugins.keys() - POINTS.keys() - {_MULTI_POINT})
    if unknown:
        raise ConfigurationError(f'unknown field "plugins.{unknown[0]}"')
    arguments: dict[str, Mapping[str, Any]] = {}
    for each in _sequence(profile.get("pluginConfig"), "pluginConfig"):
        entry = _mapping(each, "pluginConfig")
        name = _name(entry, directory)
        if name in arguments:
            raise ConfigurationError(f'pluginConfig: repeated config for plugin "{name}"')
        arguments[name] = _mapping(entry.get("args") or {}, f"pluginConfig of {name}")
    uses = _uses(plugins, directory)
    known = {use.plugin for use in uses} | {use.plugin for use in DEFAULT_PLUGINS}
    for name in arguments.keys() - known:
        resolve(name)  # unused, but it must exist
    return Profile(
        str(profile.get("schedulerName") or DEFAULT_NAME),
        tuple(
            Use(
                use.plugin,
                use.weight,
                arguments.get(use.plugin, use.arguments),
                use.only_at,
                use.not_at,
            )
            for use in uses
        ),
        _percentage(profile),
    )


def _uses(plugins: Mapping[str, Any], directory: Path) -> list[Use]:
    """The default plugins with what ``plugins`` adds and takes away, in order."""
    order: dict[str, Use] = {}
    everywhere = _Set(plugins.get(_MULTI_POINT), directory)
    for use in DEFAULT_PLUGINS:
        if not everywhere.is_disabled(use.plugin) or use.plugin in everywhere.enabled:
            order[use.plugin] = use
    for name, weight in everywhere.enabled.items():
        before = order.get(name)
        resolve(name)
        order[name] = Use(name, weight or (before.weight if before else 1))
    for point, given in plugins.items():
        if point == _MULTI_POINT:
            continue
        here = _Set(given, directory)
        for name, use in list(order.items()):
            if here.is_disabled(name) and name not in here.enabled:
                not_at = use.not_at | {point}
                order[name] = Use(name, use.weight, use.arguments, use.only_at, not_at)
        for name, weight in here.enabled.items():
            if not issubclass(resolve(name), POINTS[point]):
                raise ConfigurationError(f'plugin "{name}" does not extend {point} plugin')
            known = order.get(name)
            if known is None:
                order[name] = Use(name, weight or 1, only_at=frozenset({point}))
                continue
            only_at = known.only_at | {point} if known.only_at is not None else None
            not_at = known.not_at - {point}
            order[name] = Use(name, weight or known.weight, known.arguments, only_at, not_at)
    return list(order.values())


class _Set:
    """``enabled`` (with weights) and ``disabled`` of one extension point."""

    def __init__(self, given: object, directory: Path) -> None:
        found = _mapping(given or {}, "plugins")
        self.enabled: dict[str, int] = {}
        for each in _sequence(found.get("enabled"), "enabled"):
            entry = _mapping(each, "enabled")
            self.enabled[_name(entry, directory)] = int(_number(entry, "weight", 0))
        self._disabled = {
            _name(_mapping(each, "disabled"), directory)
            for each in _sequence(found.get("disabled"), "disabled")
        }

    def is_disabled(self, name: str) -> bool:
        return "*" in self._disabled or name in self._disabled


def _extender(given: Mapping[str, Any], directory: Path) -> ExtenderSettings:
    url = given.get("urlPrefix")
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise ConfigurationError("extenders: urlPrefix must be an http or https URL")
    secured = _mapping(given.get("tlsConfig") or {}, "extenders: tlsConfig")
    managed = [
        _mapping(each, "extenders: managedResources")
        for each in _sequence(given.get("managedResources"), "extenders: managedResources")
    ]
    for each in managed:
        if not isinstance(each.get("name"), str) or "/" not in each["name"]:
            raise ConfigurationError(
                "extenders: managedResources: name is an invalid extended resource name"
            )
    weight = int(_number(given, "weight", 1))
    if given.get("prioritizeVerb") and weight <= 0:
        raise ConfigurationError("extenders: weight must have a positive weight applied to it")

    def file(name: str) -> str:
        return str(directory / secured[name]) if secured.get(name) else ""

    return ExtenderSettings(
        url=url,
        filter_verb=given.get("filterVerb") or "",
        prioritize_verb=given.get("prioritizeVerb") or "",
        preempt_verb=given.get("preemptVerb") or "",
        bind_verb=given.get("bindVerb") or "",
        weight=weight,
        timeout=_seconds(given.get("httpTimeout"), 30.0),
        node_cache_capable=bool(given.get("nodeCacheCapable")),
        ignorable=bool(given.get("ignorable")),
        managed_resources=tuple(each["name"] for each in managed),
        ignored_resources=tuple(each["name"] for each in managed if each.get("ignoredByScheduler")),
        certificate_authority=file("caFile"),
        certificate=file("certFile"),
        key=file("keyFile"),
        insecure=bool(secured.get("insecure")),
    )


def _seconds(given: object, default: float) -> float:
    """A duration as Go writes it, of seconds or minutes."""
    if given is None:
        return default
    text = str(given)
    for suffix, scale in (("ms", 0.001), ("s", 1.0), ("m", 60.0)):
        number = text.removesuffix(suffix)
        if number != text and number.replace(".", "", 1).isdigit():
            return float(number) * scale
    raise ConfigurationError(f'"{text}" is no duration')


def _name(entry: Mapping[str, Any], directory: Path) -> str:
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise ConfigurationError("a plugin needs a name")
    return absolute(name, directory)


def _percentage(given: Mapping[str, Any]) -> int:
    value = int(_number(given, "percentageOfNodesToScore", 0))
    if not 0 <= value <= 100:
        raise ConfigurationError("percentageOfNodesToScore: not in valid range [0-100]")
    return value


def _number(given: Mapping[str, Any], name: str, default: float) -> float:
    value = given.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"{name}: {value!r} is no number")
    return value


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigurationError(f"{what} must be a mapping")
    return value


def _sequence(value: object, what: str) -> Sequence[Any]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ConfigurationError(f"{what} must be a list")
    return value
