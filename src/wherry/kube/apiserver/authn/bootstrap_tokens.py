"""Bootstrap tokens: ``id.secret``, kept in Secrets of kube-system, by which new nodes come in.

https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/
"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime

from wherry.kube.api import meta
from wherry.kube.api.bootstrap import NAMESPACE, PREFIX, TYPE, BadToken, field, is_group, split
from wherry.kube.api.resources import SECRETS
from wherry.kube.apiserver.authn.users import known
from wherry.kube.apiserver.authn.ways import Audiences, Authenticated, Refused, shared
from wherry.kube.apiserver.cache import Cache
from wherry.kube.apiserver.objects import Object

_USER = "system:bootstrap:"
_GROUP = "system:bootstrappers"


class BootstrapTokens:
    """The tokens of the cluster's Secrets, as they are at the moment."""

    def __init__(self, cache: Cache, audiences: Audiences) -> None:
        self._cache = cache
        self._audiences = audiences

    async def authenticate(self, token: str, audiences: Audiences) -> Authenticated | None:
        try:
            id, given = split(token)
        except BadToken:
            return None
        found = self._cache.of(SECRETS).get(NAMESPACE, PREFIX + id)
        if found is None:
            return None
        secret = found.object
        if meta.is_deleting(secret):
            raise Refused(f"the bootstrap token {id} is being deleted")
        why = _fault(secret, id, given)
        if why:
            raise Refused(f"bootstrap token {id}: {why}")
        common = shared(audiences, self._audiences)
        if not common:
            return None
        groups = [g for g in field(secret, "auth-extra-groups").split(",") if g]
        return Authenticated(known(_USER + id, (_GROUP, *groups)), common)


def _fault(secret: Object, id: str, given: str) -> str:
    """Why the token is not good, or ""."""
    if secret.get("type") != TYPE:
        return "the secret has another type"
    held = field(secret, "token-secret")
    if not held or not hmac.compare_digest(held.encode(), given.encode()):
        return "the token secret does not match"
    if field(secret, "token-id") != id:
        return "the token id does not match"
    expiration = field(secret, "expiration")
    if expiration:
        try:
            expires = meta.parse_time(expiration)
        except ValueError:
            return "its expiration is no time"
        if expires <= datetime.now(UTC):
            return "it has expired"
    if field(secret, "usage-bootstrap-authentication") != "true":
        return "it is not for authentication"
    for group in field(secret, "auth-extra-groups").split(","):
        if group and not is_group(group):
            return "it has a group that is no bootstrapper's"
    return ""
