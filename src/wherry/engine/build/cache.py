"""Finding the image that an earlier build made by the same step on the same image.

A step is the same when the history says the same of it (for COPY that includes a digest of the
files, for RUN the arguments that it saw) and the settings that come out are equal. So the cache is
the images themselves: nothing else is kept, and nothing can be out of date.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wherry.engine.image.image import Image
from wherry.engine.image.store import ImageStore


@dataclass(slots=True)
class Cache:
    """For one stage. After the first miss nothing is looked for any more.

    With ``restricted`` only what belongs to ``sources`` counts, the images of --cache-from: they
    and those they were built from, and the steps in their histories.
    """

    images: ImageStore
    enabled: bool
    restricted: bool = False
    sources: Sequence[Image] = ()

    def find(
        self, parent: Image | None, created_by: str, settings: Mapping[str, Any], author: str
    ) -> Image | None:
        """What the step made on ``parent`` (None for scratch) before; the newest, if several."""
        if not self.enabled:
            return None
        found = [
            image
            for image in self._children(parent)
            if _made_by(image, created_by)
            and _same(image.settings, settings)
            and str(image.config.get("author") or "") == author
            and (not self.restricted or self._belongs(image))
        ]
        if found:
            return max(found, key=lambda image: image.created or 0)
        self.enabled = self.restricted
        return None

    def _belongs(self, image: Image) -> bool:
        for source in self.sources:
            identity = source.id
            while identity:
                if identity == image.id:
                    return True
                exists = self.images.exists(identity)
                identity = self.images.by_id(identity).parent if exists else ""
        return False

    def from_sources(
        self, parent: Image | None, created_by: str
    ) -> Image | tuple[Image, Mapping[str, Any]] | None:
        """The step in the history of a --cache-from image: the image itself where that is its last
        one, else the image cut off after it, and the history entry; None where there is none."""
        if not self.enabled:
            return None
        before = list((parent.config.get("history") or []) if parent is not None else [])
        chain = parent.chain if parent is not None else ()
        for source in self.sources:
            history = list(source.config.get("history") or [])
            if history[: len(before)] != before or source.chain[: len(chain)] != chain:
                continue
            if len(history) == len(before):
                continue
            step = history[len(before)]
            if step.get("created_by") != created_by:
                continue
            if len(history) == len(before) + 1:
                return source
            length = len(chain) + (0 if step.get("empty_layer") else 1)
            return replace(source, chain=source.chain[:length]), step
        self.enabled = False
        return None

    def _children(self, parent: Image | None) -> list[Image]:
        if parent is None:
            return [one for one in self.images.list() if not one.parent and _steps(one) == 1]
        return [self.images.by_id(one) for one in self.images.children(parent.id)]


def _steps(image: Image) -> int:
    return len(image.config.get("history") or ())


def _made_by(image: Image, created_by: str) -> bool:
    history = image.config.get("history") or [{}]
    return bool(history) and history[-1].get("created_by") == created_by


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    names = {*one, *other}
    return all((one.get(name) or None) == (other.get(name) or None) for name in names)
