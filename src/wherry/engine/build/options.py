"""What a build is asked for, and what comes out of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wherry.engine.errors import EngineError
from wherry.engine.image.distribution.credentials import Credentials
from wherry.engine.image.manifest import Platform
from wherry.engine.image.progress import Message

# Takes a message to the client.
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Options:
    """The parameters of ``POST /build``. ``resources`` are fields of HostConfig for RUN."""

    dockerfile: str = "Dockerfile"
    tags: Sequence[str] = ()
    target: str = ""
    arguments: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    use_cache: bool = True
    cache_from: Sequence[str] = ()
    pull: bool = False
    remove: bool = True
    force_remove: bool = False
    platform: Platform | None = None
    resources: Mapping[str, Any] = field(default_factory=dict)
    credentials: Mapping[str, Credentials] = field(default_factory=dict)

    def credentials_for(self, domain: str) -> Credentials:
        """What the client gave for a registry."""
        keys = [domain]
        if domain == "docker.io":
            keys = ["https://index.docker.io/v1/", "index.docker.io", "docker.io"]
        for key in keys:
            if (found := self.credentials.get(key)) is not None:
                return found
        return Credentials()


class CommandFailed(EngineError):
    """A RUN ended with another exit code than 0."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
