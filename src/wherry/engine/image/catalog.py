"""Which images there are and what they are called: one file, replaced in one step.

``images.json`` is the only truth about images. A blob or layer counts because a record here names
it; so adding an image is "bring the content to the disk, then replace this file", removing one is
"replace this file, then sweep", and a kill in between leaves the old or the new state, never half.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from wherry.engine.image.reference import Reference, parse
from wherry.host.files import write_atomic


@dataclass(frozen=True, slots=True)
class Record:
    """What makes an image. All but ``parent`` and the time are settled by its config.

    ``manifests`` are those under which it has come or was made, the first for saving it; ``blobs``
    is all that these need, themselves and the config included. ``chain`` is bottom first.
    ``last_tagged`` is nanoseconds since the epoch, 0 for never; ``parent`` is an image id or empty.
    """

    manifests: tuple[str, ...]
    blobs: tuple[str, ...]
    chain: tuple[str, ...]
    parent: str = ""
    last_tagged: int = 0


@dataclass(frozen=True, slots=True)
class Catalog:
    """All images by id, and the names that point to them. Never changed, only replaced.

    ``tags`` and ``digests`` map full references (``docker.io/library/busybox:latest``,
    ``docker.io/library/busybox@sha256:…``) to image ids. ``held`` are images that were removed by
    force while containers still stood on their layers.
    """

    images: Mapping[str, Record] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    held: Mapping[str, Record] = field(default_factory=dict)

    # Looking

    def tags_of(self, image: str) -> list[Reference]:
        """The tags that point to the image, sorted."""
        return [parse(name) for name in sorted(self.tags) if self.tags[name] == image]

    def digests_of(self, image: str) -> list[Reference]:
        """The ``name@sha256:…`` references that point to the image, sorted."""
        return [parse(name) for name in sorted(self.digests) if self.digests[name] == image]

    def references_of(self, image: str) -> list[Reference]:
        """Tags and digest references of the image."""
        return self.tags_of(image) + self.digests_of(image)

    def find(self, reference: Reference) -> str | None:
        """The image a reference points to; a digest counts more than a tag beside it."""
        if reference.digest:
            return self.digests.get(f"{reference.name}@{reference.digest}")
        return self.tags.get(str(reference.with_default_tag()))

    def find_by_id(self, prefix: str) -> str | None:
        """The one image whose id starts so, with or without ``sha256:``; None for none or many."""
        digits = prefix.removeprefix("sha256:")
        if not digits or not all(digit in "0123456789abcdef" for digit in digits):
            return None
        whole = f"sha256:{digits}"
        if whole in self.images:
            return whole
        matching = [image for image in self.images if image.startswith(whole)]
        return matching[0] if len(matching) == 1 else None

    def children_of(self, image: str) -> list[str]:
        """The images that were made from it by a build or commit."""
        return [child for child, record in self.images.items() if record.parent == image]

    def live(self) -> Iterator[tuple[str, Record]]:
        """All records whose content must stay."""
        yield from self.images.items()
        yield from self.held.items()

    # Changing

    def with_image(self, image: str, record: Record) -> Catalog:
        """With an image added; one that is there keeps what it has."""
        known = self.images.get(image) or self.held.get(image)
        if known is not None:
            record = replace(
                known,
                manifests=_union(known.manifests, record.manifests),
                blobs=_union(known.blobs, record.blobs),
            )
        held = {one: kept for one, kept in self.held.items() if one != image}
        return replace(self, images={**self.images, image: record}, held=held)

    def with_reference(self, reference: Reference, image: str, now: int) -> Catalog:
        """With a name that points to the image, wherever it pointed before."""
        if reference.digest:
            name = f"{reference.name}@{reference.digest}"
            return replace(self, digests={**self.digests, name: image})
        record = replace(self.images[image], last_tagged=now)
        return replace(
            self,
            images={**self.images, image: record},
            tags={**self.tags, str(reference): image},
        )

    def without_reference(self, reference: Reference) -> Catalog:
        """Without a name."""
        name = str(reference)
        return replace(
            self,
            tags={one: image for one, image in self.tags.items() if one != name},
            digests={one: image for one, image in self.digests.items() if one != name},
        )

    def without_image(self, image: str, *, hold: bool) -> Catalog:
        """Without the image and its names; with ``hold`` its content stays."""
        images = dict(self.images)
        record = images.pop(image)
        return replace(
            self,
            images=images,
            tags={name: one for name, one in self.tags.items() if one != image},
            digests={name: one for name, one in self.digests.items() if one != image},
            held={**self.held, image: record} if hold else self.held,
        )

    def without_damaged(self, image: str) -> Catalog:
        """Without an image whose content is not there."""
        if image in self.images:
            return self.without_image(image, hold=False)
        return self.without_held(image)

    def without_held(self, image: str) -> Catalog:
        """Without the claim of an image that is already removed."""
        return replace(self, held={one: kept for one, kept in self.held.items() if one != image})


def read(path: Path) -> Catalog:
    """The catalog in the file; an empty one where there is none."""
    try:
        document = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return Catalog()
    return Catalog(
        images=_records(document["images"]),
        tags=document["tags"],
        digests=document["digests"],
        held=_records(document["held"]),
    )


def write(path: Path, catalog: Catalog) -> None:
    """Replace the file; durable when it returns."""
    document = {
        "images": {image: asdict(record) for image, record in catalog.images.items()},
        "tags": dict(catalog.tags),
        "digests": dict(catalog.digests),
        "held": {image: asdict(record) for image, record in catalog.held.items()},
    }
    write_atomic(path, orjson.dumps(document))


def _union(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return first + tuple(one for one in second if one not in first)


def _records(documents: Mapping[str, dict[str, Any]]) -> dict[str, Record]:
    return {
        image: Record(
            manifests=tuple(map(str, document["manifests"])),
            blobs=tuple(map(str, document["blobs"])),
            chain=tuple(map(str, document["chain"])),
            parent=str(document["parent"]),
            last_tagged=int(document["last_tagged"]),
        )
        for image, document in documents.items()
    }
