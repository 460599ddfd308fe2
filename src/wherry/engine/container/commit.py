"""`docker commit`: an image of what a container has changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wherry.engine.build.images import add, document, inherited
from wherry.engine.container.container import Container
from wherry.engine.container.merge import merge_environment
from wherry.engine.errors import Conflict
from wherry.engine.image.changeset import layer_archive

if TYPE_CHECKING:
    from wherry.engine.container.service import Containers


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
        upper = container.layers / "upper"
        base = containers.images.by_id(container.image_id)
        config = document(
            base,
            base.platform,
            settings,
            created_by=" ".join(container.config["Cmd"] or ()),
            author=request.author,
            comment=request.comment,
            container=container.id,
            container_config=container.config,
        )
        config["container_config"] = container.config  # shown until API 1.44
        layer = layer_archive(upper) if upper.exists() else None
        image = await add(containers.images, base, config, layer, request.reference)
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
