"""The resources that users define, for controllers that concern themselves with all there are.

The definitions themselves are watched, so a controller hears of a new resource as soon as it is
established, and of its end when its definition goes.
"""

from __future__ import annotations

from collections.abc import Callable

from wherry.kube.api import meta
from wherry.kube.api.resources import CUSTOM_RESOURCE_DEFINITIONS, Resource
from wherry.kube.client.informer import Informer, SharedInformers
from wherry.kube.client.transport import Object


class DefinedResources:
    """Calls ``join`` and ``leave`` as defined resources come and go.

    Args:
        definitions: the informer of CustomResourceDefinitions.
        informers: where a resource's informer ends with it.
    """

    def __init__(
        self,
        definitions: Informer,
        informers: SharedInformers,
        *,
        join: Callable[[Resource], None],
        leave: Callable[[Resource], None],
    ) -> None:
        assert definitions.resource == CUSTOM_RESOURCE_DEFINITIONS
        self._informers = informers
        self._join, self._leave = join, leave
        self._known: dict[str, Resource] = {}
        definitions.add_handlers(
            on_add=self._put, on_update=lambda _, crd: self._put(crd), on_delete=self._drop
        )

    def _put(self, crd: Object) -> None:
        from wherry.kube.api.custom.definition import kinds_of

        served = [kind.resource for kind in kinds_of(crd) if not kind.resource.hidden]
        known = self._known.get(meta.name(crd))
        if known is not None and known not in served:
            self._end(meta.name(crd))
            known = None
        if known is None and served:
            self._known[meta.name(crd)] = served[0]
            self._join(served[0])

    def _drop(self, crd: Object) -> None:
        if meta.name(crd) in self._known:
            self._end(meta.name(crd))

    def _end(self, name: str) -> None:
        resource = self._known.pop(name)
        self._leave(resource)
        self._informers.drop(resource)
