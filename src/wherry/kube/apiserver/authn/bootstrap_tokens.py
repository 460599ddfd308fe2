"""Bootstrap tokens: ``id.secret``, kept in Secrets of kube-system, by which new nodes come in.

https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from datetime import UTC, datetime

from wherry.kube.api import meta
from wherry.kube.api.resources import SECRETS
from wherry.kube.apiserver.authn.users import known
from wherry.kube.apiserver.authn.ways import Audiences, Authenticated, Refused, shared
from wherry.kube.apiserver.cache import Cache
from wherry.kube.apiserver.objects import Object

TYPE = "bootstrap.kubernetes.io/token"
_NAMESPACE = "kube-system"
_PREFIX = "bootstrap-token-"
_USER = "system:bootstrap:"
_GROUP = "system:bootstrappers"
_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_GROUPS = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")


class BootstrapTokens:
    """The tokens of the cluster's Secrets, as they are at the moment."""

    def __init__(self, cache: Cache, audiences: Audiences) -> None:
        self._cache = cache
        self._audiences = audiences

    async def authenticate(self, token: str, audiences: Audiences) -> Authenticated | None:
        matched = _TOKEN.fullmatch(token)
        if matched is None:
            return None
        name = _PREFIX + matched[1]
        found = self._cache.of(SECRETS).get(_NAMESPACE, name)
        if found is None:
            return None
        secret = found.object
        if meta.is_deleting(secret):
            raise Refused(f"the bootstrap token {matched[1]} is being deleted")
        why = _fault(secret, matched[1], matched[2])
        if why:
            raise Refused(f"bootstrap token {matched[1]}: {why}")
        common = shared(audiences, self._audiences)
        if not common:
            return None
        groups = [g for g in _field(secret, "auth-extra-groups").split(",") if g]
        return Authenticated(known(_USER + matched[1], (_GROUP, *groups)), common)


def _fault(secret: Object, id: str, given: str) -> str:
    """Why the token is not good, or ""."""
    if secret.get("type") != TYPE:
        return "the secret has another type"
    held = _field(secret, "token-secret")
    if not held or not hmac.compare_digest(held.encode(), given.encode()):
        return "the token secret does not match"
    if _field(secret, "token-id") != id:
        return "the token id does not match"
    expiration = _field(secret, "expiration")
    if expiration:
        try:
            expires = meta.parse_time(expiration)
        except ValueError:
            return "its expiration is no time"
        if expires <= datetime.now(UTC):
            return "it has expired"
    if _field(secret, "usage-bootstrap-authentication") != "true":
        return "it is not for authentication"
    for group in _field(secret, "auth-extra-groups").split(","):
        if group and not _GROUPS.fullmatch(group):
            return "it has a group that is no bootstrapper's"
    return ""


def _field(secret: Object, key: str) -> str:
    encoded = (secret.get("data") or {}).get(key) or ""
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return ""
