"""Tokens: JSON Web Tokens that say what their bearer may do, issued and verified.

https://distribution.github.io/distribution/spec/auth/jwt/
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from wherry.host.files import write_atomic
from wherry.registry.access import Scope, Users

LIFETIME = 300  # seconds
REFRESH_LIFETIME = 365 * 24 * 3600
_ALGORITHMS = ["ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "EdDSA"]
_REFRESH = "refresh"


class Trusted:
    """Tokens that somebody else issues, whose certificates or public keys are in a PEM file."""

    def __init__(self, path: Path, *, issuer: str, service: str) -> None:
        self._issuer, self._service = issuer, service
        self._keys = _public_keys(path.read_bytes())
        if not self._keys:
            raise ValueError(f"{path} has neither certificates nor public keys")

    def claims(self, token: str) -> dict[str, Any] | None:
        """See ``access.Verifier``."""
        for key in self._keys:
            try:
                claims: dict[str, Any] = jwt.decode(
                    token, key, _ALGORITHMS, audience=self._service, issuer=self._issuer, leeway=60
                )
            except (jwt.PyJWTError, TypeError, ValueError):
                continue  # signed by another, or no longer good
            return claims
        return None


def _public_keys(pem: bytes) -> list[Any]:
    keys: list[Any] = []
    for block in pem.split(b"-----BEGIN ")[1:]:
        text = b"-----BEGIN " + block
        if block.startswith(b"CERTIFICATE"):
            keys.append(x509.load_pem_x509_certificate(text).public_key())
        elif b"PUBLIC KEY" in block[:30]:
            keys.append(serialization.load_pem_public_key(text))
    return keys


class Issuer:
    """Issues tokens to the users of an htpasswd file, and verifies its own.

    A known user may do everything. With ``anonymous_pull`` anybody else may pull.
    """

    def __init__(self, users: Users, key: Path, *, service: str, anonymous_pull: bool) -> None:
        self.users = users
        self.service = service
        self._anonymous_pull = anonymous_pull
        self._key = _private_key(key)

    def grant(self, user: str, scopes: Sequence[Scope]) -> dict[str, Any]:
        """The answer to a token request of ``user``, who is empty where nobody is known."""
        access = []
        for scope in scopes:
            actions = scope.actions if user else self._for_anybody(scope)
            if actions:
                entry = {"type": scope.type, "name": scope.name, "actions": list(actions)}
                access.append(entry)
        now = int(time.time())
        token = self._signed(user, LIFETIME, access=access, jti=secrets.token_hex(8))
        issued = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        return {
            "token": token,
            "access_token": token,
            "expires_in": LIFETIME,
            "issued_at": issued,
        }

    def _for_anybody(self, scope: Scope) -> tuple[str, ...]:
        if not self._anonymous_pull or scope.type != "repository":
            return ()
        return tuple(action for action in scope.actions if action == "pull")

    def refresh_token(self, user: str) -> str:
        """What a client may keep in place of the user's password."""
        return self._signed(user, REFRESH_LIFETIME, use=_REFRESH)

    def refreshed(self, token: str) -> str:
        """The user of a refresh token; empty where it does not count."""
        claims = self._decoded(token)
        return str(claims["sub"]) if claims and claims.get("use") == _REFRESH else ""

    def claims(self, token: str) -> dict[str, Any] | None:
        """See ``access.Verifier``."""
        claims = self._decoded(token)
        return claims if claims and "access" in claims else None

    def _signed(self, user: str, lifetime: int, **claims: Any) -> str:
        now = int(time.time())
        standard = {"iss": self.service, "aud": self.service, "sub": user}
        times = {"iat": now, "nbf": now - 10, "exp": now + lifetime}
        return jwt.encode({**standard, **times, **claims}, self._key, "ES256")

    def _decoded(self, token: str) -> dict[str, Any] | None:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key.public_key(),
                ["ES256"],
                audience=self.service,
                issuer=self.service,
            )
        except jwt.PyJWTError:
            return None
        return claims


def _private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key in ``path``, made at its first use."""
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        write_atomic(
            path,
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )
    loaded = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path} is not a key on an elliptic curve")
    return loaded
