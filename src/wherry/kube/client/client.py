"""Typed requests: which resource, which object, what to do.

Paths and query parameters are those of the Kubernetes API
(https://kubernetes.io/docs/reference/using-api/api-concepts/). What comes back may be shared with
other readers and must not be changed; copy before you change. What goes in is not changed either.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from wherry.kube.api.resources import Resource
from wherry.kube.client.transport import Object, Transport

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


_Query = list[tuple[str, str]]


class Client:
    """The API as a component uses it.

    Every method raises StatusError where the API answers with a failure, and ConnectionError where
    it cannot be reached; after a ConnectionError a write may or may not have happened.

    ``manager`` names the component in ``metadata.managedFields`` of what it writes.
    """

    def __init__(self, transport: Transport, *, manager: str = "") -> None:
        self.transport = transport
        self.manager = manager

    async def close(self) -> None:
        """Give the transport's connections back."""
        await self.transport.close()

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object:
        """The object as it is now."""
        return await self.transport.request("GET", resource.path(namespace, name))

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int | None = None,
        resource_version: str = "",
    ) -> Object:
        """The list object, with ``items`` and ``metadata.resourceVersion``.

        All namespaces without ``namespace``. Items of a real API server carry no ``kind``.
        """
        query = _selection(label_selector, field_selector)
        if limit is not None:
            query.append(("limit", str(limit)))
        if resource_version:
            query.append(("resourceVersion", resource_version))
        return await self.transport.request("GET", resource.path(namespace), query=query)

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        bookmarks: bool = False,
        timeout_seconds: int | None = None,
    ) -> AsyncIterator[tuple[str, Object]]:
        """Changes after ``resource_version`` as (ADDED | MODIFIED | DELETED | BOOKMARK, object).

        Without a version the present objects come first, as ADDED. The iterator ends when the
        server ends the watch; raises StatusError 410 where the version is no longer kept.
        """
        query = _selection(label_selector, field_selector)
        if resource_version:
            query.append(("resourceVersion", resource_version))
        if bookmarks:
            query.append(("allowWatchBookmarks", "true"))
        if timeout_seconds is not None:
            query.append(("timeoutSeconds", str(timeout_seconds)))
        return self.transport.watch(resource.path(namespace), query)

    async def create(
        self,
        resource: Resource,
        object: Object,
        namespace: str | None = None,
        *,
        name: str = "",
        subresource: str = "",
    ) -> Object:
        """Create ``object`` (in its own namespace, or ``namespace``); returns it as stored.

        With ``name`` and ``subresource``, post to that subresource: ``binding``, ``eviction``.
        """
        path = resource.path(namespace or _namespace(object), name, subresource)
        return await self.transport.request("POST", path, query=self._managed(), body=object)

    async def update(self, resource: Resource, object: Object, *, subresource: str = "") -> Object:
        """Replace the object of that name; returns it as stored.

        A stale ``metadata.resourceVersion`` is refused with 409 Conflict.
        """
        path = resource.path(_namespace(object), object["metadata"]["name"], subresource)
        return await self.transport.request("PUT", path, query=self._managed(), body=object)

    async def update_status(self, resource: Resource, object: Object) -> Object:
        """Replace the object's status, and nothing else of it; returns it as stored."""
        return await self.update(resource, object, subresource="status")

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: object,
        namespace: str | None = None,
        *,
        content_type: str = MERGE_PATCH,
        subresource: str = "",
        force: bool = False,
    ) -> Object:
        """Change what ``patch`` says; returns the object as stored.

        ``force`` takes over fields of other managers; it is for APPLY_PATCH alone.
        """
        query = self._managed()
        if force:
            query.append(("force", "true"))
        return await self.transport.request(
            "PATCH",
            resource.path(namespace, name, subresource),
            query=query,
            body=patch,
            content_type=content_type,
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: str | None = None,
        grace: int | None = None,
    ) -> Object:
        """Delete the object; returns it (where it stays for a while) or a Status.

        ``uid`` and ``resource_version`` are preconditions (409 where they do not hold);
        ``propagation`` is Background, Foreground or Orphan; ``grace`` is in seconds, 0 at once.
        """
        options = _delete_options(uid, resource_version, propagation, grace)
        return await self.transport.request("DELETE", resource.path(namespace, name), body=options)

    async def delete_collection(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        propagation: str | None = None,
        grace: int | None = None,
    ) -> Object:
        """Delete every object that the selectors take."""
        return await self.transport.request(
            "DELETE",
            resource.path(namespace),
            query=_selection(label_selector, field_selector),
            body=_delete_options(None, None, propagation, grace),
        )

    def _managed(self) -> _Query:
        return [("fieldManager", self.manager)] if self.manager else []


def _selection(label_selector: str, field_selector: str) -> _Query:
    query: _Query = []
    if label_selector:
        query.append(("labelSelector", label_selector))
    if field_selector:
        query.append(("fieldSelector", field_selector))
    return query


def _namespace(object: Mapping[str, Any]) -> str | None:
    return object["metadata"].get("namespace") or None


def _delete_options(
    uid: str | None, resource_version: str | None, propagation: str | None, grace: int | None
) -> Object:
    options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
    preconditions = {}
    if uid is not None:
        preconditions["uid"] = uid
    if resource_version is not None:
        preconditions["resourceVersion"] = resource_version
    if preconditions:
        options["preconditions"] = preconditions
    if propagation is not None:
        options["propagationPolicy"] = propagation
    if grace is not None:
        options["gracePeriodSeconds"] = grace
    return options
