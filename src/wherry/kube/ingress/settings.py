"""Where nginx runs: what differs between a machine and a pod, and is never a user's."""

from __future__ import annotations

from dataclasses import dataclass

from wherry.kube.ingress.nginx import WORKERS


@dataclass(frozen=True, slots=True)
class Settings:
    """What is given when the controller starts."""

    directory: str
    """Of the configuration and what belongs to it."""
    http: tuple[str, ...] = ("80",)
    """Where to listen: ports, or addresses with ports."""
    https: tuple[str, ...] = ("443",)
    https_port: int = 443
    """The port that redirects name."""
    resolver: str = ""
    """A name server for external names."""
    user: str = " ".join(WORKERS)
    connections: int = 16384
    """The most of each process; its limit of open files should be twice that."""
    access_log: str = "access.log"
    error_log: str = "error.log"
    version: tuple[int, ...] = ()
    """Of nginx."""
