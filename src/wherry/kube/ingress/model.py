"""What nginx is to do, apart from how that is written."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import Enum

from wherry.kube.ingress.annotations import Options


class Match(Enum):
    """How a location's path is compared with a request's."""

    EXACT = "exact"
    ELEMENTS = "elements"
    """The path's elements are the first of the request's (``Prefix``)."""
    TEXT = "text"
    """The request's path begins with the text."""
    REGEX = "regex"


@dataclass(frozen=True, slots=True)
class Upstream:
    """The endpoints behind one port of a Service."""

    name: str
    endpoints: tuple[tuple[str, int], ...] = ()
    external: str = ""
    """A name outside of the cluster, resolved anew as its owner says."""
    port: int = 0
    """Of the external name."""


@dataclass(frozen=True, slots=True)
class Canary:
    """Another upstream, for a part of the requests."""

    upstream: Upstream
    options: Options


@dataclass(slots=True)
class Location:
    """Where the requests for one path go."""

    path: str
    match: Match
    ingress: str
    """The key of the Ingress it comes from."""
    service: str
    upstream: Upstream | None
    """None: there is no such Service, or the Ingress is refused."""
    options: Options
    denied: bool = False
    auth_file: str = ""
    canary: Canary | None = None


@dataclass(slots=True)
class Server:
    """A host: ``*.example.com`` is any one label there, empty is everything else."""

    host: str
    locations: dict[tuple[str, Match], Location] = field(default_factory=dict)
    aliases: set[str] = field(default_factory=set)
    certificate: str = ""
    """The file with certificate and key; empty: none but the default."""
    ssl: bool = False
    app_root: str = ""


@dataclass(slots=True)
class Configuration:
    """All of it."""

    servers: dict[str, Server] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    """Certificates and password files, by name; nobody else may read them."""
    certificate: str = ""
    """The file of hosts that have none of their own; empty: one that nobody trusts."""
    problems: dict[str, list[str]] = field(default_factory=dict)
    """What is wrong, by the key of the Ingress."""

    def complain(self, ingress: str, problem: str) -> None:
        found = self.problems.setdefault(ingress, [])
        if problem not in found:
            found.append(problem)

    def keep(self, content: bytes, kind: str) -> str:
        """The name of a file with this content."""
        name = f"{hashlib.sha256(content).hexdigest()[:32]}.{kind}"
        self.files[name] = content
        return name
