"""Asks each way in turn who it is that asks."""

from __future__ import annotations

import base64
import binascii
import logging
import math
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from wherry.kube.api.errors import unauthorized
from wherry.kube.apiserver.authn.certificates import from_certificate, verified_root
from wherry.kube.apiserver.authn.front_proxy import RequestHeader
from wherry.kube.apiserver.authn.static import StaticTokens
from wherry.kube.apiserver.authn.users import ANONYMOUS
from wherry.kube.apiserver.authn.ways import Audiences, Authenticated, Refused, TokenWay
from wherry.kube.apiserver.request import User

log = logging.getLogger(__name__)

_WEBSOCKET = "base64url.bearer.authorization.k8s.io."


@dataclass(frozen=True, slots=True)
class Peer:
    """What a connection's certificate says: whose it is, whether it is a front proxy's, and until
    when (seconds since the epoch) it is worth something."""

    user: User
    proxy: bool = False
    until: float = math.inf


class Authenticator:
    """Tries each way in turn.

    Args:
        tokens: static bearer tokens and whom they stand for.
        ways: the other ways to know a bearer token, in order.
        audiences: who this server is to a token.
        anonymous: whether who shows nothing comes in as ``system:anonymous``.
        request_header: the front proxies whose word counts.
        client_ca: the authorities of users' certificates (DER), needed to tell them from proxies'.
    """

    def __init__(
        self,
        tokens: Mapping[str, User] | None = None,
        ways: Sequence[TokenWay] = (),
        *,
        audiences: Audiences = ("api",),
        anonymous: bool = True,
        request_header: RequestHeader | None = None,
        client_ca: Iterable[bytes] = (),
    ) -> None:
        self.audiences = audiences
        self._ways: list[TokenWay] = [StaticTokens(tokens, audiences)] if tokens else []
        self._ways += ways
        self._anonymous = anonymous
        self._request_header = request_header
        self._client_ca = frozenset(client_ca)
        self._proxy_ca = frozenset(
            authorities(request_header.client_ca.read_bytes()) if request_header else ()
        )

    def peer(self, connection: ssl.SSLObject | None) -> Peer | None:
        """Whose certificate a connection was opened with; None: it showed none of use."""
        if connection is None:
            return None
        certificate = connection.getpeercert()
        user = from_certificate(certificate, connection.getpeercert(True))
        if user is None or not certificate:
            return None
        until = float(ssl.cert_time_to_seconds(str(certificate["notAfter"])))
        if self._request_header is None:
            return Peer(user, until=until)
        root = verified_root(connection)
        if root in self._proxy_ca and self._request_header.allows(user.name):
            return Peer(user, True, until)
        return Peer(user, until=until) if root in self._client_ca else None

    async def authenticate(self, peer: Peer | None, headers: Mapping[str, str]) -> User:
        """The user, from the connection's certificate or the request's headers.

        Raises:
            StatusError: 401, a token that nobody has, or nothing shown where something must be.
        """
        if peer is not None:
            if time.time() > peer.until:  # a connection may outlive the certificate
                raise unauthorized()
            if not peer.proxy:
                return peer.user
            assert self._request_header is not None
            named = self._request_header.user(headers.items())
            if named is not None:
                return named
        token = bearer(headers)
        if token:
            found, _ = await self.token(token, self.audiences)
            if found is None:
                raise unauthorized()
            return found.user
        if self._anonymous and (peer is None or peer.proxy):
            return ANONYMOUS
        raise unauthorized()

    async def close(self) -> None:
        """Let go of what asks others."""
        for way in self._ways:
            close = getattr(way, "close", None)
            if close is not None:
                await close()

    async def token(self, token: str, audiences: Audiences) -> tuple[Authenticated | None, str]:
        """Whom a bearer token stands for to one of ``audiences``; None, and why, where it stands
        for nobody."""
        if not token.isascii():
            return None, "invalid bearer token"
        reasons = ["invalid bearer token"]
        for way in self._ways:
            try:
                found = await way.authenticate(token, audiences)
            except Refused as error:
                reasons.append(str(error))
                continue
            if found is not None:
                return found, ""
        if len(reasons) > 1:
            log.info("Unable to authenticate the request: %s", ", ".join(reasons))
            return None, f"[{', '.join(reasons)}]"
        return None, reasons[0]


def bearer(headers: Mapping[str, str]) -> str:
    """The bearer token a request shows; "": none."""
    scheme, _, token = headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    for protocol in headers.get("Sec-WebSocket-Protocol", "").split(","):
        protocol = protocol.strip()
        if protocol.startswith(_WEBSOCKET):
            encoded = protocol[len(_WEBSOCKET) :]
            try:
                return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
            except (binascii.Error, ValueError):
                return ""
    return ""


def without_bearer(protocols: str) -> str:
    """The value of a Sec-WebSocket-Protocol header to be passed on: the token was for us alone."""
    offered = (protocol.strip() for protocol in protocols.split(","))
    return ", ".join(each for each in offered if not each.startswith(_WEBSOCKET))


def authorities(pem: bytes) -> list[bytes]:
    """The certificates of a PEM file, as DER."""
    text, end = pem.decode("ascii", "replace"), "-----END CERTIFICATE-----"
    found = []
    for part in text.split("-----BEGIN CERTIFICATE-----")[1:]:
        block = f"-----BEGIN CERTIFICATE-----{part.partition(end)[0]}{end}\n"
        found.append(ssl.PEM_cert_to_DER_cert(block))
    return found
