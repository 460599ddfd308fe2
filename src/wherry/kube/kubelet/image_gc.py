"""Remove images that no container uses when the disk fills, oldest use first.

As upstream's kubelet: nothing below ``imageGCHighThresholdPercent`` of the disk; from there on as
much as brings it to the low threshold. An image in use, by any container of the engine, and one
younger than ``imageMinimumGCAge`` stay; so do the images of sandboxes. What a user has built is no
exception, but under pressure only. https://kubernetes.io/docs/concepts/architecture/garbage-collection/
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from wherry.engine.cri.types import ContainerRuntime, CRIError, Image
from wherry.kube.api import quantity
from wherry.kube.kubelet.config import Settings

log = logging.getLogger(__name__)

PERIOD = 300.0
PINNED = ("wherry/pause", "wherry.io/pause", "wherry.io/busybox")


def to_free(capacity: int, available: int, high: int, low: int) -> int:
    """How many bytes must go: nothing while less than ``high`` per cent is used."""
    if high >= 100 or not capacity or (capacity - available) * 100 < high * capacity:
        return 0
    return max(0, capacity * (100 - low) // 100 - available)


def candidates(
    images: Sequence[Image],
    used: Collection[str],
    last_used: dict[str, float],
    first_seen: dict[str, float],
    now: float,
    minimum_age: float,
) -> list[Image]:
    """Those that may go, in the order in which they do; ``used`` are ids."""
    found = [
        image
        for image in images
        if image.id not in used
        and not any(tag.startswith(PINNED) for tag in image.repo_tags)
        and now - first_seen.get(image.id, now) >= minimum_age
    ]
    return sorted(found, key=lambda i: (last_used.get(i.id, 0.0), first_seen.get(i.id, 0.0)))


class ImageCollector:
    """Knows since when images are there and when they were last used."""

    def __init__(
        self,
        settings: Settings,
        runtime: ContainerRuntime,
        disk: Path,
        tell: Callable[[str, str, str], None],
    ) -> None:
        self._settings = settings
        self._runtime = runtime
        self._disk = disk
        self._tell = tell
        self._first_seen: dict[str, float] = {}
        self._last_used: dict[str, float] = {}
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        """Look every five minutes, until cancelled."""
        while True:
            try:
                await self.round()
            except (CRIError, OSError) as error:
                log.warning("images were not collected: %s", error)
            await asyncio.sleep(PERIOD)

    async def round(self) -> None:
        """Look once; remove what must go."""
        space = os.statvfs(self._disk)
        capacity, available = (
            space.f_blocks * space.f_frsize,
            space.f_bavail * space.f_frsize,
        )
        images, used, now = await self._look()
        if self._settings.image_maximum_age:
            for image in images:
                last = self._last_used.get(image.id, self._first_seen[image.id])
                if image.id not in used and now - last > self._settings.image_maximum_age:
                    await self._remove(image)
        high, low = self._settings.image_gc_high, self._settings.image_gc_low
        wanted = to_free(capacity, available, high, low)
        if not wanted:
            return
        freed = await self.free(wanted)
        if freed < wanted:
            text = (
                f"Failed to garbage collect required amount of images. Attempted to free {wanted} "
                f"bytes, but only found {freed} bytes eligible to free."
            )
            self._tell("Warning", "FreeDiskSpaceFailed", text)

    async def _look(self) -> tuple[Sequence[Image], set[str], float]:
        images = await self._runtime.list_images()
        used = set(await self._runtime.images_in_use())
        now = time.monotonic()
        known = {image.id for image in images}
        for memory in (self._first_seen, self._last_used):
            for id_ in set(memory) - known:
                del memory[id_]
        for image in images:
            self._first_seen.setdefault(image.id, now)
            if image.id in used:
                self._last_used[image.id] = now
        return images, used, now

    async def free(self, wanted: int | None = None, *, at_once: bool = False) -> int:
        """Remove unused images until ``wanted`` bytes are free (None: all); returns how many are.

        ``at_once`` takes young ones, too, as the eviction manager must.
        """
        async with self._lock:
            images, used, now = await self._look()
            age = 0.0 if at_once else self._settings.image_minimum_age
            freed = 0
            for image in candidates(images, used, self._last_used, self._first_seen, now, age):
                if wanted is not None and freed >= wanted:
                    break
                if await self._remove(image):
                    freed += image.size
            return freed

    async def _remove(self, image: Image) -> bool:
        names = [*image.repo_tags, *image.repo_digests] or [image.id]
        log.info("removing image %s (%s)", names[0], quantity.from_int(image.size, "BinarySI"))
        try:
            for name in names:
                await self._runtime.remove_image(name)
        except CRIError as error:
            log.info("image %s stays: %s", names[0], error.message)
            return False
        except OSError as error:  # the disk is full to the last byte
            log.info("image %s stays: %s", names[0], error)
            return False
        return True
