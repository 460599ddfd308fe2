"""What ``docker rmi`` does, decided without doing it.

Docker's rules, in short. Given a name: the name goes; when it was the last one, the image goes
with it, and with it the unnamed images it was made from. Given an id: the image goes if all its
names are in one repository. A running container is never robbed of its image; a stopped one, and
further names, only by force.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from wherry.engine.errors import Conflict
from wherry.engine.image.catalog import Catalog
from wherry.engine.image.reference import Reference, normalise


@dataclass(frozen=True, slots=True)
class Use:
    """A container of an image."""

    container: str
    running: bool


Uses = Callable[[str], Sequence[Use]]


@dataclass(slots=True)
class Removal:
    """The catalog afterwards, and what happened on the way: (image id, the name or None)."""

    catalog: Catalog
    steps: list[tuple[str, Reference | None]] = field(default_factory=list)

    def untag(self, image: str, reference: Reference) -> None:
        self.catalog = self.catalog.without_reference(reference)
        self.steps.append((image, reference))


@dataclass(frozen=True, slots=True)
class _Obstacle:
    message: str
    hard: bool
    used: bool


def plan(
    catalog: Catalog, image: str, asked: str, uses: Uses, *, force: bool, prune: bool
) -> Removal:
    """How to remove ``asked``, which means ``image``; ``prune``: unnamed parents as well.

    Raises:
        Conflict: containers, children or other names stand against it.
    """
    removal = Removal(catalog)
    references = catalog.references_of(image)
    last_name_removed = False
    if not _is_id_prefix(image, asked):
        users = uses(image)
        if not force and _single(references) and users:
            raise Conflict(
                f'conflict: unable to remove repository reference "{asked}" (must force) -'
                f" container {users[0].container[:12]} is using its referenced image"
                f" {_short(image)}"
            )
        reference = normalise(asked)
        if reference.digest:
            reference = replace(reference, tag="")
        removal.untag(image, reference)
        if not reference.digest:
            _untag_orphaned_digests(removal, image, reference)
        if removal.catalog.references_of(image):
            return removal
        last_name_removed = True
    elif _single(references):
        obstacle = _obstacle(removal.catalog, image, uses, stopped=not force, named=False)
        if obstacle is not None:
            raise _conflict(image, obstacle)
        for reference in references:
            removal.untag(image, reference)
    _delete(removal, image, uses, force=force, prune=prune, quiet=last_name_removed)
    return removal


def _delete(
    removal: Removal, image: str, uses: Uses, *, force: bool, prune: bool, quiet: bool
) -> None:
    obstacle = _obstacle(removal.catalog, image, uses, stopped=not force, named=not force)
    if obstacle is not None:
        dangling = not removal.catalog.references_of(image) and not removal.catalog.children_of(
            image
        )
        if quiet and (not dangling or obstacle.used):
            return
        raise _conflict(image, obstacle)
    parent = removal.catalog.images[image].parent
    for reference in removal.catalog.references_of(image):
        removal.untag(image, reference)
    removal.catalog = removal.catalog.without_image(image, hold=bool(uses(image)))
    removal.steps.append((image, None))
    if prune and parent in removal.catalog.images:
        _delete(removal, parent, uses, force=False, prune=True, quiet=True)


def _untag_orphaned_digests(removal: Removal, image: str, removed: Reference) -> None:
    """Digest references go with the last tag of their repository."""
    if any(tag.name == removed.name for tag in removal.catalog.tags_of(image)):
        return
    for digest in removal.catalog.digests_of(image):
        if digest.name == removed.name:
            removal.untag(image, digest)


def _obstacle(
    catalog: Catalog, image: str, uses: Uses, *, stopped: bool, named: bool
) -> _Obstacle | None:
    """What stands against removing the image; stopped containers and names only where asked."""
    if catalog.children_of(image):
        return _Obstacle("image has dependent child images", hard=True, used=False)
    users = uses(image)
    for use in users:
        if use.running:
            message = f"image is being used by running container {use.container[:12]}"
            return _Obstacle(message, hard=True, used=True)
    if named and catalog.references_of(image):
        message = "image is referenced in multiple repositories"
        return _Obstacle(message, hard=False, used=False)
    if stopped and users:
        message = f"image is being used by stopped container {users[0].container[:12]}"
        return _Obstacle(message, hard=False, used=True)
    return None


def _conflict(image: str, obstacle: _Obstacle) -> Conflict:
    how = "cannot be forced" if obstacle.hard else "must be forced"
    return Conflict(f"conflict: unable to delete {_short(image)} ({how}) - {obstacle.message}")


def _single(references: Sequence[Reference]) -> bool:
    """Whether they amount to one name: one tag, with digests of the same repository only."""
    if len(references) <= 1:
        return True
    tags = [one for one in references if not one.digest]
    repositories = {one.name for one in references if one.digest}
    if len(tags) > 1:
        return False
    return len(repositories) == 1 and all(tag.name in repositories for tag in tags)


def _is_id_prefix(image: str, asked: str) -> bool:
    return image.startswith(asked) or image.removeprefix("sha256:").startswith(asked)


def _short(image: str) -> str:
    return image.removeprefix("sha256:")[:12]
