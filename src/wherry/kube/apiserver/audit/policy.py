"""How much is told of a request: the first rule of the policy that fits it says.

Upstream: k8s.io/apiserver/pkg/audit/policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wherry.kube.apiserver.request import RequestInfo, User

LEVELS = ("None", "Metadata", "Request", "RequestResponse")
STAGES = ("RequestReceived", "ResponseStarted", "ResponseComplete", "Panic")
_VERSIONS = ("audit.k8s.io/v1", "audit.k8s.io/v1beta1", "audit.k8s.io/v1alpha1")
_RULE = {
    "level": str,
    "users": list,
    "userGroups": list,
    "verbs": list,
    "resources": list,
    "namespaces": list,
    "nonResourceURLs": list,
    "omitStages": list,
    "omitManagedFields": bool,
}


class BadPolicy(ValueError):
    """The policy cannot be followed; the text says what is wrong where."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is told: the level, and the stages that are left out."""

    level: str = "None"
    omit_stages: frozenset[str] = frozenset()
    omit_managed_fields: bool = False


NOTHING = Verdict()


@dataclass(frozen=True, slots=True)
class Resources:
    """Resources of a group, perhaps only objects of some names."""

    group: str
    names: tuple[str, ...]
    objects: tuple[str, ...]

    def matches(self, info: RequestInfo) -> bool:
        if self.group != info.group:
            return False
        if not self.names:
            return True
        if self.objects and info.name not in self.objects:
            return False
        asked = f"{info.plural}/{info.subresource}" if info.subresource else info.plural
        return any(
            name in ("*", asked)
            or (name.startswith("*/") and info.subresource == name[2:])
            or (name.endswith("/*") and info.plural == name[:-2])
            for name in self.names
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """Whom and what it is about; an empty field is about all."""

    verdict: Verdict
    users: frozenset[str]
    groups: frozenset[str]
    verbs: frozenset[str]
    namespaces: frozenset[str]
    resources: tuple[Resources, ...]
    urls: tuple[str, ...]

    def matches(self, user: User | None, info: RequestInfo) -> bool:
        if self.users and (user is None or user.name not in self.users):
            return False
        if self.groups and (user is None or not self.groups.intersection(user.groups)):
            return False
        if self.verbs and info.verb not in self.verbs:
            return False
        if self.namespaces or self.resources:
            return self._matches_resource(info)
        if self.urls:
            return not info.is_resource and any(_url_matches(url, info.path) for url in self.urls)
        return True

    def _matches_resource(self, info: RequestInfo) -> bool:
        if not info.is_resource:
            return False
        if self.namespaces and info.namespace not in self.namespaces:
            return False
        return not self.resources or any(r.matches(info) for r in self.resources)


class Policy:
    """The rules in order. What none fits is not told."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)

    def judge(self, user: User | None, info: RequestInfo) -> Verdict:
        for rule in self._rules:
            if rule.matches(user, info):
                return rule.verdict
        return NOTHING


def read(path: Path) -> Policy:
    """The policy of a file. Raises BadPolicy, OSError."""
    import yaml

    try:
        document = yaml.load(path.read_bytes(), yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise BadPolicy(f"{path}: {error}") from None
    try:
        return parse(document)
    except BadPolicy as error:
        raise BadPolicy(f"{path}: {error}") from None


def parse(document: object) -> Policy:
    """The policy an object of kind Policy says. Raises BadPolicy."""
    if not isinstance(document, Mapping):
        raise BadPolicy("an audit policy is a mapping")
    if document.get("apiVersion") not in _VERSIONS or document.get("kind") != "Policy":
        raise BadPolicy(
            f'no kind "{document.get("kind", "")}" of version "{document.get("apiVersion", "")}": '
            f"a Policy of {_VERSIONS[0]} is wanted"
        )
    rules = document.get("rules")
    if not isinstance(rules, list) or not rules:
        raise BadPolicy("loaded illegal policy with 0 rules")
    omitted = _stages(document.get("omitStages"), "omitStages")
    bare = document.get("omitManagedFields") is True
    return Policy([_rule(rule, f"rules[{i}]", omitted, bare) for i, rule in enumerate(rules)])


def _rule(given: Any, path: str, omitted: frozenset[str], bare: bool) -> Rule:
    if not isinstance(given, Mapping):
        raise BadPolicy(f"{path}: a mapping is wanted")
    for key, value in given.items():
        if key not in _RULE:
            raise BadPolicy(f'{path}: unknown field "{key}"')
        if value is not None and not isinstance(value, _RULE[key]):
            raise BadPolicy(f"{path}.{key}: it has the wrong type")
    level = given.get("level", "")
    if level not in LEVELS:
        quoted = ", ".join(f'"{each}"' for each in LEVELS)
        raise BadPolicy(f'{path}.level: Unsupported value: "{level}": supported values: {quoted}')
    urls = _words(given, "nonResourceURLs", path)
    resources = tuple(
        _resources(each, f"{path}.resources[{i}]")
        for i, each in enumerate(given.get("resources") or ())
    )
    namespaces = frozenset(_words(given, "namespaces", path))
    if urls and (resources or namespaces):
        raise BadPolicy(
            f"{path}.nonResourceURLs: rules cannot apply to both regular resources and "
            "non-resource URLs"
        )
    for url in urls:
        if url != "*" and (not url.startswith("/") or "*" in url.rstrip("*")):
            raise BadPolicy(
                f'{path}.nonResourceURLs: "{url}": non-resource URL rules must begin with a "/" '
                'character and have "*" only at their end'
            )
    own = given.get("omitManagedFields")
    return Rule(
        Verdict(
            level,
            omitted | _stages(given.get("omitStages"), f"{path}.omitStages"),
            bare if own is None else own,
        ),
        frozenset(_words(given, "users", path)),
        frozenset(_words(given, "userGroups", path)),
        frozenset(_words(given, "verbs", path)),
        namespaces,
        resources,
        urls,
    )


def _resources(given: Any, path: str) -> Resources:
    if not isinstance(given, Mapping):
        raise BadPolicy(f"{path}: a mapping is wanted")
    group = given.get("group") or ""
    if "/" in group:
        raise BadPolicy(f"{path}.group: a group has no version in it")
    names = _words(given, "resources", path)
    objects = _words(given, "resourceNames", path)
    if objects and not names:
        raise BadPolicy(f"{path}.resourceNames: using resourceNames requires at least one resource")
    return Resources(group, names, objects)


def _words(given: Mapping[str, Any], key: str, path: str) -> tuple[str, ...]:
    words = given.get(key) or ()
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise BadPolicy(f"{path}.{key}: a list of words is wanted")
    return tuple(words)


def _stages(given: Any, path: str) -> frozenset[str]:
    stages = frozenset(_words({"stages": given}, "stages", path))
    for stage in sorted(stages - set(STAGES)):
        raise BadPolicy(f'{path}: "{stage}" is no stage, want one of {", ".join(STAGES)}')
    return stages


def _url_matches(pattern: str, path: str) -> bool:
    if pattern in ("*", path):
        return True
    return pattern.endswith("*") and path.startswith(pattern.rstrip("*"))
