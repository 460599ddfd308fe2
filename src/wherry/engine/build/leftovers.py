"""What the builds of an engine that was killed have left: their containers, and their files.

Apart from the builder, so that an engine without leftovers starts without it.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from wherry.engine.errors import EngineError

if TYPE_CHECKING:
    from wherry.engine.container.service import Containers

log = logging.getLogger(__name__)

# The annotation of a build's containers. Its value names the build's directory: as long as that is
# there the build is under way, or was when the engine was killed.
ANNOTATION = "org.wherry.build"


def temporary(root: Path) -> Path:
    """Where builds have their directories."""
    return root / "tmp"


def found(root: Path) -> bool:
    """Whether there is anything to sweep."""
    directory = temporary(root)
    return directory.exists() and any(directory.iterdir())


async def sweep(root: Path, containers: Containers) -> None:
    """Remove the containers of builds that nobody waits for, then the directories of these."""
    builds = {directory.name: directory for directory in temporary(root).iterdir()}
    for container in containers.store.all():
        if (container.host_config.get("Annotations") or {}).get(ANNOTATION) in builds:
            try:
                await containers.remove(container.id, force=True, volumes=True)
            except EngineError as error:
                log.error("removing %s of a build: %s", container.id[:12], error.message)
    for directory in builds.values():
        await asyncio.to_thread(shutil.rmtree, directory, True)
