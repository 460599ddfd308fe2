"""Who pulls or pushes: what ``X-Registry-Auth`` carries."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

import orjson


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and a password, or a token that stands for them; all empty for nobody."""

    username: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r})"  # the rest is for nobody's eyes

    @property
    def known(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.username or self.identity_token)

    def basic(self) -> dict[str, str]:
        """The header of basic authentication, where there is a user."""
        if not self.username:
            return {}
        pair = f"{self.username}:{self.password}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}


def read(encoded: str) -> Credentials:
    """From the header; as Docker does, one that cannot be read counts as none."""
    try:
        document = orjson.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (binascii.Error, ValueError):
        return Credentials()
    return from_document(document)


def from_document(document: object) -> Credentials:
    """From ``AuthConfig`` of the Engine API."""
    if not isinstance(document, dict):
        return Credentials()

    def text(name: str) -> str:
        return str(document.get(name) or "")

    username, password = text("username"), text("password")
    if not username and (packed := text("auth")):
        try:
            pair = base64.b64decode(packed, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            pair = ""
        username, _, password = pair.partition(":")
    return Credentials(username, password, text("identitytoken"))
