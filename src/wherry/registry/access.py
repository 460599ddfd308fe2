"""Who may do what: everybody, the users of an htpasswd file, or who brings a token.

https://distribution.github.io/distribution/spec/auth/token/ says how a client comes by a token.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from wherry.host.files import state
from wherry.registry.errors import RegistryError

# Where a registry that issues tokens itself does so.
TOKEN_PATH = "/auth/token"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Scope:
    """Actions on a resource: ``repository:library/busybox:pull,push``."""

    type: str
    name: str
    actions: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.type}:{self.name}:{','.join(self.actions)}"


def parse_scopes(texts: Sequence[str]) -> list[Scope]:
    """The scopes of a token request; what is none is left out."""
    scopes = []
    for text in " ".join(texts).split():
        kind, _, rest = text.partition(":")
        name, separator, actions = rest.rpartition(":")
        if separator:
            scopes.append(Scope(kind, name, tuple(filter(None, actions.split(",")))))
    return scopes


class Access(Protocol):
    """A way to judge requests."""

    async def judge(self, authorization: str, wanted: Sequence[Scope], base: str) -> str:
        """The user who asks, empty for anybody; ``wanted`` is what the request needs.

        ``base`` is the address by which the client has reached the registry.

        Raises:
            RegistryError: UNAUTHORIZED, with the challenge in its headers, or DENIED.
        """
        ...


class Open:
    """Everybody may do everything."""

    async def judge(self, authorization: str, wanted: Sequence[Scope], base: str) -> str:
        return ""


class Users:
    """The users of a file that ``htpasswd -B`` keeps; it is read again when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: object = None
        self._hashes: dict[str, bytes] = {}
        # Verifying takes long on purpose. What was right once is known by a digest of our own.
        self._key = secrets.token_bytes(32)
        self._verified: set[bytes] = set()
        self.load()

    def load(self) -> None:
        """Read the file, if it has changed.

        Raises:
            OSError: there is no such file.
            ValueError: a line of it is none, or not one of bcrypt.
        """
        now = state(self._path)
        if now is not None and now == self._read:
            return
        hashes = {}
        for number, line in enumerate(self._path.read_text().splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            user, separator, digest = line.strip().partition(":")
            if not separator or not digest.startswith(("$2a$", "$2b$", "$2y$")):
                raise ValueError(
                    f"{self._path}, line {number}: not a user with a bcrypt password (htpasswd -B)"
                )
            hashes[user] = digest.encode()
        if hashes != self._hashes:
            self._verified.clear()
        self._hashes, self._read = hashes, now

    def known(self, user: str) -> bool:
        """Whether there is such a user (still)."""
        self.load()
        return user in self._hashes

    async def verify(self, user: str, password: str) -> bool:
        """Whether this is the user's password."""
        import bcrypt

        self.load()
        known = self._hashes.get(user)
        if known is None:
            return False
        mark = hmac.digest(self._key, f"{user}\0{password}".encode(), hashlib.sha256)
        if mark in self._verified:
            return True
        # bcrypt looks at 72 bytes, as htpasswd does.
        given = password.encode()[:72]
        if not await asyncio.to_thread(bcrypt.checkpw, given, known):
            return False
        if self._hashes.get(user) == known:  # not changed meanwhile
            self._verified.add(mark)
        return True


def basic(authorization: str) -> tuple[str, str] | None:
    """User and password of an ``Authorization`` header; None where it carries none."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, separator, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if separator else None


class Htpasswd:
    """Basic authentication; a known user may do everything."""

    def __init__(self, users: Users, realm: str) -> None:
        self._users = users
        self._realm = realm

    async def judge(self, authorization: str, wanted: Sequence[Scope], base: str) -> str:
        given = basic(authorization)
        if given is not None and await self._users.verify(*given):
            return given[0]
        error = RegistryError("UNAUTHORIZED", _shown(wanted))
        error.headers["WWW-Authenticate"] = f'Basic realm="{self._realm}"'
        raise error


def _shown(scopes: Sequence[Scope]) -> Any:
    return [
        {"Type": scope.type, "Class": "", "Name": scope.name, "Action": action}
        for scope in scopes
        for action in scope.actions
    ]


class Tokens:
    """Bearer tokens, signed by whoever ``verifier`` trusts, for ``service``.

    ``realm`` is where clients get them; where it is empty, from this registry itself.
    """

    def __init__(self, verifier: Verifier, *, realm: str, service: str) -> None:
        self._verifier = verifier
        self._realm = realm
        self._service = service

    async def judge(self, authorization: str, wanted: Sequence[Scope], base: str) -> str:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise self._challenge(wanted, base, "")
        claims = self._verifier.claims(token.strip())
        if claims is None:
            raise self._challenge(wanted, base, "invalid_token")
        granted = {
            (str(entry.get("type")), str(entry.get("name")), str(action))
            for entry in claims.get("access") or ()
            for action in entry.get("actions") or ()
        }
        for scope in wanted:
            for action in scope.actions:
                everything = (scope.type, scope.name, "*") in granted
                if not everything and (scope.type, scope.name, action) not in granted:
                    raise self._challenge(wanted, base, "insufficient_scope")
        return str(claims.get("sub", ""))

    def _challenge(self, wanted: Sequence[Scope], base: str, why: str) -> RegistryError:
        error = RegistryError("UNAUTHORIZED", _shown(wanted))
        realm = self._realm or f"{base}{TOKEN_PATH}"
        challenge = f'Bearer realm="{realm}",service="{self._service}"'
        if wanted:
            challenge += f',scope="{" ".join(map(str, wanted))}"'
        if why:
            challenge += f',error="{why}"'
        error.headers["WWW-Authenticate"] = challenge
        return error


class Verifier(Protocol):
    """Knows whose signatures count."""

    def claims(self, token: str) -> dict[str, Any] | None:
        """What a token says; None where it does not count."""
        ...
