"""What nginx is to do, apart from how that is written."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import Enum

from wherry.kube.ingress.common import Common
from wherry.kube.ingress.options import Options


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

    key: str
    """Namespace, name and port of the Service."""
    name: str
    """The same for people, who may not tell apart what they mean."""
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


@dataclass(frozen=True, slots=True)
class ClientCertificates:
    """Which certificates a host's clients must show; ``str`` fields are names of files."""

    authorities: str
    revoked: str
    verify: str
    depth: int
    error_page: str
    passed_on: bool
    name: str
    """An expression for the subject; empty: any."""


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
    expression: bool = False
    """Its owner wants the path to be a regular expression."""
    denied: bool = False
    port: str = ""
    """Of the Service, as the Ingress has it."""
    fallback: Upstream | None = None
    """Answers where no endpoint is, and has the pages for errors."""
    auth_file: str = ""
    backend_certificate: str = ""
    """The file with what we show to the endpoints."""
    backend_authorities: str = ""
    """The file with what we trust of theirs."""
    canary: Canary | None = None


@dataclass(slots=True)
class Server:
    """A host: ``*.example.com`` is any one label there, empty is everything else."""

    host: str
    locations: dict[tuple[str, Match], Location] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    """Other names, each with the key of the Ingress that wants it."""
    certificate: str = ""
    """The file with certificate and key; empty: none but the default."""
    ssl: bool = False
    app_root: str = ""
    app_root_of: str = ""
    """The key of the Ingress that wants it."""
    www_redirect_of: str = ""
    """Likewise, of the redirect from this host with or without ``www.``."""
    redirect: str = ""
    """The host to which all requests are sent."""
    clients: ClientCertificates | None = None
    closed: bool = False
    """It should ask for certificates, and cannot."""
    ciphers: str = ""
    prefers_ciphers: bool | None = None

    @property
    def has_expressions(self) -> bool:
        """Where one path is a regular expression, nginx orders all only as such."""
        return any(location.expression for location in self.locations.values())


@dataclass(slots=True)
class Configuration:
    """All of it."""

    servers: dict[str, Server] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    """Certificates and password files, by name; nobody else may read them."""
    common: Common = field(default_factory=Common)
    default_backend: Upstream | None = None
    """Answers what no rule has."""
    certificate: str = ""
    """The file of hosts that have none of their own; empty: one that nobody trusts."""
    unusable: list[str] = field(default_factory=list)
    """What is wrong with the common settings."""
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
