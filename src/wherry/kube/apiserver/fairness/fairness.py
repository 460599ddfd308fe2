"""FlowSchemas and PriorityLevelConfigurations, followed as they change."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from wherry.kube.api.resources import FLOW_SCHEMAS, PRIORITY_LEVEL_CONFIGURATIONS
from wherry.kube.apiserver.cache import Cache, Event, ResourceCache
from wherry.kube.apiserver.fairness import widths
from wherry.kube.apiserver.fairness.levels import Level, Seats, rules
from wherry.kube.apiserver.fairness.matching import distinguisher, in_order, matches
from wherry.kube.apiserver.objects import Object
from wherry.kube.apiserver.request import Query, RequestInfo, User

_TOTAL = 600
"""Seats of all levels together: upstream's --max-requests-inflight and its mutating twin."""

_KEPT = 16384  # classifications


class Flow(NamedTuple):
    """Where a request belongs. ``headers`` tell the client so."""

    name: str
    level: Level
    headers: tuple[tuple[str, str], ...]


class Fairness:
    """Lets requests in, a few at a time."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._schemas = cache.of(FLOW_SCHEMAS)
        self._configurations = cache.of(PRIORITY_LEVEL_CONFIGURATIONS)
        self.levels: dict[str, Level] = {}
        self._classify = lru_cache(_KEPT)(self._flow)

    def follow(self) -> None:
        """Go by the objects in the cache, from now on."""
        self._schemas.listen(self._changed)
        self._configurations.listen(self._changed)
        self._read()

    def flow(self, user: User, info: RequestInfo) -> Flow | None:
        """Where the request belongs; None: no schema is about it."""
        return self._classify(user, info)

    def width(self, info: RequestInfo, query: Query) -> int:
        """How many seats the request takes."""
        if info.resource is None or info.verb not in ("list", "watch"):
            return 1
        if info.verb == "watch" and query.get("resourceVersion") not in ("", "0"):
            return 1
        resource = info.resource.stored_as or info.resource
        return widths.of_list(self._cache.of(resource).count, query.get("limit"))

    async def enter(self, flow: Flow, info: RequestInfo, query: Query) -> Seats:
        """Seats, which the request must leave.

        Raises:
            StatusError: 429.
        """
        width = self.width(info, query)
        return flow.level.at_once(width) or await flow.level.enter(flow.name, width)

    def _changed(self, event: Event) -> None:
        self._read()

    def _read(self) -> None:
        specs = {o["metadata"]["name"]: o["spec"] for o in _objects(self._configurations)}
        for name, found in rules(specs, _TOTAL).items():
            self.levels.setdefault(name, Level(name)).follow(found)
        for name in self.levels.keys() - specs.keys():
            del self.levels[name]  # who waits there is still let in
        self._classify.cache_clear()

    def _flow(self, user: User, info: RequestInfo) -> Flow | None:
        for schema in in_order(_objects(self._schemas)):
            level = self.levels.get(schema["spec"]["priorityLevelConfiguration"]["name"])
            if level is None or not matches(schema, user, info):
                continue
            configuration = self._configurations.get("", level.name)
            name = schema["metadata"]["name"]
            return Flow(
                f"{name}/{distinguisher(schema, user, info)}",
                level,
                (
                    ("X-Kubernetes-PF-FlowSchema-UID", schema["metadata"]["uid"]),
                    (
                        "X-Kubernetes-PF-PriorityLevel-UID",
                        configuration.object["metadata"]["uid"] if configuration else "",
                    ),
                ),
            )
        return None


def _objects(cache: ResourceCache) -> list[Object]:
    return [stored.object for stored in cache.list()]
