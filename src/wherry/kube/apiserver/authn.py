"""Who asks: by client certificate, by bearer token, or nobody in particular.

Names and groups are upstream's (https://kubernetes.io/docs/reference/access-authn-authz/authentication/).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wherry.kube.api.errors import bad_request, forbidden, unauthorized
from wherry.kube.apiserver.request import User

if TYPE_CHECKING:
    from wherry.kube.apiserver.authz import Authorizer

AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
MASTERS = "system:masters"
ANONYMOUS = User("system:anonymous", (UNAUTHENTICATED,))


def known(name: str, groups: Sequence[str] = (), uid: str = "") -> User:
    """A user who proved to be one."""
    return User(name, (*groups, AUTHENTICATED), uid)


def from_certificate(certificate: Mapping[str, Any] | None) -> User | None:
    """The user a verified certificate (``getpeercert``) names: CN the name, O the groups."""
    if not certificate:
        return None
    name, groups = "", []
    for relative_name in certificate.get("subject", ()):
        for key, value in relative_name:
            if key == "commonName":
                name = value
            elif key == "organizationName":
                groups.append(value)
    return known(name, groups) if name else None


class Authenticator:
    """Tries each way in turn.

    Args:
        tokens: static bearer tokens and whom they stand for.
        anonymous: whether who shows nothing comes in as ``system:anonymous``.
    """

    def __init__(self, tokens: Mapping[str, User] | None = None, *, anonymous: bool = True) -> None:
        self._tokens = dict(tokens or {})
        self._anonymous = anonymous

    def authenticate(self, certified: User | None, authorization: str) -> User:
        """The user, from the connection's certificate or the Authorization header.

        Raises:
            StatusError: 401, a token that nobody has, or nothing shown where something must be.
        """
        if certified is not None:
            return certified
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            for held, user in self._tokens.items():
                if hmac.compare_digest(held.encode(), token.strip().encode()):
                    return user
            raise unauthorized()
        if self._anonymous:
            return ANONYMOUS
        raise unauthorized()


def impersonate(user: User, name: str, groups: Sequence[str], authorizer: Authorizer) -> User:
    """The user in whose name ``user`` asks (headers Impersonate-User and -Group).

    Raises:
        StatusError: 400, groups of nobody; 403, ``user`` may not.
    """
    if not name:
        raise bad_request("requested [{Group }] without impersonating a user")
    for kind, wanted in (("users", name), *(("groups", group) for group in groups)):
        if not authorizer.may_impersonate(user, kind, wanted):
            raise forbidden(
                kind,
                wanted,
                f'User "{user.name}" cannot impersonate resource "{kind}" in API group "" at the '
                "cluster scope",
            )
    if name == ANONYMOUS.name:
        return ANONYMOUS
    return known(name, [group for group in groups if group != AUTHENTICATED])
