"""What is served: the kinds of the static table, and those that join and leave at run time.

A server has one `Catalogue`. What it holds at a moment is a `Served`, which never changes: whoever
derives something from it (parsed paths, discovery, OpenAPI) may keep that as long as the `Served`
is the present one. Custom resources come from their definitions, as groups of kinds with one owner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property

from wherry.kube.api.conversion import VERSIONS
from wherry.kube.api.discovery import Discovery
from wherry.kube.api.kinds import KINDS, Kind
from wherry.kube.api.openapi import OpenAPI
from wherry.kube.api.resources import Resource


class Served:
    """All kinds that are served at a moment. Immutable; equal only to itself."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._by_plural: dict[tuple[str, str, str], Kind] = {}
        for kind in kinds:
            r = kind.resource
            self._by_plural.setdefault((r.group, r.version, r.plural), kind)

    @property
    def kinds(self) -> Iterable[Kind]:
        return self._by_plural.values()

    @cached_property
    def resources(self) -> tuple[Resource, ...]:
        return tuple(kind.resource for kind in self._by_plural.values())

    @cached_property
    def _by_kind(self) -> dict[tuple[str, str, str], Kind]:
        return {
            (k.resource.group, k.resource.version, k.resource.kind): k
            for k in self._by_plural.values()
        }

    def kind(self, group: str, version: str, plural: str) -> Kind | None:
        """The kind behind a path, or None."""
        kind = self._by_plural.get((group, version, plural))
        return None if kind is None or kind.resource.hidden else kind

    def resource(self, group: str, version: str, plural: str) -> Resource | None:
        """The resource behind a path, or None."""
        kind = self.kind(group, version, plural)
        return None if kind is None else kind.resource

    def by_kind(self, group: str, version: str, kind: str) -> Kind | None:
        """The kind that objects with that ``apiVersion`` and ``kind`` are of, or None."""
        return self._by_kind.get((group, version, kind))

    @cached_property
    def discovery(self) -> Discovery:
        return Discovery(r for r in self.resources if not r.hidden)

    @cached_property
    def openapi(self) -> OpenAPI:
        return OpenAPI(self.discovery, self.kinds)


STATIC = Served([*KINDS.values(), *VERSIONS])
"""What every server serves, before any definition."""

Listener = Callable[[Served, Served], None]
"""Called with what was served before and what is now."""


class Catalogue:
    """The kinds one server serves. Changes take effect at once, and before `replace` returns."""

    def __init__(self, static: Served = STATIC) -> None:
        self._static = static
        self._joined: dict[str, tuple[Kind, ...]] = {}
        self._listeners: list[Listener] = []
        self.served = static

    def listen(self, listener: Listener) -> None:
        """Have ``listener`` called at every change, in order of registration."""
        self._listeners.append(listener)

    def replace(self, owner: str, kinds: Iterable[Kind]) -> None:
        """What ``owner`` brings from now on; nothing where ``kinds`` is empty.

        A path that the static table or an earlier owner has stays theirs.
        """
        given = tuple(kinds)
        if given:
            self._joined[owner] = given
        elif self._joined.pop(owner, None) is None:
            return
        before = self.served
        joined = (kind for kinds in self._joined.values() for kind in kinds)
        self.served = Served([*self._static.kinds, *joined])
        for listener in self._listeners:
            listener(before, self.served)
