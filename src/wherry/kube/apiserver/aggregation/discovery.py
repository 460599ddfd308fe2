"""What is served here and elsewhere, told as one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from wherry.kube.api.discovery import Discovery
from wherry.kube.apiserver.aggregation.services import order
from wherry.kube.apiserver.objects import Object

Document = dict[str, Any]

ACCEPT = ",".join(
    (
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        "application/json",
    )
)


class Merged(Discovery):
    """The documents of the local resources and of those of other servers.

    Args:
        services: all APIServices.
        elsewhere: by group version, the entry of a version that another server serves.
    """

    def __init__(
        self, local: Discovery, services: Iterable[Object], elsewhere: Mapping[str, Document]
    ) -> None:
        super().__init__(())
        self._by_version = local._by_version
        self._local = local
        self._services = list(services)
        self._elsewhere = elsewhere

    @cached_property
    def groups(self) -> dict[str, tuple[str, ...]]:
        return order(self._local.groups, self._services)

    def _aggregated_version(self, group: str, version: str) -> Document:
        found = self._elsewhere.get(f"{group}/{version}")
        return super()._aggregated_version(group, version) if found is None else found


def version_entry(version: str, resources: Sequence[Document], *, stale: bool) -> Document:
    """A version as aggregated discovery has it."""
    return {
        "version": version,
        "resources": list(resources),
        "freshness": "Stale" if stale else "Current",
    }


def resources_in(document: Object, group: str, version: str) -> list[Document] | None:
    """The resources that an APIGroupDiscoveryList has for a group version; None: it has not."""
    for item in document.get("items") or ():
        if (item.get("metadata") or {}).get("name", "") == group:
            for each in item.get("versions") or ():
                if each.get("version") == version:
                    return list(each.get("resources") or ())
    return None


def from_list(document: Object, group: str, version: str) -> list[Document]:
    """The resources of an APIResourceList, in the form of aggregated discovery."""
    found: dict[str, Document] = {}
    entries = document.get("resources") or ()
    for entry in entries:
        name = entry.get("name", "")
        kind = {
            "group": entry.get("group") or group,
            "version": entry.get("version") or version,
            "kind": entry.get("kind", ""),
        }
        if "/" in name:
            parent, _, below = name.partition("/")
            if parent in found:
                found[parent].setdefault("subresources", []).append(
                    {"subresource": below, "responseKind": kind, "verbs": entry.get("verbs") or []}
                )
            continue
        resource: Document = {
            "resource": name,
            "responseKind": kind,
            "scope": "Namespaced" if entry.get("namespaced") else "Cluster",
            "singularResource": entry.get("singularName") or kind["kind"].lower(),
            "verbs": entry.get("verbs") or [],
        }
        for field in ("shortNames", "categories"):
            if entry.get(field):
                resource[field] = entry[field]
        found[name] = resource
    return list(found.values())
