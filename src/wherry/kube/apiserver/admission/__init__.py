"""Admission: what the cluster adds to a write, and what it refuses, after authorisation.

`CHAIN` is the order in which a write meets the plugins; it is upstream's
(https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/). A plugin is a
module with an ``admit``: it changes ``attributes.object`` in place, or raises StatusError. Adding
one is a module and a line here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from wherry.kube.apiserver.admission import (
    namespace_lifecycle,
    node_restriction,
    priority,
    service_account,
    toleration_seconds,
)
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.cache import Cache

__all__ = ["CHAIN", "Attributes", "admit"]

Plugin = Callable[[Attributes, Cache], Awaitable[None]]

CHAIN: tuple[tuple[str, Plugin], ...] = (
    ("NamespaceLifecycle", namespace_lifecycle.admit),
    ("ServiceAccount", service_account.admit),
    ("NodeRestriction", node_restriction.admit),
    ("Priority", priority.admit),
    ("DefaultTolerationSeconds", toleration_seconds.admit),
)


async def admit(attributes: Attributes, cache: Cache) -> None:
    """Lead a write through the chain.

    Raises:
        StatusError: a plugin refuses it.
    """
    for _, plugin in CHAIN:
        await plugin(attributes, cache)
