"""What a pod waits for outside of the API, and that it is tried again the moment it may be there.

Retries with growing delays stay as the last resort; here the node itself tells: a path that appears
(inotify), an image that was built, loaded or pulled (the runtime's events).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from wherry.host.inotify import Appearance

log = logging.getLogger(__name__)


class Awaited:
    """Of all pods; ``on_change`` hears, once for each wish, the uid of the pod that had it."""

    def __init__(self, on_change: Callable[[str], None]) -> None:
        self._on_change = on_change
        self._paths: dict[tuple[str, Path], Appearance] = {}
        self._images: set[str] = set()

    def path(self, uid: str, path: Path) -> None:
        """The pod cannot go on until ``path`` is there, or is another thing than now."""
        if (uid, path) in self._paths:
            return

        def came() -> None:
            if found := self._paths.pop((uid, path), None):
                found.close()
            self._on_change(uid)

        try:
            self._paths[uid, path] = Appearance(path, came)
        except OSError as error:  # the user's watches are used up: the retries remain
            log.warning("%s is not watched: %s", path, error)

    def image(self, uid: str) -> None:
        """The pod cannot go on without an image that is not there."""
        self._images.add(uid)

    def images_changed(self) -> None:
        """There is another image, or another name for one."""
        waiting, self._images = self._images, set()
        for uid in waiting:
            self._on_change(uid)

    def release(self, uid: str) -> None:
        """The pod waits for nothing any more."""
        self._images.discard(uid)
        for key in [key for key in self._paths if key[0] == uid]:
            self._paths.pop(key).close()

    def close(self) -> None:
        """Watch nothing any more."""
        for uid, _ in list(self._paths):
            self.release(uid)
        self._images.clear()
