"""All containers, by id and by name, and the directory in which each of them lives.

``<root>/<id>/container.json`` makes a container: a directory without it is one that was half
created, or half removed, and is cleared away when the store opens. The document is replaced in one
step, so a kill at any moment leaves the old state or the new one.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from pathlib import Path

from wherry.engine.container.container import Container
from wherry.engine.container.names import generate
from wherry.engine.errors import BadParameter, Conflict, NotFound
from wherry.host.files import make_private, write_atomic

log = logging.getLogger(__name__)

DOCUMENT = "container.json"


class ContainerStore:
    """The containers of one engine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._containers: dict[str, Container] = {}
        self._names: dict[str, str] = {}  # name → id; a name is taken before its container is made

    def __len__(self) -> int:
        return len(self._containers)

    def load(self) -> list[Path]:
        """Read every container from disk.

        Returns the directories that hold no container; whoever can unmount removes them.
        """
        make_private(self.root)
        leftovers = []
        for home in self.root.iterdir():
            try:
                container = Container.decode((home / DOCUMENT).read_bytes(), home)
            except FileNotFoundError:
                leftovers.append(home)
                continue
            except (ValueError, KeyError, TypeError, NotADirectoryError) as error:
                log.error("not a container, left alone: %s: %s", home, error)
                continue
            self._containers[container.id] = container
            self._names[container.name] = container.id
        return leftovers

    def save(self, container: Container, *, durable: bool = True) -> None:
        """Write the container's document.

        Without ``durable`` a power cut may bring the former document back; a kill cannot. That
        is right for what only a living process makes true.
        """
        write_atomic(container.home / DOCUMENT, container.encode(), durable=durable)

    def all(self) -> list[Container]:
        """Every container, newest first."""
        return sorted(self._containers.values(), key=lambda c: c.created_at, reverse=True)

    def ids(self) -> Iterable[str]:
        return self._containers.keys()

    # ---- ids and names

    def new_id(self) -> str:
        """64 hex digits; the first twelve, the hostname, are not all decimal."""
        while True:
            identifier = secrets.token_hex(32)
            if not identifier[:12].isdigit() and identifier not in self._containers:
                return identifier

    def reserve_name(self, name: str, id: str) -> None:
        """Give ``name`` to container ``id``.

        Raises:
            Conflict: another container has it.
        """
        owner = self._names.setdefault(name, id)
        if owner != id:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )

    def generate_name(self, id: str) -> str:
        """A free name of Docker's kind, given to container ``id``."""
        for attempt in range(6):
            name = generate(attempt)
            if name not in self._names:
                self._names[name] = id
                return name
        self.reserve_name(id[:12], id)
        return id[:12]

    def release_name(self, name: str, id: str) -> None:
        """Let ``name`` go, where it is ``id``'s."""
        if self._names.get(name) == id:
            del self._names[name]

    def add(self, container: Container) -> None:
        """From now on it is found; its name is already reserved."""
        self._containers[container.id] = container

    def discard(self, container: Container) -> None:
        """From now on it is not found, and its name is free."""
        self._containers.pop(container.id, None)
        self.release_name(container.name, container.id)

    def find_by_id(self, id: str) -> Container | None:
        """The container with exactly this id."""
        return self._containers.get(id)

    def find_by_name(self, name: str) -> Container | None:
        """The container called ``name``, or linked under the name ``container/alias``."""
        parent, slash, alias = name.rpartition("/")
        if not slash:
            return self._containers.get(self._names.get(name, ""))
        links = owner.links if (owner := self.find_by_name(parent)) else ()
        linked = (link.id for link in links if link.alias == alias)
        return self._containers.get(next(linked, ""))

    def find(self, reference: str) -> Container | None:
        """The container with this id, name, or unambiguous beginning of an id.

        Raises:
            BadParameter: several ids begin so.
        """
        if found := self._containers.get(reference):
            return found
        if found := self.find_by_name(reference.removeprefix("/")):
            return found
        if not reference:
            return None
        matches = [c for id, c in self._containers.items() if id.startswith(reference)]
        if len(matches) > 1:
            raise BadParameter(f"multiple IDs found with provided prefix: {reference}")
        return matches[0] if matches else None

    def get(self, reference: str) -> Container:
        """As ``find``.

        Raises:
            NotFound: there is no such container.
        """
        container = self.find(reference)
        if container is None:
            raise NotFound(f"No such container: {reference}")
        return container
