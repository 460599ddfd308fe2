"""What the chain answers with: values; how they look on the wire is `render`'s business."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol

from wherry.kube.api.kinds import Kind
from wherry.kube.api.resources import Resource
from wherry.kube.apiserver.objects import Object, Stored, answer


@dataclass(frozen=True, slots=True)
class Single:
    """One object. ``kind``: whose rules show it as a table; None for a Status and the like."""

    stored: Stored
    kind: Kind | None = None
    code: int = 200

    @property
    def object(self) -> Object:
        return self.stored.object


@dataclass(frozen=True)
class Collection:
    """Objects of one kind, as of a revision; ``rest`` is the token for those that follow."""

    kind: Kind
    items: Sequence[Stored]
    revision: int
    rest: str = ""
    remaining: int | None = None

    @cached_property
    def encoded(self) -> Sequence[bytes]:
        """Each object's JSON. Looked up once: there may be very many."""
        return [stored.data for stored in self.items]

    @cached_property
    def size(self) -> int:
        """What its objects take encoded, in bytes."""
        return sum(map(len, self.encoded))

    @property
    def metadata(self) -> Object:
        metadata: Object = {"resourceVersion": str(self.revision)}
        if self.rest:
            metadata["continue"] = self.rest
            if self.remaining is not None:
                metadata["remainingItemCount"] = self.remaining
        return metadata

    @property
    def object(self) -> Object:
        resource = self.kind.resource
        return {
            "kind": resource.list_kind,
            "apiVersion": resource.api_version,
            "metadata": self.metadata,
            "items": [stored.object for stored in self.items],
        }


class Seen(NamedTuple):
    """An event as one watcher sees it. ``type``: ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    stored: Stored


Take = Callable[[Sequence[Seen]], bool]
"""Sends events to a client on the spot. False, with nothing done, if it would have to wait."""


class Batches(Protocol):
    """Begins a stream of events, in batches; an empty one says that the past has been told. It
    ends when the watch does, or raises StatusError. From then on, what happens while the stream is
    waited for may be given to ``take`` instead."""

    def __call__(self, take: Take | None = None) -> AsyncGenerator[Sequence[Seen], None]: ...


@dataclass(frozen=True, slots=True)
class Watching:
    """A watch that may begin."""

    kind: Kind
    batches: Batches


@dataclass(frozen=True, slots=True)
class Document:
    """Bytes of a kind of their own: OpenAPI, a health report.

    ``compressed``: the data is gzipped already, for every client that takes it so.
    """

    data: bytes
    content_type: str = "application/json"
    code: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    compressed: bool = False


Answer = Single | Collection | Watching | Document


def success(resource: Resource, name: str, uid: str, code: int = 200) -> Single:
    """The Status of a request that leaves nothing to show."""
    details: Object = {"name": name, "kind": resource.plural, "uid": uid}
    if resource.group:
        details["group"] = resource.group
    status: Object = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    }
    if code == 201:
        status["code"] = code
    return Single(answer(status), code=code)
