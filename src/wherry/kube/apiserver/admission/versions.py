"""An object of a write in the version in which a webhook or a policy wants to see it.

``attributes.object`` is of the version that is stored; the client may have named another one
(`asked`), and who is asked about the write yet another.
"""

from __future__ import annotations

from typing import Any

from wherry.kube.api.meta import clone
from wherry.kube.api.resources import Resource
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.extensions import conversion

Object = dict[str, Any]


def asked(attributes: Attributes) -> Resource:
    """The resource that the client named."""
    return attributes.asked or attributes.resource


def _own(attributes: Attributes, o: Object | None) -> bool:
    """Whether ``o`` is of the resource itself and not of something below it (a Scale)."""
    return o is not None and o.get("kind") == attributes.resource.kind


async def shown(
    attributes: Attributes, context: Context, asked: Resource, version: Resource
) -> tuple[Object | None, Object | None]:
    """The new and the old object in ``version``; read-only. Raises StatusError 500."""
    new, old = attributes.object, attributes.old
    if version.api_version == attributes.resource.api_version:
        return new, old
    given = [o for o in (new, old) if o is not None and _own(attributes, o)]
    made = iter(await conversion.convert(context.backend, given, version))
    return (
        next(made) if _own(attributes, new) else new,
        next(made) if _own(attributes, old) else old,
    )


async def replace(
    attributes: Attributes, context: Context, asked: Resource, version: Resource, patched: Any
) -> bool:
    """Take ``patched``, of ``version``, for the object: as if the client had sent it so.

    Returns:
        Whether it is another one than before.

    Raises:
        StatusError: it is no such object any more.
    """
    before = attributes.new
    if not _own(attributes, before):
        if not isinstance(patched, dict):
            patched = {}
        attributes.object = patched
        return bool(patched != before)
    served = context.catalogue.served
    kind = served.kind(version.group, version.version, version.plural)
    assert kind is not None
    decoded: Object = kind.decode(patched).value
    decoded.setdefault("metadata", {})
    kind.default(decoded)
    stored = attributes.resource
    if version.api_version != stored.api_version:
        (decoded,) = await conversion.convert(context.backend, [decoded], stored)
        decoded = clone(decoded)
        present = served.kind(stored.group, stored.version, stored.plural)
        assert present is not None
        present.default(decoded)
    if decoded == before:
        return False
    # In place: whoever began the write holds on to this dict.
    before.clear()
    before.update(decoded)
    return True
