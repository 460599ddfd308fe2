"""A container that is being made takes possession of its volumes, making those that are missing.

An empty volume is filled with what the image has at its place. Whatever fails, volumes that were
made for this container alone go again; those with a name stay, as the user may want them.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import stat
from collections.abc import Iterable, Sequence

from wherry.engine.container.container import Container, MountPoint
from wherry.engine.container.mounts import Wanted
from wherry.engine.errors import Conflict, EngineError, NotFound
from wherry.engine.image.image import Image
from wherry.engine.image.store import ImageStore
from wherry.engine.volume.volume import ANONYMOUS_LABEL, DRIVER
from wherry.engine.volume.volumes import Volumes, new_name
from wherry.host.beneath import open_beneath
from wherry.runtime.rootfs import open_layers

log = logging.getLogger(__name__)


class VolumeClaims:
    """Claims volumes for containers."""

    def __init__(self, volumes: Volumes, images: ImageStore) -> None:
        self._volumes = volumes
        self._images = images

    async def claim(self, container: Container, wanted: Sequence[Wanted], image: Image) -> None:
        """Make ``container.mounts`` of what is ``wanted``; its home exists, its document not yet.

        ``settle`` must follow when the document is written, ``abandon`` when it will not be.

        Raises:
            BadParameter: a volume cannot be called so, or a file of the image is in the way.
            NotFound: there is no such volume driver, or no such image to mount.
            EngineError: a volume cannot be made, mounted or filled.
        """
        for one in wanted:
            if one.point.anonymous and not one.point.name:
                one.point.name, one.made = new_name(), True
        if made := _made(wanted):
            self._volumes.begin_claim(container.id, made)
        for one in wanted:
            point = one.point
            if point.type == "image":
                point.image_id = self._images.resolve(point.name).id
            if point.type == "volume":
                self._take(container, one)
            container.mounts.append(point)
        filled = [point for point in container.mounts if point.type == "volume" and point.copy]
        if filled:
            await self._fill(container, filled, image)

    def _take(self, container: Container, one: Wanted) -> None:
        point = one.point
        labels = {**(one.labels or {}), ANONYMOUS_LABEL: ""} if one.made else one.labels
        # Another container may be about to let it go.
        self._volumes.use(point.name, container.id)
        volume = self._volumes.create(
            point.name, point.driver, labels=labels, options=one.driver_options
        )
        point.driver, point.source = DRIVER, str(volume.path)

    async def _fill(self, container: Container, points: Iterable[MountPoint], image: Image) -> None:
        layers = self._images.layers(image)
        container.rootfs.mkdir(mode=0o755)
        root = await asyncio.to_thread(open_layers, layers, container.rootfs)
        try:
            for point in points:
                if _is_directory(root, container, point):
                    await self._volumes.populate(
                        point.name,
                        container.id,
                        root,
                        point.destination,
                        subpath=point.subpath,
                    )
        finally:
            os.close(root)

    def settle(self, container: Container, wanted: Sequence[Wanted]) -> None:
        """The document of ``container`` is on disk."""
        if _made(wanted):
            self._volumes.end_claim(container.id)

    def abandon(self, container: Container, wanted: Sequence[Wanted]) -> None:
        """It could not be made: let the volumes go, and remove those that nobody else knows."""
        for one in wanted:
            if one.point.type == "volume":
                self._volumes.drop(one.point.name, container.id)
        if made := _made(wanted):
            for name in made:
                self._volumes.discard(name)
            self._volumes.end_claim(container.id)

    async def remove_anonymous(self, container: Container) -> None:
        """Remove the volumes without a name that no other container has."""
        for point in container.mounts:
            if point.type == "volume" and point.anonymous:
                self._volumes.drop(point.name, container.id)
                try:
                    await self._volumes.remove(point.name)
                except (Conflict, NotFound):
                    continue  # another has it, or it is gone already
                except EngineError as error:
                    log.error("removing a volume of %s: %s", container.id[:12], error.message)

    def release(self, container: Container) -> None:
        """``container`` is gone, its volumes may go as well."""
        for point in container.mounts:
            if point.type == "volume":
                self._volumes.drop(point.name, container.id)


def _made(wanted: Iterable[Wanted]) -> list[str]:
    return [one.point.name for one in wanted if one.made]


def _is_directory(root: int, container: Container, point: MountPoint) -> bool:
    """Whether the image has something to fill the volume of ``point`` with.

    Raises:
        EngineError: it has a file there.
    """
    try:
        descriptor = open_beneath(root, point.destination.lstrip("/"), os.O_PATH)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise EngineError(f"cannot look at {point.destination} of the image: {error}") from error
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            return True
    finally:
        os.close(descriptor)
    path = container.rootfs / point.destination.lstrip("/")
    if point.anonymous:
        raise EngineError(f"cannot mount volume over existing file, file exists {path}")
    raise EngineError(f"source {path} is not directory")
