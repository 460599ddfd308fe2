"""Tokens of an OpenID Connect issuer: its keys are fetched once, and again when it signs with one
that is not known yet.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#openid-connect-tokens
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from wherry.kube.api import jose
from wherry.kube.apiserver.authn.claims import ClaimMapping
from wherry.kube.apiserver.authn.ways import Audiences, Authenticated, Refused, shared

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger(__name__)

_PATIENCE = 10.0  # seconds for an answer of the issuer,
_AGAIN = 10.0  # and before it is asked again, whatever came of it
_LARGEST = 1 << 20  # bytes of an answer
_REMEMBERED = 4096  # tokens whose signature was found good
_EARLY = 300  # seconds a token may come before its time


@dataclass(frozen=True)
class Issuer:
    """Whose tokens are good, for whom (``audiences``), signed how.

    ``ca`` is PEM, empty for the system's authorities; ``discovery_url`` where the issuer's
    configuration lies, if not below its own URL.
    """

    url: str
    audiences: tuple[str, ...]
    mapping: ClaimMapping
    ca: str = ""
    discovery_url: str = ""
    algorithms: tuple[str, ...] = ("RS256",)


class OIDCTokens:
    """Args: audiences: who this server is to a token that was judged good."""

    def __init__(self, issuer: Issuer, audiences: Audiences) -> None:
        self._issuer = issuer
        self._audiences = audiences
        self._keys: list[jose.Key] = []
        self._asked = -_AGAIN
        self._asking = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None
        self._verified: OrderedDict[bytes, jose.Claims] = OrderedDict()

    async def authenticate(self, token: str, audiences: Audiences) -> Authenticated | None:
        try:
            header, claims = jose.peek(token)
        except jose.BadToken:
            return None
        if claims.get("iss") != self._issuer.url:
            return None
        claims = await self._signed(token, header)
        self._check(claims)
        user = self._issuer.mapping.user(claims)
        common = shared(audiences, self._audiences)
        return Authenticated(user, common) if common else None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _check(self, claims: jose.Claims) -> None:
        """Raises Refused: it is for somebody else, or not for now."""
        held = claims.get("aud")
        held = [held] if isinstance(held, str) else held if isinstance(held, list) else []
        if not any(audience in held for audience in self._issuer.audiences):
            raise Refused("oidc: verify token: expected audience is not in it")
        now = time.time()
        expires, begins = claims.get("exp"), claims.get("nbf", 0)
        if not isinstance(expires, int | float) or not isinstance(begins, int | float):
            raise Refused("oidc: verify token: it has no expiry")
        if now >= expires:
            raise Refused("oidc: verify token: token is expired")
        if now + _EARLY < begins:
            raise Refused("oidc: verify token: current time before the nbf (not before) time")

    async def _signed(self, token: str, header: jose.Claims) -> jose.Claims:
        """The claims, which the issuer has signed. Raises Refused."""
        digest = hashlib.sha256(token.encode()).digest()
        claims = self._verified.get(digest)
        if claims is not None:
            self._verified.move_to_end(digest)
            return claims
        if header.get("alg") not in self._issuer.algorithms:
            raise Refused("oidc: verify token: unexpected signature algorithm")
        for first in (True, False):
            try:
                claims = jose.verify(token, self._keys, self._issuer.algorithms)
                break
            except jose.BadToken as error:
                if not first or not await self._fetch():
                    raise Refused(f"oidc: verify token: {error}") from None
        assert claims is not None
        self._verified[digest] = claims
        if len(self._verified) > _REMEMBERED:
            self._verified.popitem(last=False)
        return claims

    async def _fetch(self) -> bool:
        """Ask for the issuer's keys, unless that was just done; whether they are new."""
        begun = self._asked
        async with self._asking:
            if self._asked != begun:
                return True  # somebody else did, meanwhile
            if time.monotonic() - self._asked < _AGAIN:
                return False
            try:
                async with asyncio.timeout(_PATIENCE):
                    self._keys = await self._key_set()
                return True
            except (OSError, TimeoutError, ValueError, KeyError, TypeError) as error:
                log.warning("oidc: the keys of %s: %s", self._issuer.url, error or "no answer")
                return False
            finally:
                self._asked = time.monotonic()

    async def _key_set(self) -> list[jose.Key]:
        where = f"{self._issuer.url.rstrip('/')}/.well-known/openid-configuration"
        configuration = await self._get(self._issuer.discovery_url or where)
        if configuration["issuer"] != self._issuer.url:
            raise ValueError(f"it calls itself {configuration['issuer']}")
        return jose.from_jwks(await self._get(str(configuration["jwks_uri"])))

    async def _get(self, url: str) -> Any:
        """Raises OSError, ValueError."""
        import aiohttp

        if not url.startswith("https://"):
            raise ValueError(f"{url} is no https URL")
        if self._session is None:
            context = ssl.create_default_context(cadata=self._issuer.ca or None)
            connector = aiohttp.TCPConnector(ssl=context)
            self._session = aiohttp.ClientSession(connector=connector)
        try:
            async with self._session.get(url, allow_redirects=False) as answer:
                if answer.status != 200:
                    raise ValueError(f"{url} answers {answer.status}")
                data = bytearray()
                async for piece in answer.content.iter_any():
                    data += piece
                    if len(data) > _LARGEST:
                        raise ValueError(f"{url} answers too much")
                return orjson.loads(data)
        except aiohttp.ClientError as error:
            raise OSError(str(error)) from error
