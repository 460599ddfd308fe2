"""Where a registry is found: the addresses to try, one after the other, and whom to trust there.

A registry speaks HTTPS, its certificate signed by somebody this machine trusts or by a CA in
``/etc/docker/certs.d/<host:port>``. One on this machine, or configured to be insecure, may show any
certificate, or speak plain HTTP.
"""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from wherry.engine.errors import EngineError
from wherry.engine.image.reference import DEFAULT_DOMAIN

REGISTRY_OF_DOCKER = "registry-1.docker.io"
CERTIFICATES = Path("/etc/docker/certs.d")


@dataclass(frozen=True, slots=True)
class Settings:
    """``mirrors`` of Docker Hub (URLs), and ``insecure`` registries: hosts, with or without a
    port, or ranges of addresses."""

    mirrors: tuple[str, ...] = ()
    insecure: tuple[str, ...] = ()
    certificates: Path = CERTIFICATES


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of a registry; ``url`` has no path and no final slash."""

    url: str
    verify: bool = True
    is_mirror: bool = False
    certificates: Path = CERTIFICATES

    @property
    def host(self) -> str:
        """Host and port."""
        return urlsplit(self.url).netloc

    def at(self, host: str) -> Endpoint:
        """The same on another host."""
        return replace(self, url=f"{urlsplit(self.url).scheme}://{host}")

    def trust(self) -> ssl.SSLContext | bool:
        """Whom to believe, and who we are.

        Raises:
            EngineError: a file below ``certs.d`` cannot be used.
        """
        if not self.url.startswith("https:"):
            return True
        directory = self.certificates / self.host
        context = ssl.create_default_context()
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if not directory.is_dir():
            return context
        try:
            for path in sorted(directory.iterdir()):
                if path.suffix == ".crt":
                    context.load_verify_locations(path)
                elif path.suffix == ".cert":
                    key = path.with_suffix(".key")
                    if not key.exists():
                        raise EngineError(
                            f"missing key {key.name} for client certificate "
                            f"{path.name}. CA certificates must use the extension "
                            ".crt"
                        )
                    context.load_cert_chain(path, key)
                elif path.suffix == ".key" and not path.with_suffix(".cert").exists():
                    raise EngineError(
                        f"missing client certificate "
                        f"{path.with_suffix('.cert').name} for key {path.name}"
                    )
        except (OSError, ssl.SSLError) as error:
            raise EngineError(f"cannot use the certificates in {directory}: {error}") from None
        return context


def endpoints(domain: str, settings: Settings) -> list[Endpoint]:
    """The addresses of the registry ``domain``, in the order to try them."""
    certificates = settings.certificates
    if domain == DEFAULT_DOMAIN:
        found = [
            Endpoint(url, not is_insecure(urlsplit(url).netloc, settings), True, certificates)
            for url in (mirror.rstrip("/") for mirror in settings.mirrors)
        ]
        return [*found, Endpoint(f"https://{REGISTRY_OF_DOCKER}", certificates=certificates)]
    if not is_insecure(domain, settings):
        return [Endpoint(f"https://{domain}", certificates=certificates)]
    return [
        Endpoint(f"https://{domain}", verify=False, certificates=certificates),
        Endpoint(f"http://{domain}", verify=False, certificates=certificates),
    ]


def is_insecure(domain: str, settings: Settings) -> bool:
    """Whether ``domain`` may show any certificate, or none."""
    host = urlsplit(f"//{domain}").hostname or domain
    if host == "localhost" or domain in settings.insecure or host in settings.insecure:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if address.is_loopback:
        return True
    for entry in settings.insecure:
        try:
            if address in ipaddress.ip_network(entry):
                return True
        except ValueError:
            continue  # a host, not a range
    return False
