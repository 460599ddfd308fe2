"""A registry as a program: from its settings to a server that ends with a signal."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wherry.host.files import make_private
from wherry.registry.access import Access, Htpasswd, Open, Tokens, Users
from wherry.registry.server import Server
from wherry.registry.storage import Storage
from wherry.registry.tokens import Issuer, Trusted


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says. Without ``htpasswd`` and ``token_keys`` it is open to all."""

    root: Path
    host: str = "127.0.0.1"
    port: int = 5000
    certificate: Path | None = None
    key: Path | None = None
    htpasswd: Path | None = None
    by_token: bool = False
    anonymous_pull: bool = False
    token_realm: str = ""
    token_service: str = "wherry"  # noqa: S105  a name
    token_issuer: str = ""
    token_keys: Path | None = None


def server(settings: Settings) -> Server:
    """The server that ``settings`` describe, its storage open.

    Raises:
        OSError: a file cannot be read, or a directory not be made.
        ValueError: a file is not what it should be, or two settings contradict each other.
    """
    make_private(settings.root)
    storage = Storage(settings.root)
    storage.open()
    access, issuer = _access(settings)
    return Server(storage, access, issuer)


def _access(settings: Settings) -> tuple[Access, Issuer | None]:
    service, realm = settings.token_service, settings.token_realm
    if settings.token_keys is not None:
        if not (realm and settings.token_issuer):
            raise ValueError("--token-keys needs --token-realm and --token-issuer")
        trusted = Trusted(settings.token_keys, issuer=settings.token_issuer, service=service)
        return Tokens(trusted, realm=realm, service=service), None
    if settings.htpasswd is None:
        if settings.by_token:
            raise ValueError("--auth token needs --htpasswd, or --token-keys of an issuer")
        return Open(), None
    users = Users(settings.htpasswd)
    if not settings.by_token:
        return Htpasswd(users, service), None
    issuer = Issuer(
        users,
        settings.root / "token-key.pem",
        service=service,
        anonymous_pull=settings.anonymous_pull,
    )
    return Tokens(issuer, realm=realm, service=service), issuer


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.certificate, settings.key)
    return context


async def serve(settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; ``ready`` is told the address.

    Raises:
        OSError: the address is taken, or a file cannot be read.
        ValueError: as ``server``.
    """
    registry = server(settings)
    tls = _tls(settings)
    port = await registry.listen(settings.host, settings.port, tls)
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    ready(f"{'https' if tls else 'http'}://{host}:{port}")
    await ending.wait()
    await registry.close()
