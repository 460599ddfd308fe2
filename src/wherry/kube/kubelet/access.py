"""Who may ask the kubelet for what: the API server judges, and is remembered for a while.

A client is known by its certificate (common name and organisations) or by a bearer token
(TokenReview); what it may do is a SubjectAccessReview on a subresource of the node.
https://kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz/
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wherry.kube.client.client import Client

Object = dict[str, Any]
ALLOWED_FOR, REFUSED_FOR, KNOWN_FOR = 300.0, 30.0, 120.0
MOST_REMEMBERED = 1000
_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_TOKENS = "/apis/authentication.k8s.io/v1/tokenreviews"


@dataclass(frozen=True, slots=True)
class User:
    """Who asks."""

    name: str
    groups: tuple[str, ...] = ()


def subresources(path: str) -> tuple[str, ...]:
    """What of the node a path is about: any of these rights opens it, the finest first."""
    for prefix, name in (("/stats", "stats"), ("/metrics", "metrics"), ("/logs", "log")):
        if path == prefix or path.startswith(f"{prefix}/"):
            return (name,)
    if path == "/healthz" or path.startswith("/healthz/"):
        return ("healthz", "proxy")
    if path.startswith("/configz"):
        return ("configz", "proxy")
    if path in ("/pods", "/runningpods", "/pods/", "/runningpods/"):
        return ("pods", "proxy")
    return ("proxy",)


def verb(method: str) -> str:
    """The API's verb for a method of HTTP."""
    verbs = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
    return verbs.get(method, "get")


class Access:
    """Asks the API server, and remembers what it said."""

    def __init__(self, client: Client, node_name: str) -> None:
        self._client = client
        self._node = node_name
        self._users: dict[str, tuple[float, User | None]] = {}
        self._decisions: dict[tuple[User, str, str], tuple[float, bool]] = {}

    async def user_of(self, token: str) -> User | None:
        """Whom a bearer token stands for.

        Raises:
            StatusError, ConnectionError: it cannot be asked.
        """
        known = self._users.get(token)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token},
        }
        answer = await self._ask(_TOKENS, review)
        status = answer.get("status") or {}
        user = None
        if status.get("authenticated"):
            told = status.get("user") or {}
            user = User(told.get("username") or "", tuple(told.get("groups") or ()))
        _remember(self._users, token, (time.monotonic() + KNOWN_FOR, user))
        return user

    async def allows(self, user: User, method: str, path: str) -> bool:
        """Whether ``user`` may.

        Raises:
            StatusError, ConnectionError: it cannot be asked.
        """
        for name in subresources(path):
            if await self._may(user, verb(method), name):
                return True
        return False

    async def _may(self, user: User, verb: str, subresource: str) -> bool:
        key = (user, verb, subresource)
        known = self._decisions.get(key)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user.name,
                "groups": list(user.groups),
                "resourceAttributes": {
                    "verb": verb,
                    "version": "v1",
                    "resource": "nodes",
                    "subresource": subresource,
                    "name": self._node,
                },
            },
        }
        answer = await self._ask(_REVIEWS, review)
        allowed = bool((answer.get("status") or {}).get("allowed"))
        lasts = ALLOWED_FOR if allowed else REFUSED_FOR
        _remember(self._decisions, key, (time.monotonic() + lasts, allowed))
        return allowed

    async def _ask(self, path: str, review: Object) -> Mapping[str, Any]:
        return await self._client.transport.request("POST", path, body=review)


def _remember(memory: dict[Any, Any], key: Any, value: Any) -> None:
    if len(memory) >= MOST_REMEMBERED:
        memory.pop(next(iter(memory)))
    memory[key] = value
