"""The APIServices that are there: which group versions are served elsewhere, and their order."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from wherry.kube.api import conditions
from wherry.kube.api.discovery import by_preference
from wherry.kube.api.resources import API_SERVICES
from wherry.kube.apiserver.cache import Cache, Event
from wherry.kube.apiserver.objects import Object

_FIRST = "apiregistration.k8s.io"  # no APIService tells of it: it is what they are


@dataclass(frozen=True, slots=True)
class Remote:
    """A group version that the server behind a Service serves.

    ``authority`` is what its certificate must come from, PEM; ``available`` whether it answered
    when it was last looked at.
    """

    name: str
    uid: str
    group: str
    version: str
    namespace: str
    service: str
    port: int
    authority: bytes
    insecure: bool
    available: bool

    @property
    def group_version(self) -> str:
        return f"{self.group}/{self.version}"

    @property
    def host(self) -> str:
        """What its certificate must be for."""
        return f"{self.service}.{self.namespace}.svc"


def remote_of(o: Object) -> Remote | None:
    """What an APIService tells of; None where that is served here."""
    spec = o.get("spec") or {}
    service = spec.get("service")
    if service is None or not spec.get("group"):
        return None
    try:
        authority = base64.b64decode(spec.get("caBundle") or "")
    except binascii.Error:
        authority = b"not base64"
    return Remote(
        o["metadata"]["name"],
        o["metadata"].get("uid", ""),
        spec["group"],
        spec.get("version", ""),
        service.get("namespace", ""),
        service.get("name", ""),
        service.get("port") or 443,
        authority,
        bool(spec.get("insecureSkipTLSVerify")),
        conditions.is_true(o, "Available"),
    )


class Services:
    """Follows the APIServices."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._listeners: list[Callable[[str], None]] = []
        self.routes: dict[tuple[str, str], Remote] = {}
        """By group and version."""
        self.by_name: dict[str, Remote] = {}

    def follow(self) -> None:
        """Know those that are there, and keep to their events from now on."""
        held = self._cache.of(API_SERVICES)
        for stored in held.list():
            self._put(stored.key, stored.object)
        held.listen(self._happened)

    def listen(self, listener: Callable[[str], None]) -> None:
        """Call ``listener`` with the name of each APIService that changes or goes."""
        self._listeners.append(listener)

    def get(self, name: str) -> Object | None:
        """The APIService of that name: shared, read-only."""
        stored = self._cache.of(API_SERVICES).get("", name)
        return None if stored is None else stored.object

    def list(self) -> Iterable[Object]:
        """All APIServices."""
        return [stored.object for stored in self._cache.of(API_SERVICES).list()]

    def _happened(self, event: Event) -> None:
        self._put(event.key, event.current.object if event.current else None)
        for listener in self._listeners:
            listener(event.key)

    def _put(self, name: str, o: Object | None) -> None:
        before = self.by_name.pop(name, None)
        if before is not None:
            self.routes.pop((before.group, before.version), None)
        remote = None if o is None else remote_of(o)
        if remote is not None:
            self.by_name[name] = self.routes[remote.group, remote.version] = remote


def order(
    local: Mapping[str, Iterable[str]], services: Iterable[Object]
) -> dict[str, tuple[str, ...]]:
    """All groups in the order clients see, each with its versions, the preferred one first.

    Args:
        local: what is served here.
        services: the APIServices; where they say nothing, a group comes last.
    """
    group_priority: dict[str, int] = {}
    version_priority: dict[tuple[str, str], int] = {}
    versions = {group: set(each) for group, each in local.items()}
    for o in services:
        spec = o.get("spec") or {}
        group, version = spec.get("group", ""), spec.get("version", "")
        if not group:
            continue
        if spec.get("service") is not None:
            versions.setdefault(group, set()).add(version)
        least = spec.get("groupPriorityMinimum", 0)
        group_priority[group] = max(least, group_priority.get(group, 0))
        version_priority[group, version] = spec.get("versionPriority", 0)
    group_priority[_FIRST] = 1 << 31

    def ordered(group: str) -> tuple[str, ...]:
        preferred = by_preference(versions[group])
        return tuple(sorted(preferred, key=lambda v: -version_priority.get((group, v), 0)))

    names = sorted(versions, key=lambda group: (-group_priority.get(group, 0), group))
    return {group: ordered(group) for group in names}
