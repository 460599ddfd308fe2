"""Asking in somebody else's name: the ``Impersonate-*`` headers.

Each part of the other's identity is one question to the authorizer
(https://kubernetes.io/docs/reference/access-authn-authz/user-impersonation/).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote

from wherry.kube.api.account_tokens import split_user_name
from wherry.kube.api.errors import bad_request
from wherry.kube.apiserver.authn.users import (
    ANONYMOUS,
    UNAUTHENTICATED,
    known,
    service_account_groups,
)
from wherry.kube.apiserver.request import RequestInfo, User

if TYPE_CHECKING:
    from wherry.kube.apiserver.authz import Authorizer

_GROUP = "authentication.k8s.io"
_EXTRA = "impersonate-extra-"


def from_headers(user: User, headers: Iterable[tuple[str, str]], authorizer: Authorizer) -> User:
    """The user in whose name the request with these headers is to be judged.

    Raises:
        StatusError: 400, groups of nobody; 403, ``user`` may not.
    """
    name, uid, groups = "", "", []
    extra: dict[str, list[str]] = {}
    for header, value in headers:
        if header[:1] not in ("I", "i"):  # every request comes by here
            continue
        lower = header.lower()
        if not lower.startswith("impersonate-"):
            continue
        if lower == "impersonate-user":
            name = name or value
        elif lower == "impersonate-uid":
            uid = uid or value
        elif lower == "impersonate-group":
            groups.append(value)
        elif lower.startswith(_EXTRA):
            extra.setdefault(unquote(lower[len(_EXTRA) :]), []).append(value)
    if not (name or uid or groups or extra):
        return user
    return impersonate(user, name, groups, authorizer, uid=uid, extra=extra)


def impersonate(
    user: User,
    name: str,
    groups: Sequence[str],
    authorizer: Authorizer,
    *,
    uid: str = "",
    extra: dict[str, list[str]] | None = None,
) -> User:
    """The user ``name``, if ``user`` may act as them.

    Raises:
        StatusError: 400, groups of nobody; 403, ``user`` may not.
    """
    if not name:
        raise bad_request("requested [{Group }] without impersonating a user")
    account = split_user_name(name)
    if account is not None:
        authorizer.check(user, _wanted("serviceaccounts", account[1], namespace=account[0]))
    else:
        authorizer.check(user, _wanted("users", name))
    for group in groups:
        authorizer.check(user, _wanted("groups", group))
    for key, values in (extra or {}).items():
        for value in values:
            authorizer.check(user, _wanted("userextras", value, _GROUP, key))
    if uid:
        authorizer.check(user, _wanted("uids", uid, _GROUP))
    if account is not None and not groups:
        groups = service_account_groups(account[0])
    if name == ANONYMOUS.name:
        return User(
            name,
            (*(g for g in groups if g != UNAUTHENTICATED), UNAUTHENTICATED),
            uid,
            {key: tuple(values) for key, values in (extra or {}).items()},
        )
    return known(name, groups, uid, extra)


def _wanted(
    plural: str, name: str, group: str = "", subresource: str = "", namespace: str = ""
) -> RequestInfo:
    return RequestInfo(
        "", "", "impersonate", True, group, "v1", plural, subresource, namespace, name
    )
