"""The history of StatefulSets and DaemonSets: ControllerRevisions, one for each template there was.

A revision's data is the patch that brings its template back, which is what ``kubectl rollout undo``
applies (https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/controller-revision-v1/).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import CONTROLLER_REVISIONS, Resource
from wherry.kube.client.client import Client
from wherry.kube.client.informer import Informer
from wherry.kube.client.transport import Object
from wherry.kube.controllers.hashing import template_hash
from wherry.kube.controllers.ownership import controller_reference

HASH_LABEL = "controller-revision-hash"
"""On a pod: the revision it was made from."""


def data_of(owner: Object) -> Object:
    """What a revision keeps of its owner: the patch that sets the template.

    In the form in which kubectl would write it, which compares the two byte by byte to see whether
    an undo would change anything: keys in order, and of each container its resources.
    """
    template = dict(owner["spec"]["template"])
    spec = template["spec"] = dict(template.get("spec") or {})
    for part in ("containers", "initContainers"):
        if spec.get(part):
            spec[part] = [{"resources": {}, **container} for container in spec[part]]
    template.setdefault("metadata", {})
    ordered: Object = _in_order({"spec": {"template": {**template, "$patch": "replace"}}})
    return ordered


def _in_order(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _in_order(value[key]) for key in sorted(value)}
    return [_in_order(item) for item in value] if isinstance(value, list) else value


def template_of(revision: Object) -> Object:
    """The pod template a revision keeps."""
    template = dict(revision["data"]["spec"]["template"])
    template.pop("$patch", None)
    return template


def number(revision: Object) -> int:
    """The place in history; greater is newer."""
    return int(revision.get("revision") or 0)


def ordered(revisions: Sequence[Object]) -> list[Object]:
    """From oldest to newest."""
    return sorted(
        revisions,
        key=lambda r: (number(r), r["metadata"].get("creationTimestamp") or "", meta.name(r)),
    )


def _normal(template: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = {k: v for k, v in (template.get("metadata") or {}).items() if v}
    spec = dict(template.get("spec") or {})
    for part in ("containers", "initContainers"):
        if spec.get(part):
            spec[part] = [{k: v for k, v in c.items() if v or k != "resources"} for c in spec[part]]
    return {**template, "metadata": metadata, "spec": spec, "$patch": "replace"}


def keeps_template_of(revision: Object, owner: Object) -> bool:
    """Whether the revision is that of the owner's present template."""
    kept: Object | None = ((revision.get("data") or {}).get("spec") or {}).get("template")
    return kept is not None and _normal(kept) == _normal(owner["spec"]["template"])


def make(owner: Object, resource: Resource, number: int, hash_label: str) -> Object:
    """The revision of the owner's present template; ``hash_label`` holds its hash."""
    collisions = (owner.get("status") or {}).get("collisionCount") or 0
    hash = template_hash(_normal(owner["spec"]["template"]), collisions)
    labels = (owner["spec"]["template"].get("metadata") or {}).get("labels") or {}
    metadata: Object = {
        "name": f"{meta.name(owner)[:223]}-{hash}",
        "namespace": meta.namespace(owner),
        "labels": {**labels, hash_label: hash},
        "ownerReferences": [controller_reference(owner, resource)],
    }
    if meta.annotations(owner):
        metadata["annotations"] = dict(meta.annotations(owner))
    return {
        "apiVersion": CONTROLLER_REVISIONS.api_version,
        "kind": CONTROLLER_REVISIONS.kind,
        "metadata": metadata,
        "data": data_of(owner),
        "revision": number,
    }


def obsolete(owner: Object, revisions: Sequence[Object], live: Collection[str]) -> list[Object]:
    """The oldest revisions beyond ``revisionHistoryLimit``; those named in ``live`` are in use."""
    limit = owner["spec"].get("revisionHistoryLimit")
    limit = 10 if limit is None else limit
    past = [r for r in ordered(revisions) if meta.name(r) not in live]
    return past[: max(0, len(past) - limit)]


class Collision(Exception):
    """A revision of another template has the name; count it, which changes the hash."""


class Histories:
    """Writes the revisions of one kind of owner.

    Args:
        revisions: informer of ControllerRevisions.
        hash_label: under which label a revision has its hash.
    """

    def __init__(
        self, client: Client, revisions: Informer, resource: Resource, hash_label: str
    ) -> None:
        self._client = client
        self._revisions = revisions
        self._resource = resource
        self._hash_label = hash_label

    async def current(self, owner: Object, revisions: Sequence[Object]) -> Object:
        """The revision of the owner's template, the newest of ``revisions`` once this returns.

        A template that comes back gets its old revision, with a new number.

        Raises:
            Collision: the name is taken by another template's.
        """
        known = ordered(revisions)
        newest = number(known[-1]) if known else 0
        same = [r for r in known if keeps_template_of(r, owner)]
        if not same:
            return await self._create(owner, newest + 1)
        found = same[-1]
        if number(found) == newest:
            return found
        return await self._write({**found, "revision": newest + 1})

    async def truncate(
        self, owner: Object, revisions: Sequence[Object], live: Collection[str]
    ) -> None:
        """Delete the revisions beyond the limit."""
        await asyncio.gather(*map(self._delete, obsolete(owner, revisions, live)))

    async def _create(self, owner: Object, number: int) -> Object:
        body = make(owner, self._resource, number, self._hash_label)
        try:
            made = await self._client.create(CONTROLLER_REVISIONS, body)
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise
            made = await self._client.get(
                CONTROLLER_REVISIONS, meta.name(body), meta.namespace(owner)
            )
            if not (meta.is_controlled_by(made, owner) and keeps_template_of(made, owner)):
                raise Collision(meta.name(body)) from error
        await self._revisions.reached(made)
        return made

    async def _write(self, revision: Object) -> Object:
        written = await self._client.update(CONTROLLER_REVISIONS, revision)
        await self._revisions.reached(written)
        return written

    async def _delete(self, revision: Object) -> None:
        try:
            await self._client.delete(
                CONTROLLER_REVISIONS,
                meta.name(revision),
                meta.namespace(revision),
                uid=meta.uid(revision),
            )
        except StatusError as error:
            if error.code != 404:
                raise
