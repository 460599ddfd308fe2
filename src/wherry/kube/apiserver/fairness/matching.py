"""Which FlowSchema a request belongs to, and to which flow within it.

Upstream: k8s.io/apiserver/pkg/util/flowcontrol/rule.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wherry.kube.apiserver.request import RequestInfo, User

Object = Mapping[str, Any]

_ALL = "*"


def in_order(schemas: Sequence[Object]) -> list[Object]:
    """As they are tried: the lowest precedence first, then by name."""
    return sorted(
        schemas,
        key=lambda schema: (
            schema["spec"].get("matchingPrecedence", 0),
            schema["metadata"]["name"],
        ),
    )


def matches(schema: Object, user: User, info: RequestInfo) -> bool:
    """Whether a rule of the schema is about such a request of such a user."""
    return any(
        any(_is_subject(subject, user) for subject in rule.get("subjects") or ())
        and (
            any(_is_resource(each, info) for each in rule.get("resourceRules") or ())
            if info.is_resource
            else any(_is_path(each, info) for each in rule.get("nonResourceRules") or ())
        )
        for rule in schema["spec"].get("rules") or ()
    )


def distinguisher(schema: Object, user: User, info: RequestInfo) -> str:
    """What tells the schema's flows apart; "" where it has but one."""
    match (schema["spec"].get("distinguisherMethod") or {}).get("type"):
        case "ByUser":
            return user.name
        case "ByNamespace":
            return info.namespace
    return ""


def _is_subject(subject: Object, user: User) -> bool:
    match subject.get("kind"):
        case "User":
            return subject["user"]["name"] in (_ALL, user.name)
        case "Group":
            name = subject["group"]["name"]
            return name == _ALL or name in user.groups
        case "ServiceAccount":
            account = subject["serviceAccount"]
            prefix = f"system:serviceaccount:{account['namespace']}:"
            if account["name"] == _ALL:
                return user.name.startswith(prefix)
            return bool(user.name == prefix + account["name"])
    return False


def _is_resource(rule: Object, info: RequestInfo) -> bool:
    asked = f"{info.plural}/{info.subresource}" if info.subresource else info.plural
    if not (
        _has(rule.get("verbs"), info.verb)
        and _has(rule.get("apiGroups"), info.group)
        and _has(rule.get("resources"), asked)
    ):
        return False
    if not info.namespace:
        return bool(rule.get("clusterScope"))
    return _has(rule.get("namespaces"), info.namespace)


def _is_path(rule: Object, info: RequestInfo) -> bool:
    return _has(rule.get("verbs"), info.verb) and any(
        url == info.path or (url.endswith(_ALL) and info.path.startswith(url[:-1]))
        for url in rule.get("nonResourceURLs") or ()
    )


def _has(words: Sequence[str] | None, word: str) -> bool:
    return words is not None and (word in words or _ALL in words)
