"""What admission plugins know of the server they run in."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from wherry.kube.api.catalogue import Catalogue
from wherry.kube.apiserver.cache import Cache

if TYPE_CHECKING:
    from wherry.kube.apiserver.authz import Authorizer
    from wherry.kube.apiserver.local import LocalTransport
    from wherry.kube.apiserver.registry.backend import Backend
    from wherry.kube.apiserver.request import User

T = TypeVar("T")


@dataclass(slots=True)
class Context:
    """One for each server.

    ``backend`` writes to the store past the chain (what a plugin keeps in a status);
    ``transport`` gives the API in memory for a user; ``configuration`` what the
    AdmissionConfiguration says, by the names of plugins.
    """

    cache: Cache
    catalogue: Catalogue
    authorizer: Authorizer
    backend: Backend
    transport: Callable[[User | str], LocalTransport]
    configuration: Mapping[str, Any] = field(default_factory=dict)
    clock: Callable[[], float] = time.time  # seconds since the epoch
    _parts: dict[Any, Any] = field(default_factory=dict)

    def part(self, make: Callable[[Context], T]) -> T:
        """What a plugin keeps from one write to the next: made once by ``make(context)``."""
        found = self._parts.get(make)
        if found is None:
            found = self._parts[make] = make(self)
        kept: T = found
        return kept
