"""What admission knows of a write.

Upstream: k8s.io/apiserver/pkg/admission/interfaces.go (Attributes).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from wherry.kube.api import errors
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import Resource
from wherry.kube.apiserver.objects import Object
from wherry.kube.apiserver.options import DeleteOptions, WriteOptions
from wherry.kube.apiserver.request import APIRequest, User

Operation = Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]


@dataclass(slots=True)
class Attributes:
    """``object`` is the private copy that will be stored (None for a delete), ``old`` what is
    there now (None for a create), shared and read-only.

    Of a subresource ``object`` is what was sent there: a Binding, an Eviction, a Scale; the options
    of a CONNECT. ``options`` are those of the request, None for a CONNECT. ``warnings`` is what the
    client will be told, ``annotations`` what the audit log will. ``undo`` holds what is to be done
    if the write fails after all (each at most once, the last first).

    A mutating plugin that changed what earlier plugins have looked at may set ``reinvoke``: then
    all mutating plugins run once more, with ``reinvoking`` true. ``notes`` are what a plugin wants
    to know in the second round. ``asked`` is the resource the client named, where it is another
    version than ``resource``.
    """

    operation: Operation
    resource: Resource
    subresource: str
    namespace: str
    name: str
    user: User
    object: Object | None = None
    old: Object | None = None
    dry_run: bool = False
    options: WriteOptions | DeleteOptions | None = None
    warnings: list[str] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)
    undo: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    reinvoke: bool = False
    reinvoking: bool = False
    notes: dict[str, Any] = field(default_factory=dict)
    asked: Resource | None = None

    @property
    def new(self) -> Object:
        """``object`` where there must be one."""
        assert self.object is not None
        return self.object

    def options_object(self) -> Object | None:
        """The options as webhooks are told of them: a CreateOptions, UpdateOptions, PatchOptions or
        DeleteOptions of meta.k8s.io/v1."""
        return None if self.options is None else self.options.as_meta()

    def forbidden(self, why: str) -> StatusError:
        """403 in the words of admission."""
        name = self.name
        if not name and self.object is not None:
            name = self.object["metadata"].get("name") or self.object["metadata"].get(
                "generateName", ""
            )
        return errors.forbidden(self.resource.plural, name, why, self.resource.group)

    async def fail(self) -> None:
        """Give back what plugins took for a write that did not come about."""
        while self.undo:
            await self.undo.pop()()


def of(
    request: APIRequest,
    operation: Operation,
    new: Object | None,
    old: Object | None,
    options: WriteOptions | DeleteOptions,
    *,
    name: str | None = None,
    namespace: str | None = None,
    subresource: str | None = None,
) -> Attributes:
    """The attributes of a write; where it is about something else than the path says, so told."""
    info = request.info
    return Attributes(
        operation,
        info.served,
        info.subresource if subresource is None else subresource,
        info.namespace if namespace is None else namespace,
        info.name if name is None else name,
        request.user,
        new,
        old,
        options.dry_run,
        options,
        request.warnings,
        request.annotations,
        asked=None if request.version is None else request.version.resource,
    )
