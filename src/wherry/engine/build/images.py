"""Making the image of one step."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from wherry.engine.image.image import Image
from wherry.engine.image.manifest import Platform
from wherry.engine.image.store import ImageStore
from wherry.engine.image.tar_writer import END
from wherry.engine.image.threads import in_thread, stream_from

# What an image hands on to its containers.
INHERITED = (
    *("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Healthcheck", "ArgsEscaped"),
    *("Volumes", "WorkingDir", "Labels", "OnBuild", "StopSignal", "Shell"),
)


def inherited(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a container's configuration that an image has, without what says nothing."""
    chosen = {name: config[name] for name in INHERITED if config.get(name)}
    # An empty command is one: `CMD []` takes away what the base image runs.
    empty: dict[str, Any] = {name: [] for name in ("Cmd", "Entrypoint") if config.get(name) == []}
    return chosen | empty


def document(
    base: Image | None,
    platform: Platform,
    settings: Mapping[str, Any],
    *,
    created_by: str,
    author: str = "",
    comment: str = "",
    empty: bool = False,
    container: str = "",
    container_config: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The OCI image config of ``base`` and one step; ``empty`` where it has changed no file.

    ``container_config`` are the settings of the step's container, as the API showed them until
    1.44.
    """
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    step: dict[str, Any] = {
        "created": created,
        "created_by": created_by,
        "author": author,
        "comment": comment,
        "empty_layer": empty,
    }
    history = (base.config.get("history") or []) if base is not None else []
    made: dict[str, Any] = {
        "architecture": platform.architecture,
        "os": platform.os,
        "variant": platform.variant,
        "created": created,
        "author": author,
        "comment": comment,
        "container": container,
        "container_config": container_config,
        "history": [*history, {name: value for name, value in step.items() if value}],
    }
    return {name: value for name, value in made.items() if value} | {"config": dict(settings)}


async def add(
    images: ImageStore,
    base: Image | None,
    config: Mapping[str, Any],
    layer: Iterator[bytes] | None,
    reference: str = "",
) -> Image:
    """The image with ``config`` and the layers of ``base``, and one more where ``layer`` has any
    member; the history entry is marked where it has none."""
    tars: Sequence[AsyncIterator[bytes]] = ()
    try:
        first = await in_thread(next, layer, END) if layer is not None else END
        if first != END and layer is not None:
            tars = [_with_first(first, layer)]
        else:
            config = _marked_empty(config)
        return await images.add_layered(
            config,
            base=base,
            tars=tars,
            parent=base.id if base is not None and images.exists(base.id) else "",
            reference=reference,
        )
    finally:
        if layer is not None:
            await in_thread(cast(Any, layer).close)


def _marked_empty(config: Mapping[str, Any]) -> dict[str, Any]:
    *before, last = config["history"]
    return {**config, "history": [*before, {**last, "empty_layer": True}]}


async def _with_first(first: bytes, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in stream_from(pieces):
        yield piece
