"""Which store, in a word: ``sqlite`` or ``etcd://host:port,…``, as ``--store`` takes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

SQLITE = "sqlite"
_PORT = 2379
_FILES = ("ca", "cert", "key")


@dataclass(frozen=True, slots=True)
class EtcdAddress:
    """The members of an etcd (``host:port``); with ``tls``, the files to trust and be trusted by.

    Without ``ca`` the system's authorities are trusted; ``cert`` and ``key`` come together.
    """

    endpoints: tuple[str, ...]
    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


def parse(text: str) -> EtcdAddress | None:
    """What ``--store`` says; None: the embedded store.

    ``etcd://HOST[:PORT],…``, or with TLS ``etcds://HOST[:PORT],…?ca=FILE&cert=FILE&key=FILE``.

    Raises:
        ValueError: it cannot be read; the text says why.
    """
    if text in ("", SQLITE):
        return None
    wanted = "want sqlite, etcd://HOST:PORT,… or etcds://HOST:PORT,…?ca=FILE&cert=FILE&key=FILE"
    url = urlsplit(text)
    if url.scheme not in ("etcd", "etcds") or url.path not in ("", "/") or url.fragment:
        raise ValueError(f"--store {text}: {wanted}")
    endpoints = tuple(_endpoint(member, text) for member in url.netloc.split(","))
    options = dict(parse_qsl(url.query, keep_blank_values=True))
    unknown = sorted(options.keys() - set(_FILES))
    if unknown:
        raise ValueError(f"--store {text}: unknown option {unknown[0]}; {wanted}")
    tls = url.scheme == "etcds"
    if options and not tls:
        raise ValueError(f"--store {text}: {min(options)} needs etcds://")
    if ("cert" in options) != ("key" in options):
        raise ValueError(f"--store {text}: cert and key come together")
    files = {name: Path(path).absolute() for name, path in options.items()}
    return EtcdAddress(endpoints, tls, files.get("ca"), files.get("cert"), files.get("key"))


def canonical(text: str) -> str:
    """The same with absolute paths and without what goes without saying. Raises ValueError."""
    address = parse(text)
    if address is None:
        return ""
    given = {"ca": address.ca, "cert": address.cert, "key": address.key}
    query = "&".join(f"{name}={path}" for name, path in given.items() if path)
    scheme = "etcds" if address.tls else "etcd"
    return f"{scheme}://{','.join(address.endpoints)}" + (f"?{query}" if query else "")


def _endpoint(member: str, text: str) -> str:
    try:
        split = urlsplit(f"//{member}")
        host, port = split.hostname, split.port or _PORT
    except ValueError as error:
        raise ValueError(f"--store {text}: {member}: {error}") from None
    if not host or split.username is not None:
        raise ValueError(f"--store {text}: {member or 'an empty member'} is no HOST:PORT")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
