"""Who belongs to whom: adoption and release of dependents by label selector.

As upstream's ControllerRefManager: a controller owns an object through the reference with
``controller: true``. It adopts orphans its selector takes and lets go of its own that it no longer
takes; an object that is being deleted, on either side, is left as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import Resource
from wherry.kube.api.selectors import LabelSelector
from wherry.kube.client.client import Client
from wherry.kube.client.informer import Informer
from wherry.kube.client.transport import Object
from wherry.kube.controllers.ownership import ORPHANS, controller_reference


@dataclass(slots=True)
class Claim:
    """What an owner has, should take, and should let go."""

    owned: list[Object] = field(default_factory=list)
    adopt: list[Object] = field(default_factory=list)
    release: list[Object] = field(default_factory=list)


def claim(owner: Object, selector: LabelSelector, candidates: Iterable[Object]) -> Claim:
    """Sort the objects that are the owner's or nobody's; those of others are passed over."""
    result = Claim()
    leaving = meta.is_deleting(owner)
    for object in candidates:
        controller = meta.controller_of(object)
        takes = selector.matches(meta.labels(object))
        if controller is None:
            if takes and not leaving and not meta.is_deleting(object):
                result.adopt.append(object)
        elif controller.get("uid") == meta.uid(owner):
            if takes:
                result.owned.append(object)
            elif not leaving:
                result.release.append(object)
    return result


async def claim_dependents(
    client: Client,
    owner: Object,
    kind: Resource,
    selector: LabelSelector,
    dependents: Informer,
    *,
    accepts: Callable[[Object], bool] = lambda dependent: True,
) -> list[Object]:
    """The objects of ``dependents`` that ``owner``, of ``kind``, owns once it has adopted and
    released what it should. Those that ``accepts`` refuses are neither.

    Needs the index ``controller`` (``ownership.by_controller``) on ``dependents``.
    """
    candidates = dependents.by_index("controller", meta.uid(owner))
    candidates += dependents.by_index("controller", ORPHANS + meta.namespace(owner))
    found = claim(owner, selector, filter(accepts, candidates))
    if not found.adopt and not found.release:
        return found.owned
    if found.adopt:
        # Not on the word of a copy: an owner deleted with ``orphan`` must not take them back.
        fresh = await client.get(kind, meta.name(owner), meta.namespace(owner))
        if meta.uid(fresh) != meta.uid(owner) or meta.is_deleting(fresh):
            found.adopt.clear()
    reference = controller_reference(owner, kind)
    adopted = await asyncio.gather(
        *(_own(client, dependents, o, [*meta.owner_references(o), reference]) for o in found.adopt)
    )
    await asyncio.gather(
        *(
            _own(
                client,
                dependents,
                o,
                [r for r in meta.owner_references(o) if r["uid"] != meta.uid(owner)],
            )
            for o in found.release
        )
    )
    return found.owned + [o for o in adopted if o is not None]


async def _own(
    client: Client, informer: Informer, object: Object, references: list[Object]
) -> Object | None:
    """Set the owners of ``object``, unless it changed or is gone."""
    patch = {
        "metadata": {
            "uid": meta.uid(object),
            "resourceVersion": meta.resource_version(object),
            "ownerReferences": references or None,
        }
    }
    try:
        written = await client.patch(
            informer.resource, meta.name(object), patch, meta.namespace(object)
        )
    except StatusError as error:
        if error.code == 404:
            return None
        raise
    await informer.reached(written)
    return written
