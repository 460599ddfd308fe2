"""Asking in somebody else's name: the ``Impersonate-*`` headers.

Each part of the other's identity is one question to the authorizer, with the verb ``impersonate``:
``users``, ``groups``, ``serviceaccounts`` in their namespace, and of authentication.k8s.io ``uids``
and ``userextras/<key>`` (https://kubernetes.io/docs/reference/access-authn-authz/user-impersonation/).
Upstream: k8s.io/apiserver/pkg/endpoints/filters/impersonation.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote

from wherry.kube.api.account_tokens import split_user_name
from wherry.kube.api.errors import bad_request
from wherry.kube.apiserver.authn.users import (
    ANONYMOUS,
    AUTHENTICATED,
    UNAUTHENTICATED,
    service_account_groups,
)
from wherry.kube.apiserver.request import RequestInfo, User

if TYPE_CHECKING:
    from wherry.kube.apiserver.authz import Authorizer

_GROUP, _VERSION = "authentication.k8s.io", "v1"
_PREFIX = "impersonate-"
_EXTRA = "impersonate-extra-"


@dataclass(slots=True)
class Wanted:
    """Who is to be acted as. Keys of ``extra`` are lower case and percent-decoded."""

    name: str = ""
    groups: list[str] = field(default_factory=list)
    uid: str = ""
    extra: dict[str, list[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.name or self.groups or self.uid or self.extra)


def wanted(headers: Iterable[tuple[str, str]]) -> Wanted:
    """What a request's headers ask for."""
    found = Wanted()
    for header, value in headers:
        if header[:1] not in ("I", "i"):  # every request comes by here
            continue
        name = header.lower()
        if not name.startswith(_PREFIX):
            continue
        if name == "impersonate-user":
            found.name = found.name or value
        elif name == "impersonate-uid":
            found.uid = found.uid or value
        elif name == "impersonate-group":
            found.groups.append(value)
        elif name.startswith(_EXTRA):
            found.extra.setdefault(unquote(name[len(_EXTRA) :]), []).append(value)
    return found


async def from_headers(
    user: User, headers: Iterable[tuple[str, str]], authorizer: Authorizer
) -> User:
    """The user in whose name the request with these headers is to be judged.

    Raises:
        StatusError: 400, something of nobody; 403, ``user`` may not.
    """
    other = wanted(headers)
    if not other:
        return user
    if not other.name:
        raise bad_request(f"requested [{' '.join(_shown(other))}] without impersonating a user")
    for info in questions(other):
        await authorizer.check(user, info)
    return _made(other)


def questions(other: Wanted) -> list[RequestInfo]:
    """What must be allowed to whom wants to act as ``other``."""
    if account := split_user_name(other.name):
        asked = [_impersonate("serviceaccounts", account[1], namespace=account[0])]
    else:
        asked = [_impersonate("users", other.name)]
    asked += [_impersonate("groups", group) for group in other.groups]
    for key, values in other.extra.items():
        asked += [_impersonate("userextras", value, _GROUP, subresource=key) for value in values]
    if other.uid:
        asked.append(_impersonate("uids", other.uid, _GROUP))
    return asked


def _impersonate(
    plural: str, name: str, group: str = "", *, subresource: str = "", namespace: str = ""
) -> RequestInfo:
    return RequestInfo(
        "", "", "impersonate", True, group, _VERSION, plural, subresource, namespace, name
    )


def _made(other: Wanted) -> User:
    """The user himself. Groups that are named are those he has; but for the one that says whether
    he is known, which is added unless that is said as well."""
    groups = list(other.groups)
    account = split_user_name(other.name)
    if account is not None and not groups:
        groups = list(service_account_groups(account[0]))
    if other.name == ANONYMOUS.name:
        if UNAUTHENTICATED not in groups:
            groups.append(UNAUTHENTICATED)
    elif AUTHENTICATED not in groups and UNAUTHENTICATED not in groups:
        groups.append(AUTHENTICATED)
    extra = {key: tuple(values) for key, values in other.extra.items()}
    return User(other.name, tuple(groups), other.uid, extra)


def _shown(other: Wanted) -> list[str]:
    """As Go prints the object references that upstream makes of the headers."""
    shown = [f"{{Group  {group}    }}" for group in other.groups]
    version = f"{_GROUP}/{_VERSION}"
    for key, values in other.extra.items():
        shown += [f"{{UserExtra  {value}  {version}  {key}}}" for value in values]
    if other.uid:
        shown.append(f"{{UID  {other.uid}  {version}  }}")
    return shown
