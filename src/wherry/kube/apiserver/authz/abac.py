"""Attribute-based access control: a file of policies, one JSON object a line.

https://kubernetes.io/docs/reference/access-authn-authz/abac/; upstream: pkg/auth/authorizer/abac.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from wherry.kube.apiserver.authz.decision import ALLOWED, Decision
from wherry.kube.apiserver.authz.rules import ALL, Rule
from wherry.kube.apiserver.request import RequestInfo, User

_VERSION = "abac.authorization.kubernetes.io/"
_READ = ("get", "list", "watch")
_UNMATCHED = Decision(reason="No policy matched.")


@dataclass(frozen=True, slots=True)
class Policy:
    """A line of the file: to whom, on what; what is empty is not granted."""

    user: str = ""
    group: str = ""
    readonly: bool = False
    namespace: str = ""
    resource: str = ""
    api_group: str = ""
    path: str = ""

    def concerns(self, user: User) -> bool:
        if self.user and self.user not in (ALL, user.name):
            return False
        if self.group and self.group != ALL and self.group not in user.groups:
            return False
        return bool(self.user or self.group)

    def allows(self, info: RequestInfo) -> bool:
        if self.readonly and info.verb not in _READ:
            return False
        if info.is_resource:
            return (
                self.namespace in (ALL, info.namespace)
                and self.resource in (ALL, info.plural)
                and self.api_group in (ALL, info.group)
            )
        if self.path.endswith(ALL):
            return info.path.startswith(self.path.rstrip(ALL))
        return self.path == info.path

    def rules(self, namespace: str) -> list[Rule]:
        verbs = _READ if self.readonly else (ALL,)
        if self.namespace not in (ALL, namespace):
            return []
        rules = []
        if self.resource:
            rules.append(Rule(verbs, (self.api_group,), (self.resource,)))
        if self.path:
            rules.append(Rule(verbs, urls=(self.path,)))
        return rules


class Policies:
    """Allows what any policy allows."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._policies = tuple(policies)

    def decide(self, user: User, info: RequestInfo) -> Decision:
        if any(p.concerns(user) and p.allows(info) for p in self._policies):
            return ALLOWED
        return _UNMATCHED

    def rules_for(self, user: User, namespace: str) -> tuple[list[Rule], list[str]]:
        mine = (policy for policy in self._policies if policy.concerns(user))
        return [rule for policy in mine for rule in policy.rules(namespace)], []

    def incomplete(self, user: User) -> bool:
        return False


def load(path: Path) -> Policies:
    """The policies in a file. Raises OSError, ValueError (with the line that is wrong)."""
    policies = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            policies.append(_policy(orjson.loads(text)))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"error reading policy file {path}, line {number}: {text}: {error}"
            ) from error
    return Policies(policies)


_FIELDS = {
    "user": str,
    "group": str,
    "readonly": bool,
    "namespace": str,
    "resource": str,
    "apiGroup": str,
    "nonResourcePath": str,
}


def _policy(line: Any) -> Policy:
    if not isinstance(line, dict):
        raise TypeError("a policy is an object")
    if line.get("kind") != "Policy" or not str(line.get("apiVersion")).startswith(_VERSION):
        raise ValueError(f"a policy has kind Policy and apiVersion {_VERSION}v1beta1")
    spec = line.get("spec") or {}
    for name, kind in _FIELDS.items():
        if not isinstance(spec.get(name, kind()), kind):
            raise TypeError(f"spec.{name}: not a {kind.__name__}")
    return Policy(*(spec.get(name, kind()) for name, kind in _FIELDS.items()))
