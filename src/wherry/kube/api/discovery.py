"""What an API server tells of itself: its groups, their resources, its version.

Pure documents made from a set of resources. Two forms of the same: the old one, a document per
group version (``/api``, ``/apis``, ``/apis/apps/v1``), and the aggregated one, all in one answer,
which clients since 1.26 ask for by the media types of ``MEDIA_TYPES``. The documents are made once
and shared: never change them.
"""

from __future__ import annotations

import base64
import hashlib
import platform
import re
import sys
from collections.abc import Iterable
from functools import cached_property
from hashlib import sha256
from typing import Any

import orjson

from wherry.kube.api.definitions import newest_version
from wherry.kube.api.resources import Resource
from wherry.kube.api.subresources import Subresource, subresource

Document = dict[str, Any]

_GROUP_ORDER = (
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "extensions",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "flowcontrol.apiserver.k8s.io",
)
"""The order upstream lists groups in. Clients take the first that has the name they look for."""

_NO_COMMIT = "0" * 40
"""git's name for no commit: ``kubectl version`` of upstream's conformance wants such digits."""


def version() -> Document:
    """``/version``. The Kubernetes version is that of the schemas served; the rest is ours."""
    number = newest_version()
    major, minor, _ = number.split(".")
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return {
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": minor,
        "gitVersion": f"v{number}",
        "gitCommit": _NO_COMMIT,
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": f"{sys.implementation.name} {platform.python_version()}",
        "platform": f"{sys.platform}/{machine}",
    }


_KUBE_VERSION = re.compile(r"v([1-9]\d*)(?:(alpha|beta)([1-9]\d*))?")


def by_preference(versions: Iterable[str]) -> tuple[str, ...]:
    """Upstream's order of versions: stable before beta before alpha, newer before older; names
    that say neither come last, by alphabet."""
    ranked, others = [], []
    for version in versions:
        match = _KUBE_VERSION.fullmatch(version)
        if match is None:
            others.append(version)
            continue
        major, stage, minor = match.groups()
        level = {"alpha": 0, "beta": 1}.get(stage, 2)
        ranked.append((level, int(major), int(minor or 0), version))
    return (*(version for *_, version in sorted(ranked, reverse=True)), *sorted(others))


def api_versions(server_address: str) -> Document:
    """``/api``. ``server_address`` is ``host:port``, where clients find this server."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [
            {"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}
        ],
    }


class Discovery:
    """The documents for a set of resources.

    Args:
        resources: all that is served.
    """

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._by_version: dict[str, list[Resource]] = {}
        for resource in sorted(resources, key=lambda r: r.plural):
            self._by_version.setdefault(resource.api_version, []).append(resource)

    @cached_property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The groups but the core, in order, each with its versions, the preferred one first."""
        found: dict[str, set[str]] = {}
        for each in self._by_version:
            group, _, version = each.rpartition("/")
            if group:
                found.setdefault(group, set()).add(version)
        known = [group for group in _GROUP_ORDER if group in found]
        others = sorted(found.keys() - set(known))
        return {group: by_preference(found[group]) for group in known + others}

    @cached_property
    def group_versions(self) -> tuple[str, ...]:
        """``v1``, ``apps/v1``, …: all that is served, the core first."""
        groups = self.groups.items()
        return ("v1", *(f"{group}/{each}" for group, versions in groups for each in versions))

    def resources_of(self, group_version: str) -> list[Resource]:
        """The resources of ``v1`` or ``apps/v1``, by name."""
        return self._by_version.get(group_version, [])

    def _group(self, name: str) -> Document:
        versions = [
            {"groupVersion": f"{name}/{each}", "version": each} for each in self.groups[name]
        ]
        return {"name": name, "versions": versions, "preferredVersion": versions[0]}

    def api_groups(self) -> Document:
        """``/apis``."""
        groups = [self._group(group) for group in self.groups]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}

    def api_group(self, name: str) -> Document | None:
        """``/apis/apps``; None where no such group is served."""
        if name not in self.groups:
            return None
        return {"kind": "APIGroup", "apiVersion": "v1", **self._group(name)}

    def resource_list(self, group_version: str) -> Document | None:
        """``/api/v1``, ``/apis/apps/v1``; None where no such version is served."""
        resources = self.resources_of(group_version)
        if not resources:
            return None
        head = {"kind": "APIResourceList"}
        if group_version != "v1":  # the core's list never carried it
            head["apiVersion"] = "v1"
        entries = [entry for resource in resources for entry in _entries(resource)]
        return {**head, "groupVersion": group_version, "resources": entries}

    def aggregated(self, root: str, version: str = "v2") -> Document:
        """``/api`` or ``/apis``, as ``root`` says, with all resources of all versions."""
        items: list[Document] = []
        served: Iterable[tuple[str, tuple[str, ...]]] = (
            [("", ("v1",))] if root == "api" else self.groups.items()
        )
        for group, versions in served:
            metadata: Document = {"creationTimestamp": None}
            if group:
                metadata["name"] = group
            items.append(
                {
                    "metadata": metadata,
                    "versions": [self._aggregated_version(group, each) for each in versions],
                }
            )
        return {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": f"apidiscovery.k8s.io/{version}",
            "metadata": {},
            "items": items,
        }

    def _aggregated_version(self, group: str, version: str) -> Document:
        resources = self.resources_of(f"{group}/{version}" if group else version)
        return {
            "version": version,
            "resources": [_aggregated_resource(resource) for resource in resources],
            "freshness": "Current",
        }

    @cached_property
    def _tagged(self) -> dict[tuple[str, str], tuple[bytes, str]]:
        return {}

    def aggregated_json(self, root: str, version: str) -> tuple[bytes, str]:
        """`aggregated` as JSON, and its ETag."""
        found = self._tagged.get((root, version))
        if found is None:
            data = orjson.dumps(self.aggregated(root, version))
            found = self._tagged[root, version] = data, sha256(data).hexdigest().upper()
        return found


def subresources_of(resource: Resource) -> list[Subresource]:
    return [subresource(resource, name) for name in sorted(resource.subresources)]


def storage_version_hash(resource: Resource) -> str:
    """A mark of the version objects are stored in, as upstream computes it."""
    resource = resource.stored_as or resource
    identity = f"{resource.group}/{resource.version}/{resource.kind}"
    return base64.b64encode(hashlib.sha256(identity.encode()).digest()[:8]).decode()


def _entries(resource: Resource) -> list[Document]:
    entry: Document = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    entry["storageVersionHash"] = storage_version_hash(resource)
    return [entry, *(_sub_entry(resource, sub) for sub in subresources_of(resource))]


def _sub_entry(resource: Resource, sub: Subresource) -> Document:
    entry: Document = {
        "name": f"{resource.plural}/{sub.name}",
        "singularName": "",
        "namespaced": resource.namespaced,
    }
    if (sub.group, sub.version) != (resource.group, resource.version):
        entry |= {"group": sub.group, "version": sub.version}
    return {**entry, "kind": sub.kind, "verbs": list(sub.verbs)}


_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList"

MEDIA_TYPES = {version: _AGGREGATED.format(version) for version in ("v2", "v2beta1")}
"""By version of the aggregated form, the media type that asks for it and answers it."""


def aggregated_version(accept: str) -> str | None:
    """The version of the aggregated form that an Accept header asks for before plain JSON."""
    for part in accept.split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        given = dict(p.split("=", 1) for p in parameters if "=" in p)
        if media != "application/json":
            continue
        if "as" not in given and "g" not in given:
            return None
        wanted = given.get("v", "")
        if (
            given.get("g") == "apidiscovery.k8s.io"
            and given.get("as") == "APIGroupDiscoveryList"
            and wanted in MEDIA_TYPES
        ):
            return wanted
    return None


def _aggregated_resource(resource: Resource) -> Document:
    entry: Document = {
        "resource": resource.plural,
        "responseKind": _kind(resource.group, resource.version, resource.kind),
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    if resource.subresources:
        entry["subresources"] = [
            {
                "subresource": sub.name,
                "responseKind": _kind(sub.group, sub.version, sub.kind),
                "verbs": list(sub.verbs),
            }
            for sub in subresources_of(resource)
        ]
    return entry


def _kind(group: str, version: str, kind: str) -> Document:
    return {"group": group, "version": version, "kind": kind}
