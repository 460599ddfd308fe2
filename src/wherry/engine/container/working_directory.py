"""The directory that a container works in: made where its image has none.

It is there from the creation on, so that files can be copied into it before the first start, and
it is made again at each start, as it may have been removed meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wherry.engine.container import confined
from wherry.engine.container.container import Container
from wherry.engine.container.remapping import Remapping
from wherry.engine.container.view import View, plan
from wherry.engine.errors import BadParameter, EngineError
from wherry.host.syscalls import file_system_identity


def make_at_creation(container: Container, layers: Sequence[Path]) -> None:
    """Make it in the root file system of a container that has never run; blocks.

    Raises:
        BadParameter: there is a file where it should be.
        EngineError: it cannot be made.
    """
    with View(plan(container, layers)) as view:
        make(Path(f"/proc/self/fd/{view.root}"), container.config["WorkingDir"])


def make(rootfs: Path, directory: str, remapping: Remapping | None = None) -> None:
    """Make it in a root file system that is mounted, whose ids may be mapped; blocks.

    Raises:
        BadParameter: there is a file where it should be.
        EngineError: it cannot be made.
    """
    try:
        if remapping is None:
            confined.make_directories(rootfs, directory)
        else:
            # The host's root is nobody there.
            with file_system_identity(*remapping.root):
                confined.make_directories(rootfs, directory, *remapping.root)
    except NotADirectoryError:
        raise BadParameter(
            f"failed to create working directory {directory}: not a directory"
        ) from None
    except OSError as error:
        raise EngineError(f"failed to create working directory {directory}: {error}") from None
