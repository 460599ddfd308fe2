"""`docker commit`: an image of what a container has changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from wherry.engine.container.container import Container
from wherry.engine.container.merge import merge_environment
from wherry.engine.errors import Conflict
from wherry.engine.image.changeset import layer_archive
from wherry.engine.image.image import Image
from wherry.engine.image.tar_writer import END
from wherry.engine.image.threads import in_thread, stream_from

if TYPE_CHECKING:
    from wherry.engine.container.service import Containers

# What an image hands on to its containers.
_INHERITED = (
    *("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Healthcheck", "ArgsEscaped"),
    *("Volumes", "WorkingDir", "Labels", "OnBuild", "StopSignal", "Shell"),
)


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """``config`` overrules the container's own, None for that as it is; then come ``changes``."""

    reference: str = ""
    author: str = ""
    comment: str = ""
    config: Mapping[str, Any] | None = None
    changes: Sequence[str] = ()
    pause: bool = True


async def commit(containers: Containers, container: Container, request: CommitRequest) -> str:
    """Make the image; returns its id.

    Raises:
        BadParameter: an instruction or the reference is wrong.
        Conflict: the container is being removed.
    """
    if container.state.dead:
        raise Conflict(f"You cannot commit container {container.id} which is dead")
    if container.state.removing:
        raise Conflict(f"You cannot commit container {container.id} which is being removed")
    settings = commit_settings(container.config, request.config, request.changes)
    async with containers.held_still(container, pause=request.pause):
        pieces = layer_archive(container.layers / "upper")
        try:
            upper = container.layers / "upper"
            first = await in_thread(next, pieces) if upper.exists() else END
            empty = first == END
            base = containers.images.by_id(container.image_id)
            image = await containers.images.add_layered(
                config_document(container, base, settings, request, empty=empty),
                base=base,
                tars=() if empty else [_with_first(first, pieces)],
                parent=base.id if containers.images.exists(base.id) else "",
                reference=request.reference,
            )
        finally:
            await in_thread(cast(Any, pieces).close)
    attributes = {"comment": request.comment, "imageID": image.id, "imageRef": request.reference}
    containers.lifecycle.publish(container, "commit", attributes)
    return image.id


def commit_settings(
    own: Mapping[str, Any], given: Mapping[str, Any] | None, changes: Sequence[str]
) -> dict[str, Any]:
    """The settings of the image: what was given, changed, and completed from the container's."""
    settings = inherited(own if given is None else given)
    if changes:
        from wherry.engine.image import changes as instructions

        settings = instructions.apply(settings, changes)
    mine = inherited(own)
    if not settings.get("Entrypoint"):
        if not settings.get("Cmd"):
            settings["Cmd"] = mine.get("Cmd")
        if settings.get("Entrypoint") is None:
            settings["Entrypoint"] = mine.get("Entrypoint")
    settings["Env"] = merge_environment(mine.get("Env") or [], settings.get("Env") or [])
    for name in ("ExposedPorts", "Volumes", "Labels"):
        settings[name] = {**(mine.get(name) or {}), **(settings.get(name) or {})}
    for name in ("User", "WorkingDir", "StopSignal", "Healthcheck", "Shell"):
        settings[name] = settings.get(name) or mine.get(name)
    return inherited(settings)


def inherited(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a container's configuration that an image has, without what says nothing."""
    return {name: config[name] for name in _INHERITED if config.get(name)}


def config_document(
    container: Container,
    base: Image,
    settings: Mapping[str, Any],
    request: CommitRequest,
    *,
    empty: bool,
) -> dict[str, Any]:
    """The OCI image config; ``empty`` where the container has changed no file."""
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    step: dict[str, Any] = {
        "created": created,
        "created_by": " ".join(container.config["Cmd"] or ()),
        "author": request.author,
        "comment": request.comment,
    }
    step = {name: value for name, value in step.items() if value}
    if empty:
        step["empty_layer"] = True
    platform = base.platform
    document: dict[str, Any] = {
        "architecture": platform.architecture,
        "os": platform.os,
        "created": created,
        "container": container.id,
        "config": dict(settings),
        "history": [*(base.config.get("history") or []), step],
    }
    for name, value in (
        ("variant", platform.variant),
        ("author", request.author),
        ("comment", request.comment),
    ):
        if value:
            document[name] = value
    return document


async def _with_first(first: bytes, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in stream_from(pieces):
        yield piece
