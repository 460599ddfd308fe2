"""Tokens of ServiceAccounts: making them, and finding out whether one still holds.

Two kinds: those a TokenRequest makes end by themselves, and at once with the account or the object
they are bound to; those that lie in a Secret end with it. The signature of a token is judged once
and remembered; the rest each time, from memory.
https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from wherry.kube.api import jose, meta
from wherry.kube.api.account_tokens import LEGACY, LEGACY_ISSUER, user_name
from wherry.kube.api.resources import NODES, PODS, SECRETS, SERVICE_ACCOUNTS, Resource
from wherry.kube.apiserver.authn.keys import Keys
from wherry.kube.apiserver.authn.users import (
    CREDENTIAL_ID,
    known,
    service_account_groups,
)
from wherry.kube.apiserver.authn.ways import Audiences, Authenticated, Refused, shared
from wherry.kube.apiserver.cache import Cache
from wherry.kube.apiserver.objects import Object

_PRIVATE = "kubernetes.io"
_EXTRA = "authentication.kubernetes.io/"
_LEEWAY = 60.0  # seconds a clock may be ahead, and a bound object's end may be past
_REMEMBERED = 4096  # tokens whose signature was found good
_BOUND: dict[str, Resource] = {"pod": PODS, "secret": SECRETS, "node": NODES}


class ServiceAccountTokens:
    """Args:
    keys: those that sign and those that are believed.
    issuers: the first is ours, the others are believed too.
    audiences: who we are, to a token.
    """

    def __init__(
        self, keys: Keys, issuers: Sequence[str], audiences: Audiences, cache: Cache
    ) -> None:
        self.keys = keys
        self.issuer = issuers[0]
        self.audiences = audiences
        self._issuers = frozenset(issuers)
        self._cache = cache
        self._verified: OrderedDict[bytes, jose.Claims] = OrderedDict()

    # --- making -------------------------------------------------------------------------------

    def issue(
        self,
        account: Object,
        audiences: Sequence[str],
        seconds: int,
        bound: dict[str, Object],
        warn_after: int = 0,
    ) -> str:
        """A token for an account.

        Args:
            seconds: how long it holds.
            bound: the objects it ends with, by ``pod``, ``node`` or ``secret``.
            warn_after: after so many seconds its use is late; 0: never.
        """
        now = int(time.time())
        private: Object = {
            "namespace": meta.namespace(account),
            "serviceaccount": _reference(account),
        }
        private.update((kind, _reference(o)) for kind, o in bound.items())
        if warn_after:
            private["warnafter"] = now + warn_after
        claims = {
            "aud": list(audiences),
            "exp": now + seconds,
            "iat": now,
            "iss": self.issuer,
            "jti": str(uuid.uuid4()),
            _PRIVATE: dict(sorted(private.items())),
            "nbf": now,
            "sub": user_name(meta.namespace(account), meta.name(account)),
        }
        return jose.sign(self.keys.signer, claims)

    # --- judging ------------------------------------------------------------------------------

    async def authenticate(self, token: str, audiences: Audiences) -> Authenticated | None:
        claims = self._claims(token)
        if claims is None:
            return None
        if claims["iss"] == LEGACY_ISSUER and LEGACY + "secret.name" in claims:
            return self._legacy(token, claims, audiences)
        return self._bound(claims, audiences)

    def _claims(self, token: str) -> jose.Claims | None:
        """The claims of a token of our issuers, signed by one of the keys; None: not of ours."""
        digest = hashlib.sha256(token.encode()).digest()
        claims = self._verified.get(digest)
        if claims is not None:
            self._verified.move_to_end(digest)
            return claims
        try:
            _, claims = jose.peek(token)
        except jose.BadToken:
            return None
        issuer = claims.get("iss")
        if not isinstance(issuer, str) or (issuer not in self._issuers and issuer != LEGACY_ISSUER):
            return None
        try:
            claims = jose.verify(token, self.keys.believed)
        except jose.BadToken as error:
            raise Refused(f"invalid signature: {error}") from None
        self._verified[digest] = claims
        if len(self._verified) > _REMEMBERED:
            self._verified.popitem(last=False)
        return claims

    def _bound(self, claims: jose.Claims, audiences: Audiences) -> Authenticated:
        now = time.time()
        expires, begins = _number(claims.get("exp")), _number(claims.get("nbf", 0))
        if expires is None or begins is None:
            raise Refused("service account token has no expiry")
        if now >= expires:
            raise Refused("service account token has expired")
        if now + _LEEWAY < begins:
            raise Refused("service account token is not valid yet")
        held = claims.get("aud")
        held = [held] if isinstance(held, str) else held if isinstance(held, list) else []
        common = shared(audiences, tuple(held))
        if not common:
            raise Refused("token audiences is invalid for the target audiences")
        private = claims.get(_PRIVATE)
        if not isinstance(private, dict):
            raise Refused("it has no claims of ours")
        namespace = private.get("namespace")
        account = _named(private, "serviceaccount")
        if not isinstance(namespace, str) or account is None:
            raise Refused("it names no service account")
        self._alive(SERVICE_ACCOUNTS, namespace, *account)
        if claims.get("sub") != user_name(namespace, account[0]):
            raise Refused("Service account username does not match the claims")
        extra: dict[str, tuple[str, ...]] = {}
        if isinstance(jti := claims.get("jti"), str):
            extra[CREDENTIAL_ID] = (f"JTI={jti}",)
        bound_to_more = False
        for kind in ("secret", "pod", "node"):
            reference = _named(private, kind)
            if reference is None:
                continue
            resource = _BOUND[kind]
            # The node of a pod's token is told, the pod is what it is bound to.
            if not (kind == "node" and bound_to_more):
                self._alive(resource, namespace if resource.namespaced else "", *reference)
            bound_to_more = True
            if kind != "secret":
                extra[f"{_EXTRA}{kind}-name"] = (reference[0],)
                extra[f"{_EXTRA}{kind}-uid"] = (reference[1],)
        return Authenticated(_user(namespace, *account, extra), common)

    def _legacy(self, token: str, claims: jose.Claims, audiences: Audiences) -> Authenticated:
        namespace, secret, name, uid = (
            str(claims.get(LEGACY + key) or "")
            for key in ("namespace", "secret.name", "service-account.name", "service-account.uid")
        )
        if not (namespace and secret and name and uid):
            raise Refused("it names no service account and secret")
        common = shared(audiences, self.audiences)
        if not common:
            raise Refused("token audiences is invalid for the target audiences")
        found = self._cache.of(SECRETS).get(namespace, secret)
        if found is None or meta.is_deleting(found.object):
            raise Refused("Token has been invalidated")
        if not hmac.compare_digest(_token_of(found.object), token.encode()):
            raise Refused("Token does not match server's copy")
        if claims.get("sub") != user_name(namespace, name):
            raise Refused("Service account username does not match the claims")
        self._alive(SERVICE_ACCOUNTS, namespace, name, uid)
        return Authenticated(_user(namespace, name, uid, {}), common)

    def _alive(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        """Raises Refused where the object is gone, or another one has its name."""
        what = f"{resource.singular} {name}"
        found = self._cache.of(resource).get(namespace, name)
        if found is None:
            raise Refused(f"{what}: it is gone")
        metadata = found.object["metadata"]
        if not hmac.compare_digest(str(metadata.get("uid", "")), uid):
            raise Refused(f"{what}: its UID is another one than the claim's")
        deleted = metadata.get("deletionTimestamp")
        if deleted and meta.parse_time(deleted).timestamp() < time.time() - _LEEWAY:
            raise Refused(f"{what}: it has been deleted")


def _user(namespace: str, name: str, uid: str, extra: dict[str, tuple[str, ...]]) -> Any:
    return known(user_name(namespace, name), service_account_groups(namespace), uid, extra)


def _reference(o: Object) -> Object:
    return {"name": meta.name(o), "uid": meta.uid(o)}


def _named(private: Object, kind: str) -> tuple[str, str] | None:
    """Name and uid of what the claims name as ``kind``."""
    reference = private.get(kind)
    if reference is None:
        return None
    if not isinstance(reference, dict):
        raise Refused(f"its {kind} is malformed")
    name, uid = reference.get("name"), reference.get("uid")
    if not isinstance(name, str) or not isinstance(uid, str):
        raise Refused(f"its {kind} is malformed")
    return name, uid


def _token_of(secret: Object) -> bytes:
    try:
        return base64.b64decode((secret.get("data") or {}).get("token", ""), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
