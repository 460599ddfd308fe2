"""What admission knows of a write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wherry.kube.api import errors
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import Resource
from wherry.kube.apiserver.objects import Object
from wherry.kube.apiserver.request import User


@dataclass(slots=True)
class Attributes:
    """``object`` is the private copy that will be stored (None for a delete), ``old`` what is
    there now (None for a create)."""

    operation: Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]
    resource: Resource
    subresource: str
    namespace: str
    name: str
    user: User
    object: Object | None = None
    old: Object | None = None
    dry_run: bool = False

    def is_for(self, resource: Resource, *operations: str, subresource: str = "") -> bool:
        return (
            self.resource is resource
            and self.subresource == subresource
            and (not operations or self.operation in operations)
        )

    def forbidden(self, why: str) -> StatusError:
        """403 in the words of admission."""
        name = self.name
        if not name and self.object is not None:
            name = self.object["metadata"].get("name") or self.object["metadata"].get(
                "generateName", ""
            )
        return errors.forbidden(self.resource.plural, name, why, self.resource.group)
